//! The agent as a process, with children that stand in for the real ones: real signals, real sockets.

mod children;
mod commands;
mod end;
mod guard;
mod node_faults;
mod operated;
mod probes;
mod relayed_faults;
mod run_lock;
mod support;
