//! What is measured, one file each.

pub(crate) mod bandwidth;
pub(crate) mod connects;
pub(crate) mod delay;
pub(crate) mod idle;
pub(crate) mod requests;
pub(crate) mod throughput;

use std::time::Duration;

/// That quantile of sorted values, by the nearest rank.
pub(crate) fn quantile<T: Copy + Default>(sorted: &[T], quantile: f64) -> T {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is neither negative nor large"
    )]
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    let at = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

pub(crate) fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
