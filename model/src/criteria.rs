//! What a trial is judged by.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{Rate, Share, Span};

/// A phase of a client's way back.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// First local evidence − fault.
    Detect,
    /// Upgraded and authenticated − the later of detection and heal.
    Reconnect,
    /// First replayed row or the reply − subscribe sent.
    Resume,
    /// Everything applied that was acknowledged when subscribe was sent − resumed.
    CatchUp,
    /// Caught up − heal: the system's property.
    Recovery,
    /// Caught up − fault: the user's pain.
    Outage,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 6] = [
        Self::Detect,
        Self::Reconnect,
        Self::Resume,
        Self::CatchUp,
        Self::Recovery,
        Self::Outage,
    ];

    /// The name in scenarios and results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Reconnect => "reconnect",
            Self::Resume => "resume",
            Self::CatchUp => "catch_up",
            Self::Recovery => "recovery",
            Self::Outage => "outage",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Upper bounds on the quantiles of one figure; a quantile without a bound is reported, not judged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// The median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<Span>,
    /// 90 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<Span>,
    /// 95 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95: Option<Span>,
    /// 99 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<Span>,
    /// The slowest of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
}

impl Bounds {
    /// The bounds that are set: name, quantile (1 for the maximum) and bound.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, f64, Span)> {
        [
            ("p50", 0.5, self.p50),
            ("p90", 0.9, self.p90),
            ("p95", 0.95, self.p95),
            ("p99", 0.99, self.p99),
            ("max", 1.0, self.max),
        ]
        .into_iter()
        .filter_map(|(name, q, bound)| bound.map(|bound| (name, q, bound)))
    }

    /// The largest and the tightest bound.
    #[must_use]
    pub fn extremes(&self) -> Option<(Span, Span)> {
        let spans = || self.each().map(|(_, _, bound)| bound);
        spans().max().zip(spans().min())
    }
}

/// Limits on counts and ratios. Safety anomalies need none: their limit is 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Deliveries of a (stream, seq) that had been delivered in the same framing, against all deliveries.
    pub duplicate_delivery: Share,
    /// Rows replayed at or below a resume cursor.
    pub over_replay: u64,
    /// Attempts made before the time that Retry-After named.
    pub retry_after_ignored: u64,
    /// Probes refused for another reason than the true one.
    pub wrong_reason: u64,
    /// Connection attempts per affected client, from the fault until it was whole again: the mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_per_client: Option<f64>,
    /// The most connection attempts that reached the lane or the proxy in any one second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_arrivals: Option<Rate>,
    /// Delivery latency from the intended instant, before the fault and after recovery: p95.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_p95: Option<Span>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            duplicate_delivery: Share::ratio(0.0),
            over_replay: 0,
            retry_after_ignored: 0,
            wrong_reason: 0,
            attempts_per_client: None,
            peak_arrivals: None,
            delivery_p95: None,
        }
    }
}

/// All that a trial is judged by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Criteria {
    /// The least share of the clients that the fault must affect; below it the trial is inconclusive.
    pub affected: Share,
    /// Bounds by phase.
    pub bounds: BTreeMap<Phase, Bounds>,
    /// Time to steady, from the heal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steady: Option<Span>,
    /// Limits on counts.
    pub limits: Limits,
    /// Clients that are not whole so long after the last heal are censored.
    pub deadline: Span,
}

impl Criteria {
    /// The tightest bound judged: harness lag is held against it.
    #[must_use]
    pub fn tightest(&self) -> Option<Span> {
        self.bounds
            .values()
            .filter_map(|bounds| bounds.extremes().map(|(_, tightest)| tightest))
            .min()
    }
}
