//! Sync lanes as a client sees them: wire codecs, the client state machine, fleet shards and publishers.
//!
//! ```text
//! khala       Phoenix frames: messages, refusals, topics      spacetime   v1.json messages, rows, queries
//! token       claims, signatures, the token service
//! ```

pub mod khala;
pub mod spacetime;
pub mod token;
