//! The scenarios that come with faultlane.

const SOURCES: [(&str, &str); 7] = [
    ("restart", include_str!("../library/restart.yaml")),
    ("partition", include_str!("../library/partition.yaml")),
    (
        "token-expiry-storm",
        include_str!("../library/token-expiry-storm.yaml"),
    ),
    (
        "reconnect-storm",
        include_str!("../library/reconnect-storm.yaml"),
    ),
    ("burst-kill", include_str!("../library/burst-kill.yaml")),
    ("restore", include_str!("../library/restore.yaml")),
    (
        "hostile-frames",
        include_str!("../library/hostile-frames.yaml"),
    ),
];

/// The standard drill, in this order.
pub const STANDARD: [&str; 4] = [
    "restart",
    "partition",
    "token-expiry-storm",
    "reconnect-storm",
];

const NAMES: [&str; SOURCES.len()] = {
    let mut names = [""; SOURCES.len()];
    let mut place = 0;
    while place < SOURCES.len() {
        names[place] = SOURCES[place].0;
        place += 1;
    }
    names
};

/// Their names: those of the standard drill in its order, then the others.
#[must_use]
pub const fn names() -> &'static [&'static str] {
    &NAMES
}

/// What somebody who wrote another name may have meant: `did you mean …`, or what there is.
#[must_use]
pub fn nearest(name: &str) -> String {
    crate::typed::nearest(name, names())
}

/// The YAML of one of them.
#[must_use]
pub fn source(name: &str) -> Option<&'static str> {
    SOURCES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}
