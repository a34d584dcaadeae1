//! Histograms of micro-seconds that merge without loss and travel as `HdrHistogram` V2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize, de};

use crate::quantity::Span;

/// The largest value told apart: one hour, in micro-seconds.
pub const HIGHEST_US: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// A histogram of micro-seconds, 1 to 3.6e9, with 3 significant digits: the same bounds everywhere, so that all of
/// them merge. Serialised as `{"unit":"us","over_range":n,"v2_deflate_base64":"HISTF…"}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Micros {
    counts: Histogram<u64>,
    over_range: u64,
}

impl Default for Micros {
    fn default() -> Self {
        let counts = Histogram::new_with_bounds(1, HIGHEST_US, SIGNIFICANT_DIGITS)
            .expect("the bounds are valid");
        Self {
            counts,
            over_range: 0,
        }
    }
}

impl Micros {
    /// Records a span. Below 1 µs counts as 1; above an hour counts as an hour, and in [`Self::over_range`].
    pub fn record(&mut self, span: Span) {
        let micros = span.as_micros();
        self.over_range += u64::from(micros > HIGHEST_US);
        self.counts.saturating_record(micros.max(1));
    }

    /// Adds another histogram: the same counts as if one had recorded both.
    pub fn merge(&mut self, other: &Self) {
        self.counts
            .add(&other.counts)
            .expect("all histograms have the same bounds");
        self.over_range += other.over_range;
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// How many of them were above an hour.
    #[must_use]
    pub const fn over_range(&self) -> u64 {
        self.over_range
    }

    /// The smallest value; `None` when there is none.
    #[must_use]
    pub fn min(&self) -> Option<Span> {
        (self.count() > 0).then(|| Span::from_micros(self.counts.min()))
    }

    /// The largest value, to 3 digits; `None` when there is none.
    #[must_use]
    pub fn max(&self) -> Option<Span> {
        (self.count() > 0).then(|| Span::from_micros(self.counts.max()))
    }

    /// The smallest recorded value that at least the share `q` of all values do not exceed, when `beyond` more
    /// values are known only to be larger than any recorded (censored). `None` when it falls among those, or when
    /// there are no values.
    #[must_use]
    pub fn quantile(&self, q: f64, beyond: u64) -> Option<Span> {
        let total = self.count() + beyond;
        if total == 0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "q is from 0 to 1"
        )]
        let rank = ((q * total as f64).ceil() as u64).clamp(1, total);
        if rank > self.count() {
            return None;
        }
        let mut seen = 0;
        for step in self.counts.iter_recorded() {
            seen += step.count_at_value();
            if seen >= rank {
                return Some(Span::from_micros(
                    step.value_iterated_to().min(self.counts.max()),
                ));
            }
        }
        self.max()
    }

    /// Whether `samples` are enough to speak of the quantile `q`: at least 1/(1−q).
    #[must_use]
    pub fn estimable(q: f64, samples: u64) -> bool {
        // A hair's breadth of tolerance, because 1/(1−0.99) is 99.999… in binary.
        q >= 1.0 || samples as f64 + 1e-6 >= 1.0 / (1.0 - q)
    }

    /// V2 with deflate, in base64: starts with `HISTF`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.counts, &mut bytes)
            .expect("writing to memory does not fail");
        STANDARD.encode(bytes)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// The text is not base64, not a V2 histogram, or one that does not fit the bounds.
    pub fn decode(text: &str, over_range: u64) -> Result<Self, String> {
        let bytes = STANDARD
            .decode(text)
            .map_err(|error| format!("the histogram is not base64: {error}"))?;
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("the histogram is not HdrHistogram V2: {error:?}"))?;
        let mut this = Self {
            over_range,
            ..Self::default()
        };
        this.counts.add(&read).map_err(|error| {
            format!("the histogram has other bounds than 1 us to 1 h: {error:?}")
        })?;
        Ok(this)
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    unit: String,
    over_range: u64,
    v2_deflate_base64: String,
}

impl Serialize for Micros {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            unit: "us".to_owned(),
            over_range: self.over_range,
            v2_deflate_base64: self.encode(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        if wire.unit != "us" {
            return Err(de::Error::custom(format!(
                "the histogram's unit is `{}`, not `us`",
                wire.unit
            )));
        }
        Self::decode(&wire.v2_deflate_base64, wire.over_range).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merged_shards_equal_one_recording(values in prop::collection::vec((0_u64..5_000_000_000, 0_usize..3), 0..60)) {
            let (mut one, mut shards) = (Micros::default(), vec![Micros::default(); 3]);
            for (value, shard) in values {
                one.record(Span::from_micros(value));
                shards[shard].record(Span::from_micros(value));
            }
            let mut merged = Micros::default();
            for shard in &shards {
                let text = serde_json::to_string(shard).unwrap();
                merged.merge(&serde_json::from_str(&text).unwrap());
            }
            prop_assert_eq!(&merged, &one);
            prop_assert!(one.encode().starts_with("HISTF"));
        }
    }

    #[test]
    fn a_quantile_among_the_censored_is_unknown() {
        let mut histogram = Micros::default();
        (1..=90).for_each(|n| histogram.record(Span::from_millis(n)));
        assert_eq!(histogram.quantile(0.5, 10), Some(Span::from_micros(50_015)));
        assert_eq!(histogram.quantile(0.95, 10), None);
        assert_eq!(Micros::default().quantile(0.5, 0), None);
    }

    #[test]
    fn a_tail_needs_samples() {
        assert!(Micros::estimable(0.99, 100) && !Micros::estimable(0.99, 99));
        assert!(!Micros::estimable(0.999, 200) && Micros::estimable(0.5, 2));
    }
}
