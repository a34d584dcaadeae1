//! The agent as a process, with children that stand in for the real ones: real signals, real sockets.

mod children;
mod commands;
mod end;
mod guard;
mod half_way;
mod netns;
mod network;
mod node_faults;
mod probes;
mod relayed_faults;
mod support;
