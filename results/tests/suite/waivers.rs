//! Waivers: what they spare, what they do not, and that the gate agrees from the folder alone.

use std::fs;
use std::path::Path;

use model::anomaly::Anomaly;
use model::ids::Lane;
use model::trial::Trial;
use results::{
    Decision, Outcome, Row, RunFolder, Status, WaiverState, explain, gate, table, verdict,
};
use scenarios::plan::Plan;
use scenarios::waivers::{Scope, Waiver, Waivers};

use crate::builder::{clean_row, example, plan, record, row};

/// The run of the builder begins on 2026-01-01.
fn waiver(anomaly: Anomaly, expires: &str, at_most: Option<u64>) -> Waiver {
    Waiver {
        anomaly,
        scope: Scope {
            scenario: Some("partition".to_owned()),
            lane: Some(Lane::Khala),
            at_most,
        },
        reason: "mended with SYNC-311".to_owned(),
        owner: "team-sync".to_owned(),
        expires: expires.parse().unwrap(),
    }
}

fn waivers(all: impl IntoIterator<Item = Waiver>) -> Waivers {
    Waivers {
        waivers: all.into_iter().collect(),
    }
}

fn run(path: &Path, row: &Row, waivers: &Waivers) -> (Row, Decision) {
    let mut folder = RunFolder::create_with(path, &record(1), Some(waivers)).unwrap();
    folder.keep_plan(&plan(), 1).unwrap();
    let row = folder.append(row).unwrap();
    let decision = folder.finish().unwrap();
    assert_eq!(gate(path).unwrap(), decision, "from the folder alone");
    assert_eq!(verdict(&row), row.verdict, "the row's evidence suffices");
    (row, decision)
}

/// A row with so many of a kind.
fn with(anomaly: Anomaly, count: u64) -> Row {
    row(|_, trial| note(trial, anomaly, count))
}

fn note(trial: &mut Trial, anomaly: Anomaly, count: u64) {
    for _ in 0..count {
        let findings = &mut trial.shards[1].findings;
        findings.note(anomaly, example("replayed to a cursor of 90"));
    }
}

#[test]
fn what_is_waived_does_not_fail_the_trial_and_is_shown_all_the_same() {
    for anomaly in [Anomaly::Gap, Anomaly::OverReplay] {
        let found = with(anomaly, 7);
        assert_eq!(found.status, Status::Failed);
        let folder = tempfile::tempdir().unwrap();
        let all = waivers([waiver(anomaly, "2026-01-01", Some(7))]);
        let (row, decision) = run(folder.path(), &found, &all);
        assert_eq!(row.status, Status::Passed, "{:?}", row.verdict);
        assert_eq!(decision.decision, Outcome::Go);
        assert_eq!(decision.waivers[0].state, WaiverState::Used);
        assert_eq!(
            (decision.waivers[0].found, decision.waivers[0].trials),
            (7, 1)
        );

        let marked = "waived by team-sync until 2026-01-01: mended with SYNC-311";
        assert_eq!(row.anomalies[&anomaly].count, Some(7));
        assert_eq!(
            row.anomalies[&anomaly].within,
            Some(false),
            "it is still too much"
        );
        assert!(row.verdict.reason.contains(marked), "{:?}", row.verdict);
        assert!(table(&[row]).contains(&format!("{anomaly} 7 (waived)")));
        let summary = fs::read_to_string(folder.path().join("SUMMARY.md")).unwrap();
        let line = summary
            .lines()
            .find(|line| line.contains(&format!("| {anomaly} | 7 |")))
            .unwrap_or_else(|| panic!("{summary}"));
        assert!(
            line.contains(marked) && line.contains("replayed to a cursor"),
            "{line}"
        );
        let section = format!(
            "| {anomaly} | partition on khala, at most 7 | team-sync | 2026-01-01 | mended with SYNC-311 | used | 7 | 1 |"
        );
        assert!(
            summary.contains("## Waivers") && summary.contains(&section),
            "{summary}"
        );
        let said = decision.to_string();
        assert!(
            said.contains("waiver used: ") && said.contains("(7 in 1 trials)"),
            "{said}"
        );
    }
}

#[test]
fn one_more_than_is_waived_and_all_count() {
    for anomaly in [Anomaly::Gap, Anomaly::OverReplay] {
        let folder = tempfile::tempdir().unwrap();
        let all = waivers([waiver(anomaly, "2026-06-01", Some(6))]);
        let (row, decision) = run(folder.path(), &with(anomaly, 7), &all);
        assert_eq!(row.status, Status::Failed);
        let reason = &row.verdict.reason;
        assert!(
            reason.starts_with(&format!("{anomaly}: 7"))
                && reason.contains("team-sync waives at most 6 until 2026-06-01"),
            "{reason}"
        );
        assert_eq!(decision.decision, Outcome::NoGo);
        assert_eq!(decision.waivers[0].state, WaiverState::Exceeded);
    }
}

#[test]
fn an_expired_waiver_fails_its_trial_and_the_run() {
    // 3 over-replays are within the scenario's limit of 5: whoever waived them meant them to be gone by now.
    for (anomaly, count) in [(Anomaly::Gap, 1), (Anomaly::OverReplay, 3)] {
        let folder = tempfile::tempdir().unwrap();
        let all = waivers([waiver(anomaly, "2025-12-31", None)]);
        let (row, decision) = run(folder.path(), &with(anomaly, count), &all);
        assert_eq!(row.status, Status::Failed, "{:?}", row.verdict);
        let reason = &row.verdict.reason;
        assert!(
            reason.contains("the waiver of team-sync expired on 2025-12-31"),
            "{reason}"
        );
        assert_eq!(decision.decision, Outcome::NoGo);
        assert_eq!(decision.waivers[0].state, WaiverState::Expired);
    }
}

#[test]
fn an_expired_waiver_that_nothing_needed_is_no_go_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let all = waivers([waiver(Anomaly::Gap, "2025-12-31", None)]);
    let (row, decision) = run(folder.path(), &clean_row(), &all);
    assert_eq!(row.status, Status::Passed);
    assert_eq!((decision.decision, decision.failures), (Outcome::NoGo, 0));
    assert_eq!(
        decision.notes,
        [
            "the waiver for gap in partition on khala, of team-sync expired on 2025-12-31: renew it, or remove it"
        ]
    );
}

#[test]
fn a_waiver_for_elsewhere_spares_nothing_and_an_unused_one_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let mut elsewhere = waiver(Anomaly::Gap, "2026-06-01", None);
    elsewhere.scope.lane = Some(Lane::Spacetime);
    let unused = waiver(Anomaly::Reorder, "2026-06-01", None);
    let (row, decision) = run(
        folder.path(),
        &with(Anomaly::Gap, 1),
        &waivers([elsewhere, unused]),
    );
    assert_eq!(row.status, Status::Failed);
    assert_eq!(row.anomalies[&Anomaly::Gap].waiver, None);
    let states: Vec<_> = decision.waivers.iter().map(|used| used.state).collect();
    assert_eq!(states, [WaiverState::Unused, WaiverState::Unused]);
    assert!(
        decision
            .to_string()
            .contains("waiver unused: reorder in partition")
    );
}

type Spoil = fn(&mut Plan, &mut Trial);

#[test]
fn a_waiver_spares_the_anomaly_and_nothing_else() {
    let cases: [(Spoil, Status, &str); 3] = [
        (
            |_, trial| note(trial, Anomaly::Reorder, 1),
            Status::Failed,
            "reorder: 1",
        ),
        (
            |_, trial| trial.residue = None,
            Status::Inconclusive,
            "residue",
        ),
        (
            |_, trial| trial.relapses = 1,
            Status::Passed,
            "apart from what is waived: gap: 1",
        ),
    ];
    for (spoil, status, reason) in cases {
        let found = row(|plan, trial| {
            note(trial, Anomaly::Gap, 1);
            spoil(plan, trial);
        });
        let folder = tempfile::tempdir().unwrap();
        let all = waivers([waiver(Anomaly::Gap, "2026-06-01", None)]);
        let (row, _) = run(folder.path(), &found, &all);
        assert_eq!(row.status, status, "{:?}", row.verdict);
        assert!(row.verdict.reason.contains(reason), "{:?}", row.verdict);
        if status != Status::Passed {
            let text = explain(&row);
            assert!(text.contains("    gap: 1, waived by team-sync"), "{text}");
        }
    }
}

type Tamper<'a> = &'a dyn Fn(&Path);

#[test]
fn tampering_with_waivers_shows() {
    let kept = |path: &Path| path.join("waivers.json");
    let replace = |path: &Path, file: &str, from: &str, to: &str| {
        let file = path.join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&file, text.replace(from, to)).unwrap();
    };
    let cases: [(Tamper<'_>, Outcome, &str); 6] = [
        (
            &|path| replace(path, "waivers.json", "\"at_most\": 7", "\"at_most\": 700"),
            Outcome::NoGo,
            "tampered: waivers.json is not the one of the digest",
        ),
        (
            &|path| fs::remove_file(kept(path)).unwrap(),
            Outcome::Inconclusive,
            "waivers.json cannot be read",
        ),
        (
            &|path| fs::write(kept(path), "{").unwrap(),
            Outcome::Inconclusive,
            "waivers.json cannot be read",
        ),
        (
            &|path| replace(path, "results.jsonl", "\"at_most\":7", "\"at_most\":700"),
            Outcome::NoGo,
            "waived other than the run's waivers say",
        ),
        (
            &|path| replace(path, "run.json", "2026-01-01T", "2026-09-01T"),
            Outcome::NoGo,
            "waived other than the run's waivers say",
        ),
        (
            &|path| {
                let text = fs::read_to_string(path.join("run.json")).unwrap();
                let mut run: serde_json::Value = serde_json::from_str(&text).unwrap();
                run.as_object_mut().unwrap().remove("waivers");
                fs::write(path.join("run.json"), run.to_string()).unwrap();
            },
            Outcome::Inconclusive,
            "run.json knows of no waivers",
        ),
    ];
    for (tamper, outcome, said) in cases {
        let folder = tempfile::tempdir().unwrap();
        let all = waivers([waiver(Anomaly::Gap, "2026-06-01", Some(7))]);
        let (_, honest) = run(folder.path(), &with(Anomaly::Gap, 7), &all);
        assert_eq!(honest.decision, Outcome::Go);
        tamper(folder.path());
        let decision = gate(folder.path()).unwrap();
        assert_eq!(decision.decision, outcome, "{decision}");
        assert!(
            format!("{decision:?}").contains(said),
            "{said} in {decision:?}"
        );
    }
}

#[test]
fn a_waiver_that_a_row_gave_itself_is_tampering() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let all = waivers([waiver(Anomaly::Gap, "2026-06-01", None)]);
    let found = with(Anomaly::Gap, 1);
    run(other.path(), &found, &all);
    run(folder.path(), &found, &Waivers::default());
    let rows = "results.jsonl";
    fs::copy(other.path().join(rows), folder.path().join(rows)).unwrap();
    let decision = gate(folder.path()).unwrap();
    assert_eq!(decision.decision, Outcome::NoGo);
    assert!(
        decision.rows[0].reason.contains("waived other than"),
        "{decision}"
    );
}

#[test]
fn secrets_in_waivers_are_masked_and_the_gate_still_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let mut secret = waiver(Anomaly::Gap, "2026-06-01", None);
    secret.reason = "ask with password=hush".to_owned();
    let (row, decision) = run(folder.path(), &with(Anomaly::Gap, 1), &waivers([secret]));
    assert_eq!(decision.decision, Outcome::Go, "{decision}");
    assert!(row.verdict.reason.contains("password=[redacted]"));
    for file in ["waivers.json", "results.jsonl", "SUMMARY.md"] {
        assert!(
            !fs::read_to_string(folder.path().join(file))
                .unwrap()
                .contains("hush")
        );
    }
}
