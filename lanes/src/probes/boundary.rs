//! The boundaries of a stream's window: the cursors on both sides of each, and what has to come of them.

use model::ids::Seq;
use model::probe::ProbesConfig;

use crate::khala::error::StaleReason;

/// A cursor so far ahead is ahead of any head.
const FAR_AHEAD: Seq = 1_000_000_000;

/// From where to where a stream can be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// The newest seq.
    pub(super) head: Seq,
    /// The oldest that is kept, less one.
    pub(super) floor: Seq,
    /// The largest replay.
    pub(super) budget: u64,
}

impl Window {
    /// Why a cursor cannot be resumed from; `None` when it can. A cursor of 0 is a start from nothing.
    pub(super) const fn stale(self, cursor: Seq) -> Option<StaleReason> {
        if cursor == 0 {
            None
        } else if cursor > self.head {
            Some(StaleReason::CursorAheadOfHead)
        } else if cursor < self.floor {
            Some(StaleReason::RetentionFloorBreach)
        } else if self.head - cursor > if self.budget > 1 { self.budget } else { 1 } {
            Some(StaleReason::ReplayBudgetExceeded)
        } else {
            None
        }
    }
}

/// Where a cursor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boundary {
    /// The first that is below the floor: the event after it is gone.
    OldestLessTwo,
    /// The floor itself: every event after it is there.
    OldestLessOne,
    /// The oldest event's own seq.
    Oldest,
    /// The largest replay that may be asked for.
    Budget,
    /// One event more.
    BudgetPlusOne,
    /// Nothing is missing.
    Head,
    /// The first that does not exist.
    HeadPlusOne,
    /// A lane that has forgotten its log would see such.
    FarAhead,
    /// The head of another stream.
    Foreign,
    /// Good when the connection was made, and below the floor when it subscribes.
    Moving,
}

impl Boundary {
    pub(super) const ALL: [Self; 10] = [
        Self::OldestLessTwo,
        Self::OldestLessOne,
        Self::Oldest,
        Self::Budget,
        Self::BudgetPlusOne,
        Self::Head,
        Self::HeadPlusOne,
        Self::FarAhead,
        Self::Foreign,
        Self::Moving,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OldestLessTwo => "cursor/oldest-2",
            Self::OldestLessOne => "cursor/oldest-1",
            Self::Oldest => "cursor/oldest",
            Self::Budget => "cursor/budget",
            Self::BudgetPlusOne => "cursor/budget+1",
            Self::Head => "cursor/head",
            Self::HeadPlusOne => "cursor/head+1",
            Self::FarAhead => "cursor/far-ahead",
            Self::Foreign => "cursor/foreign",
            Self::Moving => "cursor/moving-retention",
        }
    }

    /// Whether there are the streams that it takes.
    pub(super) const fn can_be_tried(self, config: &ProbesConfig) -> bool {
        config.stale.is_some() && (!matches!(self, Self::Foreign) || config.rival.is_some())
    }

    /// The cursor, given the head of another stream; `None` while the stream is too short for it to be what it is called.
    pub(super) fn cursor(self, window: Window, foreign: Seq) -> Option<Seq> {
        let Window {
            head,
            floor,
            budget,
        } = window;
        let cursor = match self {
            Self::OldestLessTwo => floor.checked_sub(1)?,
            Self::OldestLessOne => floor,
            Self::Oldest => floor + 1,
            Self::Budget | Self::Moving => head.checked_sub(budget)?,
            Self::BudgetPlusOne => head.checked_sub(budget + 1)?,
            Self::Head => head,
            Self::HeadPlusOne => head + 1,
            Self::FarAhead => head + FAR_AHEAD,
            // One that happens to fit cannot be told from the stream's own.
            Self::Foreign => Some(foreign).filter(|foreign| window.stale(*foreign).is_some())?,
        };
        let full = floor > 1;
        (cursor > 0 && full).then_some(cursor)
    }

    /// In words, on a stream of this retention and budget.
    pub(super) fn expected(self, retention: u64, budget: u64) -> String {
        let window = Window {
            head: 2 * retention + budget + 2,
            floor: retention + budget + 2,
            budget,
        };
        let reason = match self {
            Self::Moving => Some(StaleReason::RetentionFloorBreach),
            Self::Foreign => return "stale".to_owned(),
            boundary => boundary
                .cursor(window, 0)
                .and_then(|cursor| window.stale(cursor)),
        };
        reason.map_or("resumed".to_owned(), |reason| {
            format!("stale: {}", reason.name())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_boundary_has_its_cursor_and_what_comes_of_it() {
        let window = Window {
            head: 50,
            floor: 30,
            budget: 10,
        };
        let of = |boundary: Boundary| {
            let cursor = boundary.cursor(window, 12).unwrap();
            (cursor, boundary.expected(20, 10))
        };
        let stale = |reason: StaleReason| format!("stale: {}", reason.name());
        let exceeded = stale(StaleReason::ReplayBudgetExceeded);
        let below = stale(StaleReason::RetentionFloorBreach);
        let ahead = stale(StaleReason::CursorAheadOfHead);
        let resumed = "resumed".to_owned();
        let cases = [
            (Boundary::OldestLessTwo, (29, below.clone())),
            (Boundary::OldestLessOne, (30, exceeded.clone())),
            (Boundary::Oldest, (31, exceeded.clone())),
            (Boundary::Budget, (40, resumed.clone())),
            (Boundary::BudgetPlusOne, (39, exceeded)),
            (Boundary::Head, (50, resumed)),
            (Boundary::HeadPlusOne, (51, ahead.clone())),
            (Boundary::FarAhead, (1_000_000_050, ahead)),
            (Boundary::Foreign, (12, "stale".to_owned())),
            (Boundary::Moving, (40, below)),
        ];
        assert_eq!(cases.len(), Boundary::ALL.len());
        for (boundary, expected) in cases {
            assert_eq!(of(boundary), expected, "{boundary:?}");
        }
        assert_eq!(
            Boundary::OldestLessOne.expected(5, 10),
            "resumed",
            "a budget beyond the retention"
        );
    }

    #[test]
    fn a_stream_that_is_too_short_has_no_boundaries_yet() {
        for head in [0, 3, 20, 21] {
            let window = Window {
                head,
                floor: head.saturating_sub(20),
                budget: 10,
            };
            for boundary in Boundary::ALL {
                assert_eq!(boundary.cursor(window, 1), None, "{boundary:?} at {head}");
            }
        }
        let window = Window {
            head: 50,
            floor: 30,
            budget: 10,
        };
        assert_eq!(Boundary::Foreign.cursor(window, 45), None, "it fits");
    }
}
