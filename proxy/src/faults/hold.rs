//! Hold: a partition as a user-space proxy can make it. A held connection is neither read from nor written to, and
//! what it had read already waits too; a new one is accepted and not dialled for. Nothing is dropped: bytes go on when
//! the hold ends, and a client that has left meanwhile is noticed then. What the kernel had taken for a peer before the
//! hold began may still reach that peer.

use std::collections::BTreeMap;

use super::{Rule, get, named};
use crate::plane::Handle;

pub(super) fn figures<'h>(
    rule: &Rule,
    open: impl Iterator<Item = &'h Handle>,
) -> BTreeMap<String, u64> {
    let (mut held_now, mut leaking) = (0, 0);
    for handle in open.filter(|handle| rule.takes(handle) == Some(true)) {
        if let Some(passed) = handle.passed_while_held() {
            held_now += 1;
            leaking += passed;
        }
    }
    let connects = get(&rule.bites.connects);
    named([
        (
            "connections_held",
            get(&rule.bites.total).saturating_sub(connects),
        ),
        ("connects_held", connects),
        ("held_now", held_now),
        (
            "bytes_forwarded_while_held",
            get(&rule.bites.leaked) + leaking,
        ),
    ])
}
