//! One stream as one client holds it: ordered, idempotent apply, and beside it a checker that judges what the client
//! did by the set of what was applied, not by the client's own watermark.

use std::collections::BTreeMap;

use model::anomaly::{Anomaly, Example, Findings};
use model::ids::{ClientId, Seq, StreamId};
use model::instant::Mono;
use model::intervals::IntervalSet;
use model::snapshot::Cover;

use super::ring::Ring;
use crate::content::Verdict;

/// In how many ways a lane may deliver each row: khala sends batches and frames, by design both.
pub const FRAMINGS: usize = 2;

/// Writes findings with whose they are and when.
#[derive(Debug)]
pub struct Noter<'a> {
    /// Whose.
    pub client: ClientId,
    /// When.
    pub at: Mono,
    /// The stream's place among the client's, if it is one of them.
    pub place: Option<u16>,
    /// Where to.
    pub findings: &'a mut Findings,
    /// And where they stand among what else happened.
    pub ring: &'a mut Ring,
}

impl Noter<'_> {
    /// Notes one.
    pub fn note(&mut self, anomaly: Anomaly, stream: &str, seq: Option<Seq>, detail: String) {
        self.ring.found(self.at, anomaly, self.place, seq);
        self.findings.note(
            anomaly,
            Example {
                client: Some(self.client),
                stream: (!stream.is_empty()).then(|| stream.to_owned()),
                seq,
                detail,
                at: Some(self.at),
            },
        );
    }
}

/// What a delivery did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What was applied, in order.
    pub applied: Vec<(Seq, Verdict)>,
    /// A hole in what came live: the seq awaited and the one that came. The client has to resume.
    pub gap: Option<(Seq, Seq)>,
}

/// A stream's state at a client.
#[derive(Debug)]
pub struct StreamApply {
    stream: StreamId,
    initial: Seq,
    cursor: Seq,
    /// Whether the first row after a start from nothing is taken as the oldest that there is. Lanes that tell their
    /// floor do not need it.
    anchorless: bool,
    pending: BTreeMap<Seq, Verdict>,
    /// The planted gap livelock: on a gap the watermark is moved instead of resuming.
    livelock: bool,
    checker: Checker,
    /// Indexes applied before a reset: to get them again is no delivery that was ever due.
    had: IntervalSet,
    /// Up to here a snapshot that it had before a reset stood for the events.
    covered: Seq,
}

/// What was really delivered and applied, whatever the client believes.
#[derive(Debug, Default)]
struct Checker {
    covered: Seq,
    /// What it began from, instead of nothing.
    snapshot: Option<Cover>,
    seqs: IntervalSet,
    indexes: IntervalSet,
    delivered: [IntervalSet; FRAMINGS],
    highest: [Seq; FRAMINGS],
    resumed_from: Seq,
}

impl StreamApply {
    /// A stream of which the client has everything up to `initial`.
    #[must_use]
    pub fn new(stream: StreamId, initial: Seq, tells_floor: bool, livelock: bool) -> Self {
        Self {
            stream,
            initial,
            cursor: initial,
            anchorless: initial == 0 && !tells_floor,
            pending: BTreeMap::new(),
            livelock,
            checker: Checker {
                covered: initial,
                ..Checker::default()
            },
            had: IntervalSet::default(),
            covered: 0,
        }
    }

    /// Its name.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The last seq that the client has applied without a hole before it; after a hole that no replay filled, beyond
    /// it.
    #[must_use]
    pub const fn cursor(&self) -> Seq {
        self.cursor
    }

    /// The cursor it began with, or began anew with where what lies before cannot be judged.
    #[must_use]
    pub const fn initial(&self) -> Seq {
        self.initial
    }

    /// Whether it begins, or begins anew, and takes the oldest row that comes as the oldest that there is.
    #[must_use]
    pub const fn is_anchorless(&self) -> bool {
        self.anchorless
    }

    /// Has the client begin after `head`, as if it had everything up to there: what it would find is history that it
    /// need not know.
    pub const fn begin_after(&mut self, head: Seq) {
        self.initial = head;
        self.cursor = head;
        self.checker.covered = head;
        self.anchorless = self.anchorless && head == 0;
    }

    /// Seqs and indexes applied since the start or the last reset, without those of a snapshot.
    #[must_use]
    pub const fn applied(&self) -> (&IntervalSet, &IntervalSet) {
        (&self.checker.seqs, &self.checker.indexes)
    }

    /// The snapshot that it began anew from, if the last reset was to one.
    #[must_use]
    pub const fn began_from(&self) -> Option<&Cover> {
        self.checker.snapshot.as_ref()
    }

    /// Whether an event had been applied before the last reset, or a snapshot stood for its seq.
    #[must_use]
    pub fn had(&self, seq: Seq, index: u64) -> bool {
        self.had.contains(index) || seq <= self.covered
    }

    /// Whether a row is the first delivery of its seq in any framing.
    #[must_use]
    pub fn is_new(&self, seq: Seq) -> bool {
        seq > self.cursor && !self.pending.contains_key(&seq)
    }

    /// A subscription begins at the cursor.
    pub fn subscribe(&mut self) {
        self.pending.clear();
        self.checker.highest = [0; FRAMINGS];
        self.checker.resumed_from = self.cursor;
    }

    /// Takes a delivery. Rows may come in any order; `replay` says that the lane is still replaying, so that a hole
    /// may yet be filled.
    pub fn deliver(
        &mut self,
        framing: usize,
        rows: &mut [(Seq, Verdict)],
        replay: bool,
        noter: &mut Noter<'_>,
    ) -> Outcome {
        rows.sort_by_key(|(seq, _)| *seq);
        self.checker
            .delivered(framing, rows, replay, &self.stream, noter);
        for (seq, verdict) in rows.iter() {
            if *seq > self.cursor {
                self.pending.entry(*seq).or_insert(*verdict);
            }
        }
        let mut outcome = Outcome::default();
        if self.anchorless
            && let Some(first) = self.pending.keys().next().copied()
        {
            self.anchorless = false;
            self.cursor = first - 1;
            self.checker.covered = first - 1;
        }
        self.drain(false, &mut outcome, noter);
        if let Some(next) = self.pending.keys().next().copied() {
            if self.livelock {
                self.cursor = next - 1;
                self.drain(false, &mut outcome, noter);
            } else if !replay {
                outcome.gap = Some((self.cursor.saturating_add(1), next));
            }
        }
        outcome
    }

    /// The replay is complete: what it lacks it will not bring, so what waits behind a hole is applied across it.
    pub fn replay_complete(&mut self, noter: &mut Noter<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        self.anchorless = false;
        self.drain(true, &mut outcome, noter);
        outcome
    }

    /// Begins anew from where it began: from nothing, where that is all there is to begin from. A head that lies even
    /// before that is a new beginning.
    pub fn reset(&mut self, tells_floor: bool, head: Option<Seq>) {
        self.initial = head.map_or(self.initial, |head| self.initial.min(head));
        self.cursor = self.initial;
        self.anchorless = !tells_floor;
        self.pending.clear();
        self.had.union(&self.checker.indexes);
        if let Some(cover) = &self.checker.snapshot {
            self.covered = self.covered.max(cover.watermark);
        }
        self.checker = Checker {
            covered: self.initial,
            ..Checker::default()
        };
    }

    /// Begins anew from a snapshot.
    pub fn snapshot(&mut self, cover: Cover) {
        self.reset(true, None);
        self.cursor = cover.watermark;
        self.checker.covered = cover.watermark;
        self.checker.resumed_from = cover.watermark;
        self.checker.snapshot = Some(cover);
    }

    /// The planted double apply: the client forgets that it has applied the last event, as one does whose checkpoint
    /// was overwritten by an older one. It will ask for that event again, and apply it again.
    pub const fn forget_last(&mut self) {
        self.cursor = self.cursor.saturating_sub(1);
    }

    fn drain(&mut self, across_holes: bool, outcome: &mut Outcome, noter: &mut Noter<'_>) {
        while let Some(first) = self.pending.first_entry() {
            let seq = *first.key();
            if seq != self.cursor.saturating_add(1) && !across_holes {
                return;
            }
            let verdict = first.remove();
            self.cursor = seq;
            self.checker.commit(seq, verdict, &self.stream, noter);
            outcome.applied.push((seq, verdict));
        }
    }
}

impl Checker {
    fn delivered(
        &mut self,
        framing: usize,
        rows: &[(Seq, Verdict)],
        replay: bool,
        stream: &str,
        noter: &mut Noter<'_>,
    ) {
        let highest = self.highest[framing];
        for (seq, _) in rows {
            if !self.delivered[framing].insert(*seq) {
                let detail = format!("delivered again, {}", mode(replay));
                noter.note(Anomaly::DuplicateDelivery, stream, Some(*seq), detail);
            } else if *seq < highest {
                let detail = format!("came after {highest}, {}", mode(replay));
                noter.note(Anomaly::Reorder, stream, Some(*seq), detail);
            }
            if replay && *seq <= self.resumed_from {
                let detail = format!("replayed to a cursor of {}", self.resumed_from);
                noter.note(Anomaly::OverReplay, stream, Some(*seq), detail);
            }
            self.highest[framing] = self.highest[framing].max(*seq);
        }
    }

    fn commit(&mut self, seq: Seq, verdict: Verdict, stream: &str, noter: &mut Noter<'_>) {
        let before = self.seqs.max().unwrap_or(0).max(self.covered);
        if !self.seqs.insert(seq) {
            let detail = "applied a second time".to_owned();
            noter.note(Anomaly::DuplicateApply, stream, Some(seq), detail);
            return;
        }
        if seq > before.saturating_add(1) {
            let detail = format!(
                "applied after {before}; {} never came",
                span(before + 1, seq - 1)
            );
            noter.note(Anomaly::Gap, stream, Some(seq), detail);
        }
        if let Verdict::Ours { index, .. } = verdict {
            self.indexes.insert(index);
        }
    }
}

const fn mode(replay: bool) -> &'static str {
    if replay { "by a replay" } else { "live" }
}

fn span(first: Seq, last: Seq) -> String {
    if first == last {
        format!("seq {first}")
    } else {
        format!("seqs {first} to {last}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::snapshot::Snapshot;
    use proptest::prelude::*;

    const STREAM: &str = "runtime.run.1.events";

    fn stream() -> StreamApply {
        StreamApply::new(STREAM.to_owned(), 0, true, false)
    }

    fn row(seq: Seq) -> (Seq, Verdict) {
        let verdict = Verdict::Ours {
            index: seq - 1,
            intended: Mono(seq),
        };
        (seq, verdict)
    }

    #[derive(Default)]
    struct Found {
        findings: Findings,
        ring: Ring,
    }

    impl Found {
        fn count(&self, anomaly: Anomaly) -> u64 {
            self.findings.count(anomaly)
        }
    }

    fn deliver(
        state: &mut StreamApply,
        seqs: &[Seq],
        replay: bool,
        findings: &mut Found,
    ) -> Outcome {
        let mut rows: Vec<_> = seqs.iter().map(|seq| row(*seq)).collect();
        state.deliver(0, &mut rows, replay, &mut noter(findings))
    }

    fn noter(found: &mut Found) -> Noter<'_> {
        Noter {
            client: ClientId(1),
            at: Mono(9),
            place: Some(0),
            findings: &mut found.findings,
            ring: &mut found.ring,
        }
    }

    fn kinds(found: &Found) -> Vec<(Anomaly, u64)> {
        found
            .findings
            .iter()
            .map(|(kind, tally)| (kind, tally.count))
            .collect()
    }

    proptest! {
        #[test]
        fn chunking_duplication_and_order_inside_batches_do_not_change_what_is_applied(
            total in 1_u64..60,
            cuts in prop::collection::vec(1_usize..8, 1..60),
            repeats in prop::collection::vec(any::<bool>(), 60),
            swaps in prop::collection::vec((0_usize..8, 0_usize..8), 0..40),
        ) {
            let mut state = stream();
            let mut findings = Found::default();
            let mut repeated = 0;
            let mut next = 1;
            for (batch, size) in cuts.iter().cycle().enumerate() {
                if next > total { break; }
                let last = total.min(next + *size as u64 - 1);
                let mut seqs: Vec<Seq> = (next..=last).collect();
                for (a, b) in &swaps {
                    let length = seqs.len();
                    seqs.swap(a % length, b % length);
                }
                deliver(&mut state, &seqs, batch % 2 == 0, &mut findings);
                if repeats[batch % repeats.len()] {
                    repeated += seqs.len() as u64;
                    let again = deliver(&mut state, &seqs, false, &mut findings);
                    prop_assert!(again.applied.is_empty());
                }
                next = last.saturating_add(1);
            }
            prop_assert_eq!(state.cursor(), total);
            prop_assert_eq!(state.applied().0, &IntervalSet::range(1, total));
            prop_assert_eq!(state.applied().1, &IntervalSet::range(0, total - 1));
            prop_assert_eq!(findings.count(Anomaly::DuplicateDelivery), repeated);
            prop_assert!(kinds(&findings).iter().all(|(kind, _)| *kind == Anomaly::DuplicateDelivery));
        }

        #[test]
        fn a_hole_is_never_applied_across_while_a_resume_may_fill_it(hole in 1_u64..20, beyond in 1_u64..10) {
            let mut state = stream();
            let mut findings = Found::default();
            for seq in 1..hole {
                deliver(&mut state, &[seq], false, &mut findings);
            }
            let outcome = deliver(&mut state, &[hole + beyond], false, &mut findings);
            prop_assert_eq!(outcome.gap, Some((hole, hole + beyond)));
            prop_assert_eq!(state.cursor(), hole - 1);
            prop_assert!(kinds(&findings).is_empty());
            state.subscribe();
            let replay: Vec<Seq> = (hole..=hole + beyond).collect();
            deliver(&mut state, &replay, true, &mut findings);
            state.replay_complete(&mut noter(&mut findings));
            prop_assert_eq!(state.cursor(), hole + beyond);
            prop_assert_eq!(findings.count(Anomaly::Gap), 0);
        }
    }

    #[test]
    fn both_framings_deliver_each_row_once() {
        let mut state = stream();
        let mut findings = Found::default();
        for framing in [0, 1] {
            state.deliver(
                framing,
                &mut [row(1), row(2)],
                false,
                &mut noter(&mut findings),
            );
        }
        assert_eq!(kinds(&findings), []);
        state.deliver(1, &mut [row(2)], false, &mut noter(&mut findings));
        assert_eq!(kinds(&findings), [(Anomaly::DuplicateDelivery, 1)]);
    }

    #[test]
    fn a_complete_replay_that_lacks_a_seq_is_a_gap() {
        let mut state = stream();
        let mut findings = Found::default();
        deliver(&mut state, &[1, 2, 4], true, &mut findings);
        assert_eq!((state.cursor(), kinds(&findings)), (2, vec![]));
        let outcome = state.replay_complete(&mut noter(&mut findings));
        assert_eq!(outcome.applied, [row(4)]);
        assert_eq!(kinds(&findings), [(Anomaly::Gap, 1)]);
    }

    #[test]
    fn the_planted_livelock_applies_across_the_hole_and_is_seen_by_the_set() {
        let mut state = StreamApply::new(STREAM.to_owned(), 0, true, true);
        let mut findings = Found::default();
        deliver(&mut state, &[1, 3], false, &mut findings);
        assert_eq!(state.cursor(), 3);
        assert_eq!(kinds(&findings), [(Anomaly::Gap, 1)]);
        assert!(!state.applied().0.contains(2));
    }

    #[test]
    fn a_reorder_an_over_replay_and_a_second_apply_are_named() {
        let mut state = stream();
        let mut findings = Found::default();
        deliver(&mut state, &[1, 2, 5], true, &mut findings);
        deliver(&mut state, &[3], true, &mut findings);
        assert_eq!(kinds(&findings), [(Anomaly::Reorder, 1)]);

        deliver(&mut state, &[4], true, &mut findings);
        state.subscribe();
        let mut fresh = Found::default();
        deliver(&mut state, &[5, 6], true, &mut fresh);
        assert_eq!(
            kinds(&fresh),
            [(Anomaly::DuplicateDelivery, 1), (Anomaly::OverReplay, 1)]
        );
        let mut fresh = Found::default();
        state.forget_last();
        state.subscribe();
        deliver(&mut state, &[6], true, &mut fresh);
        assert_eq!(
            kinds(&fresh),
            [
                (Anomaly::DuplicateDelivery, 1),
                (Anomaly::DuplicateApply, 1)
            ]
        );
    }

    #[test]
    fn a_start_from_nothing_takes_the_oldest_row_as_its_floor() {
        let mut state = StreamApply::new(STREAM.to_owned(), 0, false, false);
        let mut findings = Found::default();
        deliver(&mut state, &[12, 11], true, &mut findings);
        assert_eq!((state.cursor(), kinds(&findings)), (12, vec![]));
        deliver(&mut state, &[14], false, &mut findings);
        assert_eq!(state.cursor(), 12, "only the first row is an anchor");
    }

    #[test]
    fn a_client_that_begins_after_a_head_misses_nothing_before_it_and_everything_behind_it() {
        for tells_floor in [true, false] {
            let mut state = StreamApply::new(STREAM.to_owned(), 0, tells_floor, false);
            let mut findings = Found::default();
            state.begin_after(500);
            state.subscribe();
            deliver(&mut state, &[502], true, &mut findings);
            assert_eq!(state.cursor(), 500, "501 may yet come");
            state.replay_complete(&mut noter(&mut findings));
            assert_eq!((state.cursor(), state.initial()), (502, 500));
            assert_eq!(kinds(&findings), [(Anomaly::Gap, 1)]);
        }
    }

    #[test]
    fn a_reset_goes_back_to_the_beginning_and_no_further_unless_the_head_did() {
        let mut state = StreamApply::new(STREAM.to_owned(), 0, false, false);
        let mut findings = Found::default();
        state.begin_after(500);
        deliver(&mut state, &[501, 502], true, &mut findings);
        state.reset(false, Some(501));
        assert_eq!((state.cursor(), state.initial()), (500, 500));
        state.reset(false, Some(490));
        assert_eq!((state.cursor(), state.initial()), (490, 490));
        assert!(state.is_anchorless());
        deliver(&mut state, &[491], true, &mut findings);
        assert_eq!(kinds(&findings), []);
    }

    #[test]
    fn a_reset_starts_anew_without_duplicates() {
        let mut state = stream();
        let mut findings = Found::default();
        deliver(&mut state, &[1, 2, 3], false, &mut findings);
        state.reset(true, None);
        deliver(&mut state, &[1, 2], true, &mut findings);
        assert_eq!(kinds(&findings), []);
        let cover = Cover {
            watermark: 10,
            snapshot: Some(Snapshot::default()),
        };
        state.snapshot(cover.clone());
        deliver(&mut state, &[11], false, &mut findings);
        assert_eq!(kinds(&findings), []);
        assert_eq!(state.began_from(), Some(&cover));
        assert_eq!(state.applied().1, &IntervalSet::range(10, 10));
        state.reset(true, None);
        assert_eq!(state.began_from(), None);
        assert!(state.had(7, 6) && state.had(11, 10) && !state.had(12, 11));
    }
}
