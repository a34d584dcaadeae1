//! What is taken out of evidence, or changed in it after it was written, never makes a go.

use std::fs;
use std::path::Path;

use model::anomaly::Anomaly;
use model::defect::Defect;
use results::{Outcome, Row, RunFolder, Status, gate, verdict};
use serde_json::{Value, json};

use crate::builder::{clean_row, plan, record, row};
use crate::folders::{lines, rewrite, rows, written};

type Spoil = fn(&mut Row);

/// Gate's decision and all that it says, with the first row's reason first.
fn said(path: &Path) -> (Outcome, String) {
    let decision = gate(path).unwrap();
    let text = format!("{}\n{}", decision.rows[0].reason, decision.notes.join("\n"));
    (decision.decision, text)
}

#[test]
fn a_row_without_its_evidence_proves_nothing_whatever_it_lists_as_missing() {
    let cases: [(Spoil, &str); 12] = [
        (|row| row.anomalies.clear(), "the count of lost"),
        (
            |row| {
                row.anomalies.remove(&Anomaly::Leak);
            },
            "the count of leak",
        ),
        (
            |row| row.anomalies.get_mut(&Anomaly::Lost).unwrap().count = None,
            "the count of lost",
        ),
        (|row| row.residue = None, "the look for residue"),
        (|row| row.lane_status = None, "the lane's counters"),
        (|row| row.proxy_status = None, "the proxy's counters"),
        (|row| row.probes.clear(), "answers to the probes"),
        (|row| row.probes[0].answers.clear(), "answers to the probes"),
        (
            |row| row.expected_deliveries = None,
            "the count of deliveries",
        ),
        (
            |row| row.delivered = Some(5),
            "5 of 24000 came, and no finding accounts for it",
        ),
        (|row| row.delivered = Some(24_001), "24001 of 24000 came"),
        (|row| row.rows_received.clear(), "the rows received"),
    ];
    for (spoil, reason) in cases {
        let mut row = clean_row();
        assert!(row.missing.is_empty());
        spoil(&mut row);
        let verdict = verdict(&row);
        assert_eq!(verdict.status, Status::Inconclusive, "{reason}");
        assert!(verdict.reason.contains(reason), "{verdict:?}");
    }
}

#[test]
fn fewer_deliveries_than_expected_are_a_finding_of_their_own() {
    let mut row = clean_row();
    row.delivered = Some(23_990);
    row.anomalies.get_mut(&Anomaly::Lost).unwrap().count = Some(10);
    let verdict = verdict(&row);
    assert_eq!(verdict.reasons, ["lost: 10"]);
}

#[test]
fn a_target_that_breached_a_limit_need_not_be_readable() {
    let row = row(|_, trial| {
        trial.abort = Some(model::trial::Abort::Limit("nobody live".to_owned()));
        trial.final_read = None;
        trial.lane = None;
    });
    assert_eq!(row.verdict.reasons, ["aborted: nobody live"]);
}

#[test]
fn any_edit_of_a_row_is_tampering() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    assert_eq!(written(&path, 2, &rows(2)).decision, Outcome::Go);
    let honest = lines(&path);
    let cases: [fn(&mut Value); 17] = [
        |row| row["faults"] = json!([]),
        |row| row["anomalies"] = json!({}),
        |row| drop(row["anomalies"].as_object_mut().unwrap().remove("lost")),
        |row| row["anomalies"]["lost"]["count"] = Value::Null,
        |row| row["residue"] = Value::Null,
        |row| row["probes"] = json!([]),
        |row| row["lane_status"] = Value::Null,
        |row| row["expected_deliveries"] = Value::Null,
        |row| row["delivered"] = 5.into(),
        |row| row["rows_received"] = json!({}),
        |row| row["time_to_steady_us"] = 1.into(),
        |row| row["relapses"] = 3.into(),
        |row| row["seed"] = 8.into(),
        |row| row["defect"] = "skip-seq".into(),
        |row| row["seal"]["plan"] = Value::Null,
        |row| row["unheard_of"] = 1.into(),
        |row| row["clients"]["unknown"] = 1.into(),
    ];
    for (number, edit) in cases.into_iter().enumerate() {
        let mut edited = honest.clone();
        edit(&mut edited[0]);
        rewrite(&path, &edited);
        let (decision, said) = said(&path);
        assert_eq!(decision, Outcome::NoGo, "edit {number}: {said}");
        assert!(said.starts_with("tampered"), "edit {number}: {said}");
    }
    // Only how it is written differs: other white space, keys in another order.
    rewrite(&path, &honest);
    assert_eq!(gate(&path).unwrap().decision, Outcome::Go);
}

#[test]
fn a_failure_cannot_be_emptied_into_a_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let failed = row(|_, trial| {
        trial.shards[1]
            .findings
            .note_many(Anomaly::Gap, 3, [crate::builder::example("over 4")]);
    });
    assert_eq!(written(&path, 1, &[failed]).decision, Outcome::NoGo);
    let mut line = lines(&path).remove(0);
    line["anomalies"] = json!({});
    line["status"] = "passed".into();
    line["verdict"] = clean_verdict();
    rewrite(&path, &[line]);
    assert_eq!(said(&path).0, Outcome::NoGo);
}

fn clean_verdict() -> Value {
    serde_json::to_value(clean_row().verdict).unwrap()
}

#[test]
fn a_row_of_other_faults_seed_or_defect_than_planned_is_no_go_ahead() {
    let cases: [(Spoil, Outcome, &str); 6] = [
        (
            |row| row.faults.clear(),
            Outcome::Inconclusive,
            "no record of fault f1-hold",
        ),
        (
            |row| row.faults[0].share = model::quantity::Share::ratio(0.5),
            Outcome::NoGo,
            "fault f1-hold is not that of its plan",
        ),
        (
            |row| row.faults.push(row.faults[0].clone()),
            Outcome::NoGo,
            "fault f1-hold is not that of its plan",
        ),
        (
            |row| {
                let mut more = row.faults[0].clone();
                more.id = "f2-hold".to_owned();
                row.faults.push(more);
            },
            Outcome::NoGo,
            "faults that its plan has not",
        ),
        (|row| row.seed = 8, Outcome::NoGo, "seed"),
        (
            |row| row.defect = Some(Defect::ALL[0]),
            Outcome::NoGo,
            "planted defect",
        ),
    ];
    for (spoil, outcome, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let mut row = clean_row();
        spoil(&mut row);
        // Sealed as it is: the seal is not what tells.
        written(&path, 1, &[row]);
        let (decision, said) = said(&path);
        assert_eq!(decision, outcome, "{said}");
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn a_defect_that_was_planted_by_the_run_is_in_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut record = record(1);
    record.settings["defect"] = Defect::ALL[0].name().into();
    let mut run = RunFolder::create(&path, &record).unwrap();
    run.keep_plan(&plan(), 1).unwrap();
    run.append(&clean_row()).unwrap();
    assert_eq!(run.finish().unwrap().decision, Outcome::NoGo);
}

#[test]
fn a_plan_that_was_changed_is_noticed_also_where_something_in_it_is_masked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut with_secret = plan();
    with_secret.about = "login with token=abc".to_owned();
    with_secret.digest = with_secret.computed_digest();
    let mut record = record(1);
    record.rows[0].plan_digest.clone_from(&with_secret.digest);
    let mut run = RunFolder::create(&path, &record).unwrap();
    run.keep_plan(&with_secret, 1).unwrap();
    run.append(&row(|plan, _| *plan = with_secret.clone()))
        .unwrap();
    assert_eq!(run.finish().unwrap().decision, Outcome::Go);

    let file = path.join("plans/partition-khala-1.json");
    let mut kept: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(kept["about"], "login with token=[redacted]");
    kept["note"] = "[redacted]".into();
    fs::write(&file, kept.to_string()).unwrap();
    let (decision, said) = said(&path);
    assert_eq!(decision, Outcome::NoGo);
    assert!(said.contains("its plan was changed"), "{said}");
}

#[test]
fn a_row_that_is_taken_out_moved_or_without_a_seal_leaves_a_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    written(&path, 2, &rows(2));
    let honest = lines(&path);
    let mut bare = honest.clone();
    bare[1].as_object_mut().unwrap().remove("seal");
    for (edited, reason) in [
        (vec![honest[1].clone()], "results.jsonl:1 does not follow"),
        (
            vec![honest[1].clone(), honest[0].clone()],
            "results.jsonl:1 does not follow",
        ),
        (bare, "results.jsonl:2 has no seal"),
    ] {
        rewrite(&path, &edited);
        let (decision, said) = said(&path);
        assert_eq!(decision, Outcome::Inconclusive, "{said}");
        assert!(said.contains(reason), "{said}");
    }
    rewrite(&path, &honest);
    let run = fs::read_to_string(path.join("run.json")).unwrap();
    fs::write(
        path.join("run.json"),
        run.replace("2026-01-01", "2026-01-02"),
    )
    .unwrap();
    let (decision, said) = said(&path);
    assert_eq!(decision, Outcome::Inconclusive);
    assert!(said.contains("run.json was changed"), "{said}");
}

#[test]
fn a_damaged_line_is_a_doubt_and_keeps_no_other_line_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    written(&path, 2, &rows(2));
    let file = path.join("results.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let (first, second) = text.split_once('\n').unwrap();
    for (damaged, line) in [
        (format!("{first}\nnonsense\n{second}"), 2),
        (format!("{first}\n\n{second}"), 2),
        (format!("{first}\n\0\0\0\0\n{second}"), 2),
        (format!("{first}\n{second}garbage\n"), 3),
        (format!("{first}\n{second}[1]\n"), 3),
    ] {
        fs::write(&file, damaged).unwrap();
        let decision = gate(&path).unwrap();
        assert_eq!(decision.decision, Outcome::Inconclusive);
        assert_eq!(decision.exit_code(), 3);
        assert_eq!(decision.failures, 0, "both rows are there: {decision:?}");
        let [note] = decision.notes.as_slice() else {
            panic!("one doubt per line: {decision:?}");
        };
        let place = format!("results.jsonl:{line} is not a row");
        assert!(note.starts_with(&place), "{note}");
    }
    fs::write(&file, [0xff, 0, b'\n']).unwrap();
    assert_eq!(gate(&path).unwrap().failures, 2);
}
