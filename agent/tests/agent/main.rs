//! The agent as a process, with children that stand in for the real ones: real signals, real sockets.

mod children;
mod clocks;
mod commands;
mod crashes;
mod end;
mod guard;
mod kills;
mod lab;
mod node_faults;
mod probes;
mod relayed_faults;
mod support;
mod watchdog;
