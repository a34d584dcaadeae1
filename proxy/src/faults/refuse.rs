//! Refuse: connections accepted after the fault began are closed with RST: at once when it takes all clients, else as
//! soon as the request's head tells whose they are. The lane hears nothing of them.

use std::collections::BTreeMap;

use super::{Bites, get, named};

pub(super) fn figures(bites: &Bites) -> BTreeMap<String, u64> {
    named([("refused", get(&bites.total))])
}
