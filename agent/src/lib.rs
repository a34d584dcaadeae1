//! The agent of a node: a small supervisor that owns the target's processes, holds node faults under leases, and passes
//! link and token faults on to the children that hold them. And the conductor, which walks a plan by asking agents.
//!
//! ```text
//! service     the agent as a process: start, serve, end
//! operated    the same, run by an operator from a file of its own
//! gate        what stands before the API                  access      who a caller is, and its role
//! run_lock    one conductor at a time                     audit       who asked for what, and what came of it
//! api         its HTTP routes and their bodies            client      the same, typed, for the conductor
//! reach       the agents of an inventory                  offset      how far an agent's clocks are from ours
//! ears        datagrams from agent to agent: who hears whom
//! pki         an authority and certificates for operators
//! supervisor  children by name                            process     one child: its pidfd, its end
//! faults      the holder: processes (kill, terminate, pause, kill_tree, crash_loop), network (the kernel: nft, tc, ss),
//!             machine (cores, memory, disk), relay (proxies, shards, the token service)
//! pressure    `faultlane pressure`: the worker that takes up cores or memory
//! memory      how much there is to be had
//! journal     what must be undone, on disk before it is done
//! watchdog    `faultlane watchdog`: undoes it when the agent is killed and does not come back within the lease
//! crash       where an agent kills itself, for tests
//! state       the agent's folder: journal, halt marker, its children's data
//! commands    the commands of its own configuration, run by name
//! residue     what faults can touch, before and after
//! nodes       the nodes that an operator runs: found, and started again    launch   `faultlane launch`: by whom
//! procfs      what the kernel says about processes        tree     a process and all that descend from it
//! held        a process of somebody else's
//! guard       `faultlane guard`: a foreign program that must not outlive its parent
//! spacetimedb `faultlane spacetimedb`: a real server under guard, as a node
//! preflight   descriptors; what this kernel and these rights allow
//! tool        nft, tc, ss, ip as programs
//! ```
//!
//! Whatever the agent starts ends with it, but the watchdog: its children read their stdin, and a stopped one, which
//! cannot, is continued by the agent when it ends or, after a crash, by its successor or the watchdog (the kernel itself
//! hangs up on stopped processes whose parent dies, where the parent was the group's last tie to the session).

pub mod access;
pub mod api;
pub mod audit;
pub mod client;
pub mod commands;
pub mod conductor;
pub mod crash;
pub mod ears;
pub mod faults;
pub mod gate;
pub mod guard;
pub mod held;
pub mod journal;
pub mod launch;
pub mod memory;
pub mod nodes;
pub mod offset;
pub mod operated;
pub mod pki;
pub mod preflight;
pub mod pressure;
pub mod process;
pub mod procfs;
pub mod reach;
pub mod residue;
pub mod run_lock;
pub mod service;
pub mod spacetimedb;
pub mod state;
pub mod supervisor;
pub mod tool;
pub mod tree;
pub mod watchdog;

pub use service::main;
