//! Sync lanes as a client sees them: wire codecs, the client state machine, fleet shards and publishers.
//!
//! ```text
//! khala       Phoenix frames: messages, refusals, topics      spacetime   messages on both wires, rows, queries
//! token       claims, signatures, the token service       lane         what differs between lanes, for a client
//! connection  TCP and upgrade    frame  text or binary    client       the state machine, apply, recovery
//! content     deliveries against what was published       marks        what was acknowledged, and since when
//! store       a lane's log, for publishers                publisher    open-loop writers    ledger  their book
//! pipeline    many appends at once
//! oneshot     one connection for one question             probes       who has to be refused
//! final_read  every stream anew                           clean_up     what was published, removed again
//! shard       the process                                 preflight    whether a lane can be drilled as described
//! ```

pub mod clean_up;
pub mod client;
pub mod connection;
pub mod content;
pub mod final_read;
pub mod frame;
pub mod khala;
pub mod lane;
pub mod ledger;
pub mod marks;
pub mod oneshot;
pub mod pipeline;
pub mod preflight;
pub mod probes;
pub mod publisher;
pub mod shard;
pub mod spacetime;
pub mod store;
pub mod token;
pub mod token_client;
