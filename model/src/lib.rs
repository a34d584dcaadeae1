//! What every room of faultlane shares, and nothing that does I/O.
//!
//! ```text
//! ids         lanes, clients, streams, faults            instant     monotonic instants, brackets
//! quantity    250ms, 200/s, 64KiB, 25%                   decide      seeded decisions, free of arrival order
//! fault       what can be injected, and who holds it     lease       when a holder must undo it alone
//! event       payloads as a function of (seed, stream, index), canonical JSON, hashes
//! schedule    when an event is due                       snapshot    a stream's content as a digest
//! intervals   sets of seqs                               histogram   micro-seconds, mergeable
//! anomaly     what a check can find                      defect      what is planted to prove that it does
//! profile     the protocol's clocks and budgets          criteria    bounds and limits of a trial
//! role        configuration of every child process       shard       what a fleet shard is told and reports
//! target      how a lane is reached, spoken to, and what it promises
//! probe       which clients have to be refused, and which have to notice that they are stale
//! topic       khala topics ↔ streams
//! moment      what one client did, kept where it was anomalous
//! trial       all that was seen in one execution of a plan
//! command     what an agent may run, by name          external    probes beside the lane
//! net         addresses, ranges of them, interfaces   node        the nodes that an operator runs
//! crew        the agents of an inventory as a trial has them: parts, clocks, who hears whom
//! policy      how far an agent lets a drill go
//! ```

pub mod anomaly;
pub mod command;
pub mod crew;
pub mod criteria;
pub mod decide;
pub mod defect;
pub mod event;
pub mod external;
pub mod fault;
pub mod histogram;
pub mod ids;
pub mod instant;
pub mod intervals;
pub mod lease;
pub mod moment;
pub mod net;
pub mod node;
pub mod policy;
pub mod probe;
pub mod profile;
pub mod quantity;
pub mod role;
pub mod schedule;
pub mod shard;
pub mod snapshot;
pub mod target;
pub mod topic;
pub mod trial;
