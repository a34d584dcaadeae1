//! WebSocket close: the client gets a Close frame between two frames of the lane's, then both sides are closed. It is
//! for connections that were upgraded; others are left alone.
//! Under a hold it is sent when that ends.

use std::collections::BTreeMap;

use model::fault::WsClose;

use super::{Bites, get, named};

pub(super) fn check(settings: &WsClose) -> Result<(), String> {
    if !(1_000..=4_999).contains(&settings.code) {
        return Err(format!(
            "{} is not a close code; use one from 1000 to 4999",
            settings.code
        ));
    }
    if settings.reason.len() > 123 {
        return Err(format!(
            "the close reason has {} bytes; a Close frame carries at most 123",
            settings.reason.len()
        ));
    }
    Ok(())
}

pub(super) fn figures(bites: &Bites) -> BTreeMap<String, u64> {
    named([
        ("connections_closed", get(&bites.total)),
        ("close_frames_sent", get(&bites.messages)),
    ])
}
