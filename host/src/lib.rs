//! What every faultlane process stands on; one way to do each thing.
//!
//! ```text
//! child   ready line, configuration by stdin, end at stdin's end; and spawning such a child
//! http    JSON over HTTP/1.1: a small server for control APIs, a pooled client
//! faults  the routes by which every holder of faults is driven
//! clock   the monotonic clock, the wall clock
//! timer   sleeps that are late by 0.1 ms instead of tokio's 1 ms and more
//! jsonl   files of JSON lines: append, sync, heal, read
//! door    where callers come in: an address, a unix socket, TLS with a certificate of their own
//! tls     TLS as client and as server, why it failed, and certificates for as long as a process lives
//! peer    a server as its clients reach it: address, name, TLS, headers
//! net     listening sockets with a deep backlog
//! fd      descriptors that tokio has no type for
//! harness how well a process keeps time itself
//! ```

pub mod child;
pub mod clock;
pub mod door;
pub mod faults;
pub mod fd;
pub mod harness;
pub mod http;
pub mod jsonl;
pub mod net;
pub mod peer;
pub mod timer;
pub mod tls;
