//! Figures and findings as a person reads them.

use model::anomaly::Example;
use model::quantity::Span;
use model::shard::DeliveryPart;

use crate::figures::Quantile;

/// Three digits and a unit: `850 µs`, `12.3 ms`, `4.21 s`.
pub(crate) fn span(span: Span) -> String {
    let micros = span.as_micros();
    let digits = |value: f64| match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    };
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..999_500 => format!("{} ms", digits(micros as f64 / 1e3)),
        _ => format!("{} s", digits(micros as f64 / 1e6)),
    }
}

/// Micro-seconds, if they are known.
pub(crate) fn micros(micros: Option<u64>) -> String {
    micros.map_or_else(dash, |micros| span(Span::from_micros(micros)))
}

/// A quantile.
pub(crate) fn quantile(quantile: Quantile) -> String {
    match quantile {
        Quantile::Us(micros) => span(Span::from_micros(micros)),
        Quantile::NotEstimable => "n/e".to_owned(),
        Quantile::Censored => "never".to_owned(),
    }
}

/// What stands where nothing is known.
pub(crate) fn dash() -> String {
    "-".to_owned()
}

/// An example, in one line.
pub(crate) fn example(example: &Example) -> String {
    let mut place: Vec<String> = Vec::new();
    place.extend(example.client.map(|client| client.to_string()));
    place.extend(example.stream.clone());
    place.extend(example.seq.map(|seq| format!("seq {seq}")));
    if place.is_empty() {
        example.detail.clone()
    } else {
        format!("{}: {}", place.join(" "), example.detail)
    }
}

/// The part of a trial, as in "before the fault".
pub(crate) const fn part(part: DeliveryPart) -> &'static str {
    match part {
        DeliveryPart::Before => "before",
        DeliveryPart::During => "during",
        DeliveryPart::After => "after",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_three_digits() {
        for (micros, text) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (12_345, "12.3 ms"),
            (999_499, "999 ms"),
            (999_999, "1.00 s"),
            (4_214_000, "4.21 s"),
            (61_000_000, "61.0 s"),
        ] {
            assert_eq!(span(Span::from_micros(micros)), text);
        }
    }
}
