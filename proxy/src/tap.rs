//! Where a lane's decoder can listen to the frames that pass.

use std::fmt::Debug;

use model::fault::Direction;

use crate::websocket::Header;

/// Which way through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the client to the lane.
    Upstream,
    /// From the lane to the client.
    Downstream,
}

impl Way {
    /// Whether a fault with this direction is about this way.
    pub(crate) const fn is_in(self, direction: Direction) -> bool {
        matches!(
            (self, direction),
            (_, Direction::Both)
                | (Self::Upstream, Direction::Upstream)
                | (Self::Downstream, Direction::Downstream)
        )
    }

    /// The name in decisions.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Downstream => "downstream",
        }
    }
}

/// Listens to frames as they are passed on. It is called from the connections' tasks, of several at a time, and has
/// to return soon: it can neither hold nor change anything.
///
/// Client frames that were sent before the lane answered the upgrade are heard too, even where the answer then is a
/// refusal.
pub trait FrameTap: Debug + Send + Sync + 'static {
    /// A frame's header has passed. `connection` counts accepted connections from 0.
    fn header(&self, connection: u64, way: Way, header: &Header);

    /// The next piece of that frame's payload has passed: as on the wire, so masked where the header says so.
    fn payload(&self, connection: u64, way: Way, piece: &[u8]);
}
