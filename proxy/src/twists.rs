//! What toxics do to one direction beyond delaying and pacing it. What they have counted outlives changes of the rules.

use model::instant::Mono;
use model::quantity::Span;

use crate::queue::ReleaseQueue;
use crate::toxics::corrupt::Noise;
use crate::toxics::limit_data::Limit;
use crate::toxics::loss_stall::Losses;
use crate::toxics::reset_peer::Fuse;
use crate::toxics::slicer::Knife;
use crate::toxics::slow_close::LateEnd;
use crate::toxics::timeout::Blackhole;

/// The state of one direction's toxics, apart from those that only delay or pace.
#[derive(Debug, Default)]
pub(crate) struct Twists {
    /// Nothing is read or written.
    pub(crate) is_dead: bool,
    pub(crate) late_ends: Vec<LateEnd>,
    pub(crate) blackholes: Vec<Blackhole>,
    pub(crate) fuses: Vec<Fuse>,
    pub(crate) knives: Vec<Knife>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) noises: Vec<Noise>,
    pub(crate) losses: Vec<Losses>,
}

/// How a toxic ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// FIN both ways, behind what has gone out.
    HangUp,
    /// RST both ways.
    Reset,
}

/// A state that a toxic has in a direction.
pub(crate) trait Lasting {
    /// The toxic's number.
    fn uid(&self) -> u64;

    /// Goes on from where the same toxic was before a change of the rules.
    fn resume(&mut self, before: Self);
}

/// Has each of these go on from where it was before.
pub(crate) fn resume<T: Lasting>(now: &mut [T], before: Vec<T>) {
    for state in before {
        if let Some(same) = now.iter_mut().find(|other| other.uid() == state.uid()) {
            same.resume(state);
        }
    }
}

impl Twists {
    /// Goes on from what was before a change of the rules.
    pub(crate) fn resume(&mut self, before: Self) {
        resume(&mut self.late_ends, before.late_ends);
        resume(&mut self.blackholes, before.blackholes);
        resume(&mut self.fuses, before.fuses);
        resume(&mut self.knives, before.knives);
        resume(&mut self.limits, before.limits);
        resume(&mut self.noises, before.noises);
        resume(&mut self.losses, before.losses);
    }

    /// How late the end goes.
    pub(crate) fn close_after(&self) -> Span {
        let delays = self.late_ends.iter().map(|late| late.delay);
        delays.fold(Span::ZERO, Span::plus)
    }

    /// The end has come.
    pub(crate) fn end(&mut self) {
        for late in &mut self.late_ends {
            late.see();
        }
    }

    /// Whether something swallowed the direction that no longer does: it cannot go on without what it has lost.
    pub(crate) fn has_lost(before: &Self, now: Option<&Self>) -> bool {
        before.blackholes.iter().any(|hole| {
            now.is_none_or(|now| now.blackholes.iter().all(|other| other.uid() != hole.uid()))
        })
    }

    /// Whether what comes is dropped.
    pub(crate) const fn swallows(&self) -> bool {
        !self.blackholes.is_empty()
    }

    /// Whether nothing is written.
    pub(crate) const fn withholds(&self) -> bool {
        self.is_dead || self.swallows() || !self.fuses.is_empty()
    }

    /// Something came and is dropped.
    pub(crate) fn swallow(&mut self, now: Mono) {
        for hole in &mut self.blackholes {
            hole.swallow(now);
        }
    }

    /// Appends a chunk that was read at `now` and may go at `release`, disturbed and stalled.
    pub(crate) fn enqueue(
        &mut self,
        queue: &mut ReleaseQueue,
        now: Mono,
        release: Mono,
        bytes: &[u8],
    ) {
        let from = queue.len();
        let mut stalls = Vec::new();
        for losses in &mut self.losses {
            losses.stall(bytes.len(), |at, stall| stalls.push((at, stall)));
        }
        stalls.sort_unstable();
        let (mut done, mut release) = (0, release);
        for (at, stall) in stalls {
            queue.push(now, release, &bytes[done..at]);
            release = release.max(now) + stall;
            done = at;
        }
        queue.push(now, release, &bytes[done..]);
        for noise in &mut self.noises {
            noise.disturb(queue, from);
        }
    }

    /// How many of `due` bytes may go at `now`; or from when on, or that it is not a matter of time.
    pub(crate) fn allowance(&mut self, now: Mono, due: usize) -> Result<usize, Option<Mono>> {
        let mut some = due;
        for limit in &self.limits {
            some = some.min(limit.left());
        }
        if some == 0 {
            return Err(None);
        }
        for knife in &mut self.knives {
            some = some.min(knife.allowance(now).map_err(Some)?);
        }
        Ok(some)
    }

    /// So many bytes went at `now`; `is_last` where none waits behind them.
    pub(crate) fn spend(&mut self, now: Mono, bytes: usize, is_last: bool) {
        for limit in &mut self.limits {
            limit.spend(bytes);
        }
        for knife in &mut self.knives {
            knife.spend(now, bytes, is_last);
        }
    }

    /// What becomes of the connection at `now`; or when that is to be asked again. Something `waits` when bytes or the
    /// end of the stream do.
    pub(crate) fn judge(
        &mut self,
        now: Mono,
        bytes_wait: bool,
        end_waits: bool,
    ) -> Result<Verdict, Option<Mono>> {
        if self
            .limits
            .iter_mut()
            .any(|limit| limit.is_reached(bytes_wait))
        {
            return Ok(Verdict::HangUp);
        }
        let mut next = None;
        if bytes_wait || end_waits {
            for fuse in &mut self.fuses {
                fuse.light(now);
            }
        }
        let resets = self.fuses.iter().filter_map(Fuse::resets_at);
        let resets = resets.map(|at| (at, Verdict::Reset));
        let closes = self.blackholes.iter().filter_map(Blackhole::closes_at);
        let closes = closes.map(|at| (at, Verdict::HangUp));
        for (at, verdict) in resets.chain(closes) {
            if at <= now {
                return Ok(verdict);
            }
            next = Some(next.map_or(at, |next: Mono| next.min(at)));
        }
        Err(next)
    }
}
