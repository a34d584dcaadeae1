//! The last moments of one client, in bounded memory.
//!
//! A ring grows as it fills, to [`MOMENTS_KEPT`] moments of 32 bytes: 8 KiB. A reason has its text beside that, of
//! 80 bytes at most. Rows that continue a run make it longer instead of adding to it, so that the ring of a client that
//! is well hardly grows at all.

use std::collections::VecDeque;

use model::anomaly::Anomaly;
use model::ids::Seq;
use model::instant::Mono;
use model::moment::{MOMENTS_KEPT, Moment, What};

/// So much of a reason is kept, in bytes.
const REASON_KEPT: usize = 80;

/// A client's last moments.
#[derive(Debug, Default)]
pub struct Ring {
    moments: VecDeque<Moment>,
    forgotten: u64,
}

impl Ring {
    /// Something happened.
    pub fn note(&mut self, at: Mono, what: What) {
        if self.moments.len() == MOMENTS_KEPT {
            self.moments.pop_front();
            self.forgotten += 1;
        }
        self.moments.push_back(Moment { at, what });
    }

    /// Rows of one stream arrived, in ascending order. They lengthen the runs that they continue, unless something
    /// other than rows happened since.
    pub fn rows(
        &mut self,
        at: Mono,
        stream: u16,
        framing: u8,
        replay: bool,
        seqs: impl IntoIterator<Item = Seq>,
    ) {
        for seq in seqs {
            if !self.lengthen(at, (stream, framing, replay), seq) {
                let what = What::Rows {
                    stream,
                    framing,
                    replay,
                    first: seq,
                    count: 1,
                    lasted_us: 0,
                };
                self.note(at, what);
            }
        }
    }

    /// Lengthens the newest run of the same kind. Streams take turns, and so may framings: the newest run is behind
    /// those of others.
    fn lengthen(&mut self, at: Mono, kind: (u16, u8, bool), seq: Seq) -> bool {
        for moment in self.moments.iter_mut().rev() {
            let What::Rows {
                stream,
                framing,
                replay,
                first,
                count,
                lasted_us,
            } = &mut moment.what
            else {
                return false;
            };
            if (*stream, *framing, *replay) == kind {
                let continues = first.checked_add(u64::from(*count)) == Some(seq);
                if continues && *count < u32::MAX {
                    *count += 1;
                    *lasted_us = lasted(moment.at, at);
                }
                return continues;
            }
        }
        false
    }

    /// Something was found. The same in the same stream again is counted.
    pub fn found(&mut self, at: Mono, anomaly: Anomaly, stream: Option<u16>, seq: Option<Seq>) {
        if let Some(Moment {
            at: began,
            what:
                What::Found {
                    anomaly: last,
                    stream: place,
                    times,
                    lasted_us,
                    ..
                },
        }) = self.moments.back_mut()
            && (*last, *place) == (anomaly, stream)
        {
            *times = times.saturating_add(1);
            *lasted_us = lasted(*began, at);
            return;
        }
        let what = What::Found {
            anomaly,
            stream,
            seq: seq.unwrap_or(0),
            times: 1,
            lasted_us: 0,
        };
        self.note(at, what);
    }

    /// What is kept, oldest first, and how many earlier moments are not.
    #[must_use]
    pub fn read(&self) -> (Vec<Moment>, u64) {
        (self.moments.iter().cloned().collect(), self.forgotten)
    }
}

/// A reason as it is kept.
#[must_use]
pub fn reason(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(REASON_KEPT)].into()
}

/// Up to 71 minutes; longer is as long as that.
fn lasted(from: Mono, to: Mono) -> u32 {
    u32::try_from(to.since(from).as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs(ring: &Ring) -> Vec<(u16, Seq, u32, u32)> {
        let (moments, _) = ring.read();
        let run = |moment: Moment| match moment.what {
            What::Rows {
                stream,
                first,
                count,
                lasted_us,
                ..
            } => Some((stream, first, count, lasted_us)),
            _ => None,
        };
        moments.into_iter().filter_map(run).collect()
    }

    #[test]
    fn streams_that_take_turns_are_a_run_each_until_something_else_happens() {
        let mut ring = Ring::default();
        for seq in 1..=1_000 {
            for stream in 0..3 {
                ring.rows(Mono(seq * 10), stream, 0, false, [seq]);
            }
        }
        assert_eq!(
            runs(&ring),
            [
                (0, 1, 1_000, 9_990),
                (1, 1, 1_000, 9_990),
                (2, 1, 1_000, 9_990)
            ]
        );
        ring.note(Mono(20_000), What::Upgraded);
        ring.rows(Mono(20_001), 1, 0, false, [1_001, 1_002]);
        assert_eq!(runs(&ring)[3..], [(1, 1_001, 2, 0)]);
    }

    #[test]
    fn a_hole_a_repetition_another_framing_and_a_replay_begin_runs_of_their_own() {
        let mut ring = Ring::default();
        ring.rows(Mono(1), 0, 0, false, [5, 6, 8]);
        ring.rows(Mono(2), 0, 0, false, [8]);
        ring.rows(Mono(3), 0, 1, false, [9]);
        ring.rows(Mono(4), 0, 0, true, [9, 10]);
        let firsts: Vec<_> = runs(&ring)
            .into_iter()
            .map(|(_, first, count, _)| (first, count))
            .collect();
        assert_eq!(firsts, [(5, 2), (8, 1), (8, 1), (9, 1), (9, 2)]);
    }

    #[test]
    fn the_same_finding_again_is_counted() {
        let mut ring = Ring::default();
        for seq in 4..8 {
            ring.found(Mono(seq), Anomaly::DuplicateDelivery, Some(0), Some(seq));
        }
        ring.found(Mono(9), Anomaly::Gap, Some(0), Some(9));
        let (moments, _) = ring.read();
        let found = |anomaly, seq, times, lasted_us| What::Found {
            anomaly,
            stream: Some(0),
            seq,
            times,
            lasted_us,
        };
        let whats: Vec<_> = moments.into_iter().map(|moment| moment.what).collect();
        assert_eq!(
            whats,
            [
                found(Anomaly::DuplicateDelivery, 4, 4, 3),
                found(Anomaly::Gap, 9, 1, 0)
            ]
        );
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let long = "ü".repeat(100);
        assert_eq!(&*reason(&long), "ü".repeat(40));
        assert_eq!(&*reason("FIN"), "FIN");
    }

    proptest! {
        #[test]
        fn the_last_moments_are_kept_and_no_row_is_miscounted(
            rows in prop::collection::vec((0_u16..3, 1_u64..40, any::<bool>()), 0..900),
        ) {
            let mut ring = Ring::default();
            let mut noted = 0_u64;
            for (at, (stream, seq, other)) in (0..).zip(&rows) {
                if *other {
                    ring.note(Mono(at), What::Upgraded);
                    noted += 1;
                }
                ring.rows(Mono(at), *stream, 0, false, [*seq]);
                noted += 1;
            }
            let (moments, forgotten) = ring.read();
            prop_assert!(moments.len() <= MOMENTS_KEPT);
            prop_assert!(moments.is_sorted_by_key(|moment| moment.at));
            if forgotten == 0 {
                let held: u64 = moments.iter().map(|moment| match &moment.what {
                    What::Rows { count, .. } => u64::from(*count),
                    _ => 1,
                }).sum();
                prop_assert_eq!(held, noted);
            } else {
                prop_assert_eq!(moments.len(), MOMENTS_KEPT);
            }
        }
    }
}
