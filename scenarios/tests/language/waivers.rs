//! Waivers: what is refused, and what they cover.

use model::anomaly::Anomaly;
use model::ids::Lane;
use scenarios::waivers::{CheckedWaivers, Date, Waivers, parse};
use scenarios::{Diagnostics, Severity};

use crate::support::{points_at, source};

const GOOD: &str = "\
waivers:
  - anomaly: over_replay
    scope: { scenario: restart, lane: khala, at_most: 20 }
    reason: the lane replays whole batches, see SYNC-311
    owner: team-sync
    expires: 2026-03-01
  - anomaly: gap
    reason: known in 1.3.0
    owner: ada
    expires: 2026-06-30
";

fn today() -> Date {
    "2026-01-01".parse().expect("a date")
}

fn read(text: &str) -> Result<CheckedWaivers, Diagnostics> {
    parse(&source(text), today())
}

/// The good file with one thing changed is refused on the line of the change.
#[track_caller]
fn wrong(from: &str, to: &str, column: usize, words: &[&str]) {
    assert!(GOOD.contains(from), "no `{from}`");
    let text = GOOD.replacen(from, to, 1);
    let line = GOOD
        .lines()
        .position(|line| line.contains(from.lines().next().unwrap_or(from)))
        .expect("one line")
        + 1;
    let shown = read(&text).expect_err("it is wrong").to_string();
    points_at(&shown, line, column, words);
}

#[test]
fn a_good_file_is_read_without_a_warning() {
    let checked = read(GOOD).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(checked.warnings, []);
    let waivers = checked.waivers;
    let about = |anomaly, scenario, lane| waivers.about(anomaly, scenario, lane).is_some();
    assert!(about(Anomaly::OverReplay, "restart", Lane::Khala));
    assert!(!about(Anomaly::OverReplay, "restart", Lane::Spacetime));
    assert!(!about(Anomaly::OverReplay, "partition", Lane::Khala));
    assert!(about(Anomaly::Gap, "anything", Lane::Spacetime));
    assert!(!about(Anomaly::Lost, "restart", Lane::Khala));
    assert_eq!(
        waivers.waivers[0].to_string(),
        "over_replay in restart on khala, at most 20, of team-sync"
    );
}

#[test]
fn a_reason_of_several_lines_is_printed_in_one() {
    let folded = "reason: |\n      known\n      in \"1.3.0\"\n";
    let text = GOOD.replacen("reason: known in 1.3.0\n", folded, 1);
    let waivers = read(&text)
        .unwrap_or_else(|error| panic!("{error}"))
        .waivers;
    assert_eq!(waivers.waivers[1].reason, "known in \"1.3.0\"");
}

#[test]
fn a_copy_has_the_same_digest_and_an_altered_one_another() {
    let waivers = read(GOOD).expect("good").waivers;
    let text = serde_json::to_string(&waivers).expect("JSON");
    let mut copy: Waivers = serde_json::from_str(&text).expect("a copy");
    assert_eq!(copy.digest(), waivers.digest());
    copy.waivers[0].scope.at_most = None;
    assert_ne!(copy.digest(), waivers.digest());
}

#[test]
fn unknown_names_are_told_the_nearest() {
    wrong(
        "over_replay",
        "overreplay",
        14,
        &["`overreplay`", "`over_replay`"],
    );
    wrong("lane: khala", "lane: kahla", 39, &["`kahla`", "`khala`"]);
    wrong("owner: ada", "onwer: ada", 5, &["`onwer`", "`owner`"]);
    wrong("at_most: 20", "atmost: 20", 46, &["`atmost`", "`at_most`"]);
}

#[test]
fn what_every_waiver_needs_is_asked_for() {
    for field in [
        "reason: known in 1.3.0",
        "owner: ada",
        "expires: 2026-06-30",
    ] {
        let text = GOOD.replacen(&format!("    {field}\n"), "", 1);
        let shown = read(&text).expect_err("it is wrong").to_string();
        let name = field.split(':').next().expect("a name");
        assert!(shown.contains(&format!("`{name}` is missing")), "{shown}");
        assert!(shown.contains("test.yaml:7:"), "{shown}");
    }
    wrong("owner: ada", "owner: \" \"", 12, &["the owner is empty"]);
    wrong(
        "reason: known in 1.3.0",
        "reason: ''",
        13,
        &["the reason is empty"],
    );
}

#[test]
fn dates_are_days_and_not_too_far_away() {
    wrong(
        "2026-06-30",
        "2026-6-30",
        14,
        &["`2026-6-30`", "YYYY-MM-DD"],
    );
    wrong(
        "2026-06-30",
        "2026-02-30",
        14,
        &["`2026-02-30` is not a date"],
    );
    wrong("2026-06-30", "never", 14, &["`never`", "2026-03-01"]);
    wrong(
        "2026-06-30",
        "2026-07-01",
        14,
        &["180 days", "until 2026-06-30"],
    );
}

#[test]
fn what_let_somebody_see_what_is_not_theirs_cannot_be_waived() {
    for latching in ["leak", "unauthorized_success"] {
        let message = format!("`{latching}` cannot be waived");
        wrong(
            "anomaly: gap",
            &format!("anomaly: {latching}"),
            14,
            &[&message],
        );
    }
}

#[test]
fn a_waiver_of_nothing_and_two_of_the_same_are_refused() {
    wrong(
        "at_most: 20",
        "at_most: 0",
        55,
        &["at most 0 waives nothing"],
    );
    wrong(
        "anomaly: gap",
        "anomaly: over_replay",
        14,
        &["`over_replay` of some trials is waived twice", "number 1"],
    );
    let apart = GOOD.replacen(
        "anomaly: gap",
        "anomaly: over_replay\n    scope: { lane: spacetime }",
        1,
    );
    read(&apart).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn an_expired_waiver_is_said_before_the_run() {
    let text = GOOD.replacen("2026-03-01", "2025-12-31", 1);
    let checked = read(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(checked.warnings.len(), 1);
    let warning = &checked.warnings[0];
    assert_eq!(warning.severity, Severity::Warning);
    assert!(
        warning.to_string().contains("test.yaml:6:14") && warning.message.contains("no-go"),
        "{warning}"
    );
    let last_day = GOOD.replacen("2026-03-01", "2026-01-01", 1);
    assert_eq!(read(&last_day).expect("good").warnings, []);
}

#[test]
fn what_is_no_file_of_waivers_is_refused() {
    for (text, word) in [
        ("", "the file is empty"),
        ("- anomaly: gap\n", "a mapping"),
        ("waivers: gap\n", "a list"),
        ("waviers: []\n", "`waivers`"),
        ("waivers: []\n---\nwaivers: []\n", "second YAML document"),
    ] {
        let shown = read(text).expect_err("it is wrong").to_string();
        assert!(shown.contains(word), "`{word}` in\n{shown}");
    }
    assert_eq!(
        read("waivers: []\n").expect("none").waivers,
        Waivers::default()
    );
}

#[test]
fn the_example_of_the_documentation_is_right() {
    let page = crate::support::docs("waivers.md");
    let example = crate::docs::example(&page);
    let checked = parse(&source(example), "2026-01-15".parse().expect("a date"));
    let checked = checked.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(checked.warnings, []);
}
