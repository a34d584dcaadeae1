//! The agent as a process, with children that stand in for the real ones: real signals, real sockets.

mod children;
mod clocks;
mod commands;
mod crashes;
mod crew;
mod db;
mod end;
mod guard;
mod half_way;
mod kills;
mod machine;
mod netns;
mod network;
mod node_faults;
mod operated;
mod operators_nodes;
mod probes;
mod relayed_faults;
mod run_lock;
mod support;
mod victim;
mod watchdog;
