//! What the proxy knows of WebSocket: sans-IO, and never in the way of the bytes.

mod close;
mod head;
mod query;
mod rewrite;
mod scanner;

pub(crate) use close::close_frame;
pub(crate) use head::{Head, Request, Sniffer};
pub(crate) use rewrite::{HeadEdit, rewrite};
pub use scanner::{Event, Header, Scanner};
