//! What every faultlane process stands on; one way to do each thing.
//!
//! ```text
//! child   ready line, configuration by stdin, end at stdin's end; and spawning such a child
//! http    JSON over HTTP/1.1: a small server for control APIs, a pooled client
//! faults  the routes by which every holder of faults is driven
//! clock   the monotonic clock, the wall clock
//! timer   sleeps that are late by 0.1 ms instead of tokio's 1 ms and more
//! jsonl   files of JSON lines: append, sync, heal, read
//! net     listening sockets with a deep backlog
//! harness how well a process keeps time itself
//! ```

pub mod child;
pub mod clock;
pub mod faults;
pub mod harness;
pub mod http;
pub mod jsonl;
pub mod net;
pub mod timer;
