//! The raw instants of one client's outages, and what they come to once the episode and the ledger's marks are known.
//! The words are those of docs/measurement.md.

use std::collections::VecDeque;

use model::criteria::Phase;
use model::decide;
use model::fault::Fault;
use model::ids::{ClientId, Seq};
use model::instant::Mono;
use model::quantity::Span;
use model::shard::Episode;

use crate::marks::Marks;

/// How much progress is remembered while no fault is known of: the news of a fault may come so much later than the
/// fault.
pub const REMEMBERED: Span = Span::from_secs(15);

/// From the loss of a connection (or the start) until all is well again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// First local evidence.
    pub lost: Mono,
    /// What it was.
    pub why: String,
    /// The client gave up the connection itself, for a new token; or it had none yet.
    pub planned: bool,
    /// Upgraded and authenticated.
    pub upgraded: Option<Mono>,
    /// Subscribe was sent.
    pub subscribed: Option<Mono>,
    /// The first replayed row, or the reply.
    pub resumed: Option<Mono>,
    /// Caught up, once that is certain.
    pub whole: Option<Mono>,
    /// Rows replayed.
    pub replayed: u64,
    /// Of those, rows that were missing.
    pub missed: u64,
}

/// What one client lived through.
#[derive(Debug, Default)]
pub struct Journey {
    outages: Vec<Outage>,
    /// Attempts that failed while the client was down.
    failures: Vec<Mono>,
    /// All connection attempts.
    attempts: Vec<Mono>,
    /// Those that ended before the client was live: when they ended.
    wasted: Vec<Mono>,
    /// By stream: cursor from an instant on; from the last subscribe or reset on.
    progress: Vec<VecDeque<(Mono, Seq)>>,
    /// The common expiry of a planted token that passed while the client still used that token.
    expired: Option<Mono>,
    /// When it first subscribed.
    member_since: Option<Mono>,
    /// A client whose connection survived: when it had everything acknowledged up to the heal.
    survived: Option<Mono>,
}

/// An affected client's way back, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// The fault.
    pub t0: Mono,
    /// The heal.
    pub th: Option<Mono>,
    /// First local evidence; `None` where the connection survived.
    pub detected: Option<Mono>,
    /// See [`Outage::upgraded`].
    pub upgraded: Option<Mono>,
    /// See [`Outage::subscribed`].
    pub subscribed: Option<Mono>,
    /// See [`Outage::resumed`].
    pub resumed: Option<Mono>,
    /// Caught up on every stream.
    pub whole: Option<Mono>,
}

impl Way {
    /// The phases that apply to this client, each with its length once it is complete.
    #[must_use]
    pub fn phases(&self) -> Vec<(Phase, Option<Span>)> {
        let mut phases = Vec::with_capacity(Phase::ALL.len());
        let heal = self.th;
        if let Some(detected) = self.detected {
            let after = heal.map(|th| th.max(detected));
            phases.push((Phase::Detect, Some(detected.since(self.t0))));
            phases.push((Phase::Reconnect, between(after, self.upgraded)));
            phases.push((Phase::Resume, between(self.subscribed, self.resumed)));
            phases.push((Phase::CatchUp, between(self.resumed, self.whole)));
        }
        phases.push((Phase::Recovery, between(heal, self.whole)));
        phases.push((Phase::Outage, between(Some(self.t0), self.whole)));
        phases
    }
}

fn between(from: Option<Mono>, to: Option<Mono>) -> Option<Span> {
    Some(to?.since(from?))
}

impl Journey {
    /// A client of so many streams that is about to connect for the first time.
    #[must_use]
    pub fn begin(streams: usize, at: Mono) -> Self {
        let mut this = Self {
            progress: vec![VecDeque::new(); streams],
            ..Self::default()
        };
        this.lost(at, "not yet connected".to_owned(), true);
        this
    }

    /// The connection is gone.
    pub fn lost(&mut self, at: Mono, why: String, planned: bool) {
        self.outages.push(Outage {
            lost: at,
            why,
            planned,
            upgraded: None,
            subscribed: None,
            resumed: None,
            whole: None,
            replayed: 0,
            missed: 0,
        });
    }

    /// Whether an event meant for that instant was due to this client: what was published before it first subscribed
    /// is history to it, which no promise of timely delivery covers.
    #[must_use]
    pub fn was_due(&self, intended: Mono) -> bool {
        self.member_since.is_some_and(|since| intended >= since)
    }

    /// A connection is attempted.
    pub fn attempt(&mut self, at: Mono) {
        self.attempts.push(at);
    }

    /// The attempt failed, or the connection was lost before the client was live.
    pub fn failed(&mut self, at: Mono, why: &str) {
        self.wasted.push(at);
        self.without(at, why);
    }

    /// The client needs a token to connect, and was not given one.
    pub fn without_token(&mut self, at: Mono, why: &str) {
        self.without(at, why);
    }

    fn without(&mut self, at: Mono, why: &str) {
        self.failures.push(at);
        let first = self.outages.len() == 1;
        if let Some(outage) = self.outages.last_mut() {
            why.clone_into(&mut outage.why);
            outage.upgraded = None;
            outage.subscribed = None;
            outage.resumed = None;
            if !first && outage.planned {
                // A planned reconnect that does not succeed at once is an outage like any other, from here on.
                outage.planned = false;
                outage.lost = at;
            }
        }
    }

    /// The upgrade was accepted.
    pub fn upgraded(&mut self, at: Mono) {
        if let Some(outage) = self.outages.last_mut() {
            outage.upgraded = Some(at);
        }
    }

    /// Subscribe was sent, with these cursors.
    pub fn subscribed(&mut self, at: Mono, cursors: impl Iterator<Item = Seq>) {
        self.member_since.get_or_insert(at);
        if let Some(outage) = self.outages.last_mut() {
            outage.subscribed = Some(at);
            outage.resumed = None;
        }
        for (log, cursor) in self.progress.iter_mut().zip(cursors) {
            log.clear();
            log.push_back((at, cursor));
        }
    }

    /// The first replayed row came, or the reply.
    pub fn resumed(&mut self, at: Mono) {
        if let Some(outage) = self.outages.last_mut() {
            outage.resumed.get_or_insert(at);
        }
    }

    /// Rows were replayed, of which some had been missing.
    pub fn replayed(&mut self, rows: u64, missed: u64) {
        if let Some(outage) = self.outages.last_mut() {
            outage.replayed += rows;
            outage.missed += missed;
        }
    }

    /// A stream's cursor moved.
    pub fn progressed(&mut self, at: Mono, stream: usize, cursor: Seq) {
        let log = &mut self.progress[stream];
        if log.back().is_some_and(|(_, before)| *before > cursor) {
            log.clear();
        }
        log.push_back((at, cursor));
    }

    /// Forgets progress of long ago. To be called while no fault is known of.
    pub fn forget(&mut self, now: Mono) {
        for log in &mut self.progress {
            while log.len() > 1 && now.since(log[1].0) > REMEMBERED {
                log.pop_front();
            }
        }
    }

    /// The planted expiry has passed while the client still used the token.
    pub fn expired(&mut self, exp: Mono) {
        self.expired = Some(exp);
    }

    /// Connection attempts since an instant.
    #[must_use]
    pub fn attempts_within(&self, from: Mono, until: Option<Mono>) -> u32 {
        let counts = |at: &&Mono| **at >= from && until.is_none_or(|until| **at <= until);
        u32::try_from(self.attempts.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }

    /// Instants of all attempts.
    #[must_use]
    pub fn attempts(&self) -> &[Mono] {
        &self.attempts
    }

    /// How many attempts ended, since an instant, before the client was live.
    #[must_use]
    pub fn wasted_since(&self, from: Mono) -> u64 {
        self.wasted.iter().filter(|at| **at >= from).count() as u64
    }

    /// How many planned reconnects there were.
    #[must_use]
    pub fn planned(&self) -> u64 {
        self.outages
            .iter()
            .skip(1)
            .filter(|outage| outage.planned)
            .count() as u64
    }

    /// Rows replayed from an instant on, and those that had been missing.
    #[must_use]
    pub fn replayed_since(&self, from: Mono) -> (u64, u64) {
        self.outages
            .iter()
            .filter(|outage| !outage.planned && outage.subscribed.is_some_and(|at| at >= from))
            .fold((0, 0), |sum, outage| {
                (sum.0 + outage.replayed, sum.1 + outage.missed)
            })
    }

    /// Why the client was last without a connection.
    #[must_use]
    pub fn last_reason(&self) -> &str {
        self.outages.last().map_or("", |outage| &outage.why)
    }

    /// The client's way through the episode; `None` when it is not affected (so far). `streams` are its streams, in
    /// the order of the progress.
    pub fn way<'a>(
        &mut self,
        client: ClientId,
        seed: u64,
        episode: &Episode,
        marks: &Marks,
        streams: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<Way> {
        // An expiry is each client's own fault: it happens when that client's token expires, and heals at once.
        let (mut t0, mut th) = match self.expired.filter(|exp| *exp >= episode.t0) {
            Some(exp) => (exp, Some(exp)),
            None => (episode.t0, episode.th),
        };
        let evidence = self.evidence(t0.min(self.expired.unwrap_or(t0)));
        let Some((detected, first)) = evidence else {
            return match self.expired {
                Some(exp) if exp >= episode.t0 => {
                    Some(self.way_by_planned_reconnect(exp, marks, streams))
                }
                _ if reached(client, seed, episode) => {
                    Some(self.way_of_survivor(t0, th, marks, streams))
                }
                _ => None,
            };
        };
        let only_expiries = episode
            .faults
            .iter()
            .all(|fault| matches!(fault.fault, Fault::TokenExpiry(_)));
        if self.expired.is_none() && only_expiries {
            // Lost in the storm of the others' expiry: the fault reached it when it noticed.
            (t0, th) = (detected, Some(detected));
        }
        let last = self
            .outages
            .iter()
            .rposition(|outage| !outage.planned)
            .map_or(first, |last| last.max(first));
        // A new token may have come before the client was whole: then it is the newest connection that has to be.
        let last = match self.outages[last].whole {
            Some(_) => last,
            None => self.outages.len() - 1,
        };
        self.settle(last, marks, streams);
        let outage = &self.outages[last];
        Some(Way {
            t0,
            th,
            detected: Some(detected),
            upgraded: outage.upgraded,
            subscribed: outage.subscribed,
            resumed: outage.resumed,
            whole: outage.whole,
        })
    }

    /// The first local evidence from an instant on: a connection lost, or an attempt that failed in an outage that
    /// was open then.
    fn evidence(&self, from: Mono) -> Option<(Mono, usize)> {
        let lost = self
            .outages
            .iter()
            .position(|outage| !outage.planned && outage.lost >= from)
            .map(|at| (self.outages[at].lost, at));
        let failed = self.failures.iter().find(|at| **at >= from).map(|failed| {
            let open = self
                .outages
                .partition_point(|outage| outage.lost <= *failed);
            (*failed, open.saturating_sub(1))
        });
        [lost, failed].into_iter().flatten().min()
    }

    /// A token that expired under a connection that lives on: whole once a connection with a newer token is.
    fn way_by_planned_reconnect<'a>(
        &mut self,
        exp: Mono,
        marks: &Marks,
        streams: impl Iterator<Item = &'a str> + Clone,
    ) -> Way {
        let way = Way {
            t0: exp,
            th: Some(exp),
            ..Way::default()
        };
        let Some(next) = self.outages.iter().position(|outage| outage.lost >= exp) else {
            return way;
        };
        self.settle(next, marks, streams);
        let outage = &self.outages[next];
        Way {
            detected: Some(outage.lost),
            upgraded: outage.upgraded,
            subscribed: outage.subscribed,
            resumed: outage.resumed,
            whole: outage.whole,
            ..way
        }
    }

    fn way_of_survivor<'a>(
        &mut self,
        t0: Mono,
        th: Option<Mono>,
        marks: &Marks,
        streams: impl Iterator<Item = &'a str> + Clone,
    ) -> Way {
        if let Some(heal) = th
            && self.survived.is_none()
        {
            self.survived = self
                .reached_marks(heal, marks, streams)
                .map(|at| at.max(heal));
        }
        Way {
            t0,
            th,
            whole: self.survived,
            ..Way::default()
        }
    }

    /// Fixes the instant at which an outage was over, as soon as it is certain.
    fn settle<'a>(
        &mut self,
        at: usize,
        marks: &Marks,
        streams: impl Iterator<Item = &'a str> + Clone,
    ) {
        let outage = &self.outages[at];
        let (Some(subscribed), Some(resumed), None) =
            (outage.subscribed, outage.resumed, outage.whole)
        else {
            return;
        };
        // The progress is that of the last subscription only.
        let current = at + 1 == self.outages.len();
        if let Some(reached) = self.reached_marks(subscribed, marks, streams)
            && current
        {
            self.outages[at].whole = Some(reached.max(resumed));
        }
    }

    /// When every stream had reached what was acknowledged at `owed`.
    fn reached_marks<'a>(
        &self,
        owed: Mono,
        marks: &Marks,
        streams: impl Iterator<Item = &'a str>,
    ) -> Option<Mono> {
        if marks.complete_until() < owed {
            return None;
        }
        let mut whole = Mono(0);
        for (log, stream) in self.progress.iter().zip(streams) {
            let target = marks.highest_at(stream, owed);
            let reached = match log.iter().find(|(_, cursor)| *cursor >= target) {
                Some((at, _)) => *at,
                None if target == 0 => owed,
                None => return None,
            };
            whole = whole.max(reached);
        }
        Some(whole)
    }
}

/// Whether a fault of the episode reaches this client although its connection may survive it.
fn reached(client: ClientId, seed: u64, episode: &Episode) -> bool {
    episode.faults.iter().any(|fault| {
        matches!(
            fault.fault,
            Fault::Hold(_)
                | Fault::Pause(_)
                | Fault::Latency(_)
                | Fault::Bandwidth(_)
                | Fault::Toxic(_)
        ) && decide::selected(seed, &fault.id, client, fault.share)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fault::{Hold, Kill, TokenExpiry};
    use model::quantity::Share;
    use model::shard::{EpisodeFault, Mark, Tick};

    const STREAM: &str = "s";
    const ME: ClientId = ClientId(1);

    fn ms(millis: u64) -> Mono {
        Mono(millis * 1_000)
    }

    fn marks(acks: &[(u64, Seq)], complete: u64) -> Marks {
        let mut marks = Marks::default();
        let news = acks
            .iter()
            .map(|(at, seq)| Mark {
                acked: ms(*at),
                seq: *seq,
            })
            .collect();
        marks.take(Tick {
            acknowledged: [(STREAM.to_owned(), news)].into(),
            complete_until: ms(complete),
        });
        marks
    }

    fn episode(fault: Fault, t0: u64, th: Option<u64>) -> Episode {
        let id = "f1".to_owned();
        let share = Share::ALL;
        Episode {
            t0: ms(t0),
            th: th.map(ms),
            faults: vec![EpisodeFault { id, fault, share }],
        }
    }

    fn live_at_zero() -> Journey {
        let mut journey = Journey::begin(1, ms(0));
        connect(&mut journey, 1, 0);
        journey.resumed(ms(4));
        journey
    }

    fn connect(journey: &mut Journey, at: u64, cursor: Seq) {
        journey.attempt(ms(at));
        journey.upgraded(ms(at + 1));
        journey.subscribed(ms(at + 2), [cursor].into_iter());
    }

    fn way(journey: &mut Journey, episode: &Episode, marks: &Marks) -> Option<Way> {
        journey.way(ME, 7, episode, marks, [STREAM].into_iter())
    }

    fn lengths(way: &Way) -> Vec<(Phase, Option<u64>)> {
        way.phases()
            .into_iter()
            .map(|(phase, span)| (phase, span.map(|span| span.as_micros() / 1_000)))
            .collect()
    }

    #[test]
    fn a_restart_is_measured_from_its_brackets_and_the_ledger() {
        let mut journey = live_at_zero();
        journey.progressed(ms(900), 0, 10);
        journey.lost(ms(1_005), "FIN".to_owned(), false);
        journey.attempt(ms(1_500));
        journey.failed(ms(1_501), "connection refused");
        connect(&mut journey, 3_100, 10);
        journey.resumed(ms(3_110));
        journey.progressed(ms(3_110), 0, 12);
        journey.progressed(ms(3_120), 0, 15);
        let episode = episode(Fault::Kill(Kill {}), 1_000, Some(3_000));

        // 14 had been acknowledged when subscribe was sent (3102); 15 only later.
        let early = marks(&[(900, 10), (3_050, 14)], 3_100);
        let unsure = way(&mut journey, &episode, &early).unwrap();
        assert_eq!(unsure.whole, None, "the marks are not yet complete");
        let all = marks(&[(900, 10), (3_050, 14), (3_115, 15)], 3_200);
        let way = way(&mut journey, &episode, &all).unwrap();
        assert_eq!(
            lengths(&way),
            [
                (Phase::Detect, Some(5)),
                (Phase::Reconnect, Some(101)),
                (Phase::Resume, Some(8)),
                (Phase::CatchUp, Some(10)),
                (Phase::Recovery, Some(120)),
                (Phase::Outage, Some(2_120)),
            ]
        );
        assert_eq!(journey.attempts_within(ms(1_000), None), 2);
    }

    #[test]
    fn a_second_loss_lets_the_clocks_run_on_and_the_first_detection_stands() {
        let mut journey = live_at_zero();
        journey.lost(ms(1_005), "FIN".to_owned(), false);
        connect(&mut journey, 1_100, 0);
        journey.resumed(ms(1_104));
        journey.lost(ms(1_200), "503".to_owned(), false);
        let all = marks(&[(900, 10)], 9_000);
        let episode = episode(Fault::Kill(Kill {}), 1_000, Some(1_050));
        let open = way(&mut journey, &episode, &all).unwrap();
        assert_eq!((open.detected, open.whole), (Some(ms(1_005)), None));
        connect(&mut journey, 2_000, 0);
        journey.resumed(ms(2_004));
        journey.progressed(ms(2_010), 0, 10);
        let closed = way(&mut journey, &episode, &all).unwrap();
        assert_eq!(
            (closed.detected, closed.whole),
            (Some(ms(1_005)), Some(ms(2_010)))
        );
    }

    #[test]
    fn a_connection_that_survives_is_whole_with_what_was_acknowledged_at_the_heal() {
        let mut journey = live_at_zero();
        journey.progressed(ms(990), 0, 4);
        journey.progressed(ms(1_520), 0, 7);
        let all = marks(&[(990, 4), (1_400, 7), (1_510, 8)], 2_000);
        let hold = episode(Fault::Hold(Hold {}), 1_000, Some(1_500));
        let way_back = way(&mut journey, &hold, &all).unwrap();
        assert_eq!(
            lengths(&way_back),
            [(Phase::Recovery, Some(20)), (Phase::Outage, Some(520))]
        );
        let none = Episode {
            faults: vec![EpisodeFault {
                share: Share::ratio(0.0),
                ..hold.faults[0].clone()
            }],
            ..hold
        };
        assert_eq!(way(&mut live_at_zero(), &none, &all), None);
    }

    #[test]
    fn an_expiry_counts_from_the_clients_own_and_a_refresh_ahead_is_no_outage() {
        let settings = TokenExpiry {
            after: Span::from_secs(2),
            spread: Span::from_secs(1),
        };
        let storm = episode(Fault::TokenExpiry(settings), 1_000, Some(1_000));
        let all = marks(&[], 9_000);

        let mut ahead = live_at_zero();
        ahead.lost(ms(2_500), "new token".to_owned(), true);
        connect(&mut ahead, 2_501, 0);
        ahead.resumed(ms(2_505));
        assert_eq!(way(&mut ahead, &storm, &all), None);
        assert_eq!(ahead.planned(), 1);

        let mut late = live_at_zero();
        late.expired(ms(3_000));
        late.lost(ms(3_004), "token_expired".to_owned(), false);
        let open = way(&mut late, &storm, &all).unwrap();
        assert_eq!(
            (open.t0, open.th, open.whole),
            (ms(3_000), Some(ms(3_000)), None)
        );
        connect(&mut late, 4_000, 0);
        late.resumed(ms(4_005));
        let closed = way(&mut late, &storm, &all).unwrap();
        assert_eq!(closed.whole, Some(ms(4_005)));
    }

    #[test]
    fn a_client_that_was_down_when_the_fault_came_is_affected_by_its_next_failure() {
        let mut journey = live_at_zero();
        journey.lost(ms(900), "FIN".to_owned(), false);
        let kill = episode(Fault::Kill(Kill {}), 1_000, None);
        assert_eq!(way(&mut journey, &kill, &marks(&[], 0)), None);
        journey.failed(ms(1_100), "connection refused");
        let way = way(&mut journey, &kill, &marks(&[], 0)).unwrap();
        assert_eq!(way.detected, Some(ms(1_100)));
    }
}
