//! What a number of trials says. The trial is the unit: clients in one trial share a fate.

/// With 95 % confidence at least this share of all trials is within bounds, when `trials` of `trials` were:
/// 0.05^(1/n). 0 for no trial.
#[must_use]
pub fn coverage(trials: u32) -> f64 {
    if trials == 0 {
        0.0
    } else {
        0.05_f64.powf(1.0 / f64::from(trials))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_grows_with_the_trials() {
        for (trials, percent) in [(0, 0), (1, 5), (10, 74), (20, 86), (59, 95), (299, 99)] {
            assert_eq!(
                format!("{:.0}", coverage(trials) * 100.0),
                percent.to_string()
            );
        }
    }
}
