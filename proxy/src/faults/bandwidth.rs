//! Bandwidth: writes are spaced so that a link passes on no more than a rate. What does not fit waits with the
//! sender, who feels it as back-pressure.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::fault::Bandwidth;

use super::{Bites, Rule, get, named};

/// One rule's rate on one link.
#[derive(Debug)]
pub(crate) struct Pace {
    pub(crate) rule: Arc<Rule>,
    pub(crate) per_second: u64,
}

impl Pace {
    pub(crate) fn new(rule: &Arc<Rule>, settings: &Bandwidth) -> Self {
        Self {
            rule: Arc::clone(rule),
            per_second: settings.per_second.bytes(),
        }
    }
}

pub(super) fn check(settings: &Bandwidth) -> Result<(), String> {
    if settings.per_second.bytes() == 0 {
        return Err(
            "bandwidth of 0B per second would pass nothing at all; use `hold` for that".to_owned(),
        );
    }
    Ok(())
}

pub(super) fn figures(bites: &Bites) -> BTreeMap<String, u64> {
    named([
        ("connections_paced", get(&bites.total)),
        ("waits", get(&bites.chunks)),
    ])
}
