//! What differs between lanes, as the client machine sees it: how to ask for an upgrade, what to send, and what the
//! frames that arrive mean. A further lane is one more module here and its wire types.

mod khala;
mod spacetime;

use std::sync::Arc;

use model::ids::{Lane, Seq, StreamId};
use model::quantity::Span;
use model::snapshot::Cover;
use model::target::Access;

use crate::client::machine::Refusal;
use crate::connection::Upgrade;
use crate::content::Row;
use crate::frame::Frame;

/// What an arrived frame means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The lane let the client in: it may subscribe.
    Joined,
    /// Rows, replayed before [`Signal::Subscribed`] and live after it.
    Rows {
        /// Which of the lane's framings.
        framing: usize,
        /// The rows, in any order.
        rows: Vec<Row>,
    },
    /// The replay is complete, and these are the heads that the lane names. `rows` are replayed rows that came in the
    /// same frame, so that the client can compare its cursors with the heads before it applies anything.
    Subscribed {
        /// Replayed rows.
        rows: Vec<Row>,
        /// Head by stream.
        heads: Vec<(StreamId, Seq)>,
    },
    /// The lane says that cursors are stale.
    Stale(Vec<Stale>),
    /// The lane ends the connection or refuses the subscription.
    Denied(Refusal),
    /// The lane asks to slow down.
    Throttled(String),
}

/// A stale cursor as a lane answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// The stream.
    pub stream: StreamId,
    /// The lane's reason, such as `retention_floor_breach`.
    pub reason: String,
    /// The cursor that it refused.
    pub resume_after: Seq,
    /// What to begin anew from, where the lane gives it.
    pub snapshot: Option<Cover>,
}

/// One connection's codec.
pub trait Session: Send {
    /// What is sent as soon as the connection is open.
    fn open(&mut self) -> Vec<Frame<'static>>;

    /// What asks for all events after these cursors; any earlier subscription of the connection ends with it.
    fn subscribe(&mut self, cursors: &[(&str, Seq)]) -> Vec<Frame<'static>>;

    /// A heartbeat.
    fn heartbeat(&mut self) -> Vec<Frame<'static>>;

    /// What a frame means; nothing for one that only shows that the lane is alive.
    ///
    /// # Errors
    /// The frame is not one of the lane's, and what is wrong with it.
    fn receive(&mut self, frame: &Frame<'_>) -> Result<Vec<Signal>, String>;
}

/// A lane's traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Which.
    pub lane: Lane,
    /// Whether it answers stale cursors itself. Where it does not, the client compares its cursor with head and
    /// first row.
    pub answers_stale: bool,
    /// The names of its framings.
    pub framings: &'static [&'static str],
}

impl Kind {
    /// The traits of a lane.
    #[must_use]
    pub const fn of(lane: Lane) -> Self {
        match lane {
            Lane::Spacetime => Self {
                lane,
                answers_stale: false,
                framings: &["rows"],
            },
            Lane::Khala => Self {
                lane,
                answers_stale: true,
                framings: &["batch", "frame"],
            },
        }
    }

    /// The upgrade that a client asks for.
    #[must_use]
    pub fn upgrade(self, access: &Access, jwt: &str) -> Upgrade {
        match self.lane {
            Lane::Spacetime => spacetime::upgrade(access, jwt),
            Lane::Khala => khala::upgrade(jwt),
        }
    }

    /// A codec for a new connection.
    #[must_use]
    pub fn session(self, access: &Arc<Access>) -> Box<dyn Session> {
        match self.lane {
            Lane::Spacetime => Box::new(spacetime::Spacetime::new(Arc::clone(access))),
            Lane::Khala => Box::new(khala::Khala::default()),
        }
    }
}

/// A refusal on an open connection.
fn denied(reason: impl Into<String>, wait: Option<Span>) -> Signal {
    Signal::Denied(Refusal {
        status: None,
        reason: reason.into(),
        retry_after: wait,
    })
}
