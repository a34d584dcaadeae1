//! The figures of one histogram, and how they stand to their bounds.

use model::criteria::Bounds;
use model::histogram::Micros;
use model::quantity::Span;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

/// A quantile, in micro-seconds: a number, `"not estimable"`, or `null` when it lies among the censored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantile {
    /// Known.
    Us(u64),
    /// There are fewer than 1/(1−q) samples.
    NotEstimable,
    /// It lies among those that had not finished when the deadline passed.
    Censored,
}

const NOT_ESTIMABLE: &str = "not estimable";

impl Quantile {
    fn of(histogram: &Micros, censored: u64, q: f64) -> Self {
        if Micros::estimable(q, histogram.count() + censored) {
            histogram
                .quantile(q, censored)
                .map_or(Self::Censored, |span| Self::Us(span.as_micros()))
        } else {
            Self::NotEstimable
        }
    }
}

impl Serialize for Quantile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Us(micros) => serializer.serialize_u64(*micros),
            Self::NotEstimable => serializer.serialize_str(NOT_ESTIMABLE),
            Self::Censored => serializer.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for Quantile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Null => Ok(Self::Censored),
            serde_json::Value::String(text) if text == NOT_ESTIMABLE => Ok(Self::NotEstimable),
            serde_json::Value::Number(number) if number.is_u64() => {
                Ok(Self::Us(number.as_u64().unwrap_or_default()))
            }
            other => Err(de::Error::custom(format!(
                "`{other}` is not a quantile; one is micro-seconds, `null` or \"{NOT_ESTIMABLE}\""
            ))),
        }
    }
}

/// The figures of one histogram. All but the histogram, `affected`, `censored` and `bound` are derived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Samples.
    pub count: u64,
    /// The affected clients, of which `count` and `censored` are parts; absent where the samples are not clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affected: Option<u64>,
    /// The smallest; `None` without samples.
    pub min_us: Option<u64>,
    /// The median.
    pub p50_us: Quantile,
    /// 90 %.
    pub p90_us: Quantile,
    /// 95 %.
    pub p95_us: Quantile,
    /// 99 %.
    pub p99_us: Quantile,
    /// 99.9 %.
    pub p999_us: Quantile,
    /// The largest that is known; `None` without samples.
    pub max_us: Option<u64>,
    /// Clients that had not finished when the deadline passed: beyond every figure.
    pub censored: u64,
    /// The declared bounds.
    pub bound: Bounds,
    /// Whether all of them are kept; `None` where there are none, or nothing to hold against them.
    pub within_bound: Option<bool>,
    /// All samples.
    pub histogram: Micros,
}

/// A bound that was not kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Exceeded {
    /// `p99`, or `max`.
    pub(crate) name: &'static str,
    /// The bound.
    pub(crate) bound: Span,
    /// The figure; `None` when it lies among the censored.
    pub(crate) figure: Option<Span>,
    /// There are too few samples for the quantile, so that the largest stands for it.
    pub(crate) largest: bool,
}

impl Figures {
    /// Derives the figures of a histogram.
    #[must_use]
    pub fn of(histogram: Micros, censored: u64, affected: Option<u64>, bound: Bounds) -> Self {
        let quantile = |q| Quantile::of(&histogram, censored, q);
        let mut this = Self {
            count: histogram.count(),
            affected,
            min_us: histogram.min().map(Span::as_micros),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p95_us: quantile(0.95),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: histogram.max().map(Span::as_micros),
            censored,
            bound,
            within_bound: None,
            histogram,
        };
        this.within_bound = (this.bound.extremes().is_some() && this.samples() > 0)
            .then(|| this.exceeded().is_empty());
        this
    }

    /// The figures of a histogram whose samples are not clients and that has no bounds.
    #[must_use]
    pub fn plain(histogram: Micros) -> Self {
        Self::of(histogram, 0, None, Bounds::default())
    }

    /// Derives them anew from the histogram, the censored and the bounds.
    #[must_use]
    pub fn recomputed(&self) -> Self {
        Self::of(
            self.histogram.clone(),
            self.censored,
            self.affected,
            self.bound.clone(),
        )
    }

    /// Samples, those censored among them.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.count + self.censored
    }

    /// The quantile by nearest rank: the largest value where there are too few samples to estimate it, which errs on
    /// the strict side. `None` among the censored or without samples.
    #[must_use]
    pub fn nearest(&self, q: f64) -> Option<Span> {
        self.histogram.quantile(q, self.censored)
    }

    /// The bounds that are not kept. Empty without samples.
    pub(crate) fn exceeded(&self) -> Vec<Exceeded> {
        if self.samples() == 0 {
            return Vec::new();
        }
        self.bound
            .each()
            .filter_map(|(name, q, bound)| {
                let figure = self.nearest(q);
                let kept = figure.is_some_and(|figure| figure <= bound);
                (!kept).then_some(Exceeded {
                    name,
                    bound,
                    figure,
                    largest: q < 1.0 && !Micros::estimable(q, self.samples()),
                })
            })
            .collect()
    }
}
