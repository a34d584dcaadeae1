//! Instants on the host's one monotonic clock.

use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

use crate::quantity::Span;

/// Micro-seconds on `CLOCK_MONOTONIC`, which all processes of a host share: instants taken by different processes
/// of one host compare. It means nothing on another host.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// How long before `self` `earlier` was; zero when it was not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Mono {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.as_micros()))
    }
}

impl Sub<Span> for Mono {
    type Output = Self;

    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.as_micros()))
    }
}

/// An injection or a heal: it happened at some instant from `asked` to `observed`. Clients can notice a kill before
/// its confirmation, so neither end alone is the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bracket {
    /// Just before the call that made the change.
    #[serde(rename = "asked_us")]
    pub asked: Mono,
    /// When the change was first seen to be in force.
    #[serde(rename = "observed_us")]
    pub observed: Mono,
}

impl Bracket {
    /// The uncertainty about the true instant.
    #[must_use]
    pub const fn width(&self) -> Span {
        self.observed.since(self.asked)
    }
}
