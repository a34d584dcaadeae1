//! What the proxy knows of WebSocket: sans-IO, and in the way of the bytes only where a toxic edits frames.

mod close;
mod editor;
mod frame;
mod head;
mod message;
mod query;
mod rewrite;
mod scanner;
mod tracker;

pub(crate) use close::close_frame;
#[cfg(any(fuzzing, test))]
pub(crate) use editor::rig;
pub(crate) use editor::{Editor, LIMIT};
pub(crate) use frame::{Frame, opcode};
pub(crate) use head::{Head, Request, Sniffer};
pub(crate) use message::{Behind, First, Outgoing};
pub(crate) use rewrite::{HeadEdit, rewrite};
pub use scanner::{Event, Header, Scanner};
pub(crate) use tracker::Tracker;
