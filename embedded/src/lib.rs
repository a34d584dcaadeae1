//! The embedded target: what a drill runs against when it is given nothing else. Three servers, each a process of
//! its own in a drill: the two lanes and the token service.
//!
//! ```text
//! lane        the process `faultlane lane`: configuration, control API, one of
//!   khala       the Phoenix-framed lane            spacetime   the SpacetimeDB lane and its module
//! tokens      the process `faultlane tokens`     front       HTTP and the upgrade to WebSocket
//! log         durable streams with group commit  connection  a client's socket: queue, clocks, expiry
//! auth        tokens as a lane checks them       bucket      rates
//! counters    what a lane counts                 defect      every planted defect, and where it bites
//! ```

mod auth;
mod bucket;
mod connection;
mod counters;
mod defect;
mod front;
mod khala;
pub mod lane;
pub mod log;
mod spacetime;
pub mod tokens;
