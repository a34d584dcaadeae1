//! Cursor continuity, judged by the client where the lane does not: a cursor that the lane can no longer continue is
//! never silently applied to.

use model::defect::Defect;
use model::ids::Seq;

use crate::khala::error::StaleReason;

/// Whether a resume after `cursor` is continuous, given the lane's head, the first row that the resume brought, and
/// the replay budget. A cursor of 0 is a start from nothing and continues anything.
#[must_use]
pub fn continuity(cursor: Seq, head: Seq, first: Option<Seq>, budget: u64) -> Option<StaleReason> {
    if cursor == 0 {
        return None;
    }
    let oldest = first.unwrap_or(head.saturating_add(1));
    if head < cursor {
        Some(StaleReason::CursorAheadOfHead)
    } else if head > cursor && oldest > cursor.saturating_add(1) {
        Some(StaleReason::RetentionFloorBreach)
    } else if head - cursor > budget.max(1) {
        Some(StaleReason::ReplayBudgetExceeded)
    } else {
        None
    }
}

/// Whether a planted defect keeps a client from noticing a break of continuity after `cursor`.
#[must_use]
pub fn overlooked(defect: Option<Defect>, cursor: Seq, first: Option<Seq>) -> bool {
    match defect {
        Some(Defect::IgnoreStaleCursor) => true,
        // The event between the cursor and the oldest is missing, and nothing else is.
        Some(Defect::OffByOneFloor) => first == cursor.checked_add(2),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_off_by_one_overlooks_the_cursor_just_below_the_floor_only() {
        let defect = Some(Defect::OffByOneFloor);
        assert!(overlooked(defect, 5, Some(7)));
        for first in [None, Some(6), Some(8)] {
            assert!(!overlooked(defect, 5, first), "{first:?}");
        }
        assert!(!overlooked(None, 5, Some(7)));
    }

    #[test]
    fn each_break_of_continuity_has_its_name() {
        use StaleReason::{CursorAheadOfHead, ReplayBudgetExceeded, RetentionFloorBreach};
        let cases = [
            ((5, 9, Some(6), 100), None),
            ((9, 9, None, 100), None),
            ((0, 90_000, Some(500), 100), None),
            ((10, 9, None, 100), Some(CursorAheadOfHead)),
            ((5, 9, Some(7), 100), Some(RetentionFloorBreach)),
            ((5, 9, None, 100), Some(RetentionFloorBreach)),
            ((5, 105, Some(6), 100), None),
            ((5, 106, Some(6), 100), Some(ReplayBudgetExceeded)),
        ];
        for ((cursor, head, first, budget), expected) in cases {
            assert_eq!(
                continuity(cursor, head, first, budget),
                expected,
                "{cursor} {head} {first:?} {budget}"
            );
        }
    }
}
