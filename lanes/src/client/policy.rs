//! When to try again. Every delay is a function of (seed, policy, client, outage, attempt), never of arrival order.

use model::decide;
use model::ids::ClientId;
use model::quantity::{Rate, Span};
use model::shard::Policy;

/// A little more than the time that the lane needs for all clients, so that its bucket need not be hit exactly.
const HEADROOM: f64 = 1.1;
/// The fractional part of the golden ratio: multiples of it, taken modulo 1, fill the unit interval evenly whatever
/// stretch of ordinals is taken.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// A reconnect policy with its settings.
#[derive(Debug, Clone)]
pub struct Pacing {
    /// Which.
    pub policy: Policy,
    /// The first delay, before growth.
    pub base: Span,
    /// The largest delay.
    pub cap: Span,
    /// The trial's seed.
    pub seed: u64,
    /// Clients in all shards together.
    pub fleet: u32,
    /// The rate at which the lane takes them back.
    pub capacity: Option<Rate>,
}

impl Pacing {
    /// The time that the lane needs to accept the whole fleet; zero where its rate is not known.
    #[must_use]
    pub fn window(&self) -> Span {
        self.capacity
            .and_then(Rate::interval)
            .map_or(Span::ZERO, |interval| {
                Span::from(interval)
                    .times(u64::from(self.fleet))
                    .scale(HEADROOM)
            })
    }

    /// How long `client` waits before attempt `attempt` (from 1) of its `outage`-th outage.
    #[must_use]
    pub fn delay(&self, client: ClientId, outage: u64, attempt: u32) -> Span {
        let attempt = attempt.max(1);
        match self.policy {
            Policy::Desktop => self.grown(attempt - 1),
            Policy::Web => self.cap.min(self.base.times(3 << attempt.min(6))),
            Policy::Ios => {
                let jitter = self.unit("ios", client, outage, attempt) * 0.5;
                self.grown(attempt - 1).scale(1.0 + jitter)
            }
            Policy::Spread if attempt == 1 && self.capacity.is_some() => {
                self.place_in_window(client, outage)
            }
            Policy::FullJitter | Policy::Spread => self.full_jitter(client, outage, attempt),
        }
    }

    /// How long `client` waits beyond a Retry-After. All who were refused in the same second were told the same
    /// second to come back in; without jitter they would come back as the same herd.
    #[must_use]
    pub fn after_refusal(&self, client: ClientId, outage: u64, attempt: u32) -> Span {
        let window = match self.policy {
            Policy::Desktop | Policy::Web => Span::ZERO,
            Policy::Ios | Policy::FullJitter | Policy::Spread => self.window().min(self.cap),
        };
        window.scale(self.unit("retry-after", client, outage, attempt))
    }

    fn full_jitter(&self, client: ClientId, outage: u64, attempt: u32) -> Span {
        self.grown(attempt)
            .scale(self.unit("full-jitter", client, outage, attempt))
    }

    fn place_in_window(&self, client: ClientId, outage: u64) -> Span {
        let start = decide::unit(self.seed, "spread", "", outage);
        self.window().scale(place(client, start))
    }

    fn grown(&self, doublings: u32) -> Span {
        self.cap.min(self.base.times(1 << doublings.min(30)))
    }

    fn unit(&self, rule: &str, client: ClientId, outage: u64, attempt: u32) -> f64 {
        decide::unit(
            self.seed,
            rule,
            &client.to_string(),
            (outage << 16) | u64::from(attempt),
        )
    }
}

/// A client's place in a window that the fleet shares, from 0 to 1. Uniform, and evenly so: neighbours by ordinal are
/// far apart, and no instant gets a crowd by chance, which independent draws would give it.
#[must_use]
pub fn place(client: ClientId, start: f64) -> f64 {
    (f64::from(client.0) * GOLDEN + start).fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacing(policy: Policy) -> Pacing {
        Pacing {
            policy,
            base: Span::from_millis(250),
            cap: Span::from_secs(8),
            seed: 7,
            fleet: 200,
            capacity: Some(Rate::per_second(50.0)),
        }
    }

    fn millis(policy: Policy, attempt: u32) -> u64 {
        pacing(policy).delay(ClientId(3), 1, attempt).as_micros() / 1_000
    }

    #[test]
    fn the_policies_of_the_field_grow_as_they_do_there() {
        let all = |policy| [1, 2, 3, 6, 9].map(|attempt| millis(policy, attempt));
        assert_eq!(all(Policy::Desktop), [250, 500, 1_000, 8_000, 8_000]);
        assert_eq!(all(Policy::Web), [1_500, 3_000, 6_000, 8_000, 8_000]);
        for (attempt, base) in [(1, 250), (2, 500), (9, 8_000)] {
            let delay = millis(Policy::Ios, attempt);
            assert!((base..=base * 3 / 2).contains(&delay), "{delay}");
        }
    }

    #[test]
    fn delays_are_repeatable_and_differ_by_client_outage_and_attempt() {
        let pacing = pacing(Policy::FullJitter);
        let base = pacing.delay(ClientId(1), 1, 4);
        assert_eq!(base, pacing.delay(ClientId(1), 1, 4));
        for other in [
            pacing.delay(ClientId(2), 1, 4),
            pacing.delay(ClientId(1), 2, 4),
            pacing.delay(ClientId(1), 1, 5),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn spread_keeps_every_tenth_of_a_second_within_what_the_lane_takes() {
        let pacing = pacing(Policy::Spread);
        let mut slots = [0_u32; 60];
        for client in 0..200 {
            let delay = pacing.delay(ClientId(client), 1, 1).as_micros();
            slots[usize::try_from(delay / 100_000).unwrap()] += 1;
        }
        assert!(slots.iter().all(|count| *count <= 6), "{slots:?}");
        assert!(slots[..44].iter().all(|count| *count >= 3), "{slots:?}");
    }
}
