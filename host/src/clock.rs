//! The one time source.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use model::instant::Mono;
use rustix::time::{ClockId, clock_gettime};

/// Now on the host's monotonic clock.
#[must_use]
pub fn now() -> Mono {
    let time = clock_gettime(ClockId::Monotonic);
    Mono(
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
            + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000,
    )
}

/// The boot since which [`now`] counts: an instant of another boot means nothing in this one. Empty where the kernel does
/// not tell.
#[must_use]
pub fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim_end().to_owned())
            .unwrap_or_default()
    })
}

/// The wall clock, in micro-seconds since the Unix epoch. For evidence and tokens only: no lease is measured by it.
#[must_use]
pub fn unix_micros() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
