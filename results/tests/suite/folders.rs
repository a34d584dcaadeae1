//! Run folders: written once, judged anew at any time, never a go when something is missing or altered.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use model::criteria::{Criteria, Phase};
use model::ids::Lane;
use model::quantity::Span;
use results::{Decision, FolderError, GateError, Outcome, Row, RunFolder, Status, gate, judge};
use serde_json::Value;

use crate::builder::{plan, record, trial};

pub(crate) fn rows(trials: u32) -> Vec<Row> {
    (1..=trials)
        .map(|number| judge(&plan(), &trial(), number, "logs/x/conductor.log", None))
        .collect()
}

pub(crate) fn written(path: &Path, planned: u32, rows: &[Row]) -> Decision {
    let mut folder = RunFolder::create(path, &record(planned)).unwrap();
    for row in rows {
        folder.keep_plan(&plan(), row.trial).unwrap();
        folder.append(row).unwrap();
    }
    folder.finish().unwrap()
}

pub(crate) fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path.join("results.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn rewrite(path: &Path, lines: &[Value]) {
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(path.join("results.jsonl"), text.join("\n") + "\n").unwrap();
}

#[test]
fn a_run_whose_rows_all_passed_is_a_go_and_gate_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let decision = written(&path, 3, &rows(3));
    assert_eq!(
        (decision.decision, decision.failures),
        (Outcome::Go, 0),
        "{decision:?}"
    );
    assert_eq!(decision.exit_code(), 0);
    assert_eq!(gate(&path).unwrap(), decision);

    for line in lines(&path) {
        assert_eq!(line["scenario"], "partition");
        assert_eq!(line["status"], "passed");
        assert!((line["duration_seconds"].as_f64().unwrap() - 19.5).abs() < 1e-6);
        assert_eq!(line["log_file"], "logs/x/conductor.log");
        assert_eq!(line["run"], "r-20260101");
        assert_eq!(line["started"], "2026-09-21T14:13:20.123Z");
        let text = line["phases"]["recovery"]["histogram"]["v2_deflate_base64"]
            .as_str()
            .unwrap();
        assert!(text.starts_with("HISTF"));
    }
    let run = fs::read_to_string(path.join("run.json")).unwrap();
    assert!(!run.contains("hush"), "{run}");
}

#[test]
fn a_failed_row_is_a_no_go_and_an_inconclusive_one_leaves_the_run_open() {
    for (spoil, outcome, code) in [
        (Status::Failed, Outcome::NoGo, 1),
        (Status::Inconclusive, Outcome::Inconclusive, 3),
        (Status::Error, Outcome::Inconclusive, 3),
    ] {
        let (mut plan, mut trial) = (plan(), trial());
        match spoil {
            Status::Failed => plan.criteria.steady = Some(Span::from_secs(1)),
            Status::Error => trial.faults[0].error = Some("refused".to_owned()),
            _ => trial.residue = None,
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let mut run = RunFolder::create(&path, &record(2)).unwrap();
        run.append(&rows(1)[0]).unwrap();
        run.append(&judge(&plan, &trial, 2, "logs/x", None))
            .unwrap();
        let decision = run.finish().unwrap();
        assert_eq!(
            (decision.decision, decision.failures),
            (outcome, 1),
            "{decision:?}"
        );
        assert_eq!(decision.exit_code(), code);
        assert_eq!(decision.rows[1].status, spoil);
        assert_eq!(gate(&path).unwrap(), decision);
    }
}

#[test]
fn cut_at_any_byte_it_is_inconclusive_and_never_a_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    written(&path, 2, &rows(2));
    let rows_file = path.join("results.jsonl");
    let whole = fs::read(&rows_file).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    // The first row is whole or not; inside the second every byte is tried near its ends, and a sample between.
    let cuts = (0..whole.len()).filter(|cut| {
        cut % 997 == 0 || cut.abs_diff(first) < 20 || whole.len() - cut < 20 || *cut < 10
    });
    for cut in cuts {
        fs::write(&rows_file, &whole[..cut]).unwrap();
        let decision = gate(&path).unwrap();
        assert_eq!(decision.decision, Outcome::Inconclusive, "cut at {cut}");
        assert_eq!(
            decision.failures,
            if cut < first { 2 } else { 1 },
            "cut at {cut}"
        );
        let torn = cut != 0 && cut != first;
        assert_eq!(
            decision.notes.iter().any(|note| note.contains("torn")),
            torn,
            "cut at {cut}"
        );
        assert!(decision.rows[1].reason.contains("absent"));
    }
    fs::remove_file(&rows_file).unwrap();
    assert_eq!(gate(&path).unwrap().decision, Outcome::Inconclusive);
}

type Change = dyn Fn(&mut Value);

#[test]
fn a_row_that_is_not_what_its_evidence_says_is_tampered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let failed = {
        let mut plan = plan();
        plan.criteria.bounds.get_mut(&Phase::Recovery).unwrap().p99 = Some(Span::from_millis(1));
        judge(&plan, &trial(), 1, "logs/x", None)
    };
    let mut run = RunFolder::create(&path, &record(1)).unwrap();
    run.append(&failed).unwrap();
    run.finish().unwrap();
    let honest = lines(&path).remove(0);

    let tamper = |change: &Change| {
        let mut line = honest.clone();
        change(&mut line);
        rewrite(&path, &[line]);
        let decision = gate(&path).unwrap();
        (decision.decision, decision.rows[0].reason.clone())
    };
    let cases: [(&Change, &str); 7] = [
        (&|line| line["status"] = "passed".into(), "status"),
        (
            &|line| line["verdict"]["reason"] = "all is well".into(),
            "verdict.reason",
        ),
        (
            &|line| line["phases"]["recovery"]["p99_us"] = 5.into(),
            "phases.recovery.p99_us is 5, recomputed",
        ),
        (
            &|line| line["phases"]["recovery"]["within_bound"] = true.into(),
            "within_bound",
        ),
        (
            &|line| line["phases"]["recovery"]["count"] = 3.into(),
            "phases.recovery.count",
        ),
        (
            &|line| line["anomalies"]["lost"]["count"] = 3.into(),
            "anomalies.lost",
        ),
        (&|line| line["run"] = "another".into(), "of run `another`"),
    ];
    for (change, reason) in cases {
        let (decision, said) = tamper(change);
        assert_eq!(decision, Outcome::NoGo, "{said}");
        assert!(
            said.starts_with("tampered") && said.contains(reason),
            "{said}"
        );
    }
    // Another histogram in the place of the recorded one.
    let (_, said) = tamper(&|line| {
        let other = line["phases"]["resume"]["histogram"].clone();
        line["phases"]["recovery"]["histogram"] = other;
    });
    assert!(said.contains("phases.recovery"), "{said}");
}

#[test]
fn criteria_other_than_the_plan_s_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut softer = plan();
    softer.criteria = Criteria {
        steady: None,
        ..softer.criteria
    };
    let mut run = RunFolder::create(&path, &record(1)).unwrap();
    run.keep_plan(&plan(), 1).unwrap();
    run.append(&judge(&softer, &trial(), 1, "logs/x", None))
        .unwrap();
    let decision = run.finish().unwrap();
    assert_eq!(decision.decision, Outcome::NoGo);
    assert!(decision.rows[0].reason.contains("criteria"), "{decision:?}");
}

#[test]
fn a_fault_that_other_agents_did_than_the_plan_says_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut run = RunFolder::create(&path, &record(1)).unwrap();
    run.keep_plan(&plan(), 1).unwrap();
    let mut by_another = trial();
    by_another.faults[0].nodes = vec!["n3".to_owned()];
    run.append(&judge(&plan(), &by_another, 1, "logs/x", None))
        .unwrap();
    let decision = run.finish().unwrap();
    assert_eq!(decision.decision, Outcome::NoGo);
    assert!(
        decision.rows[0]
            .reason
            .contains("f1-hold is not that of its plan"),
        "{decision:?}"
    );
}

#[test]
fn a_plan_that_was_softened_with_its_row_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut softer = plan();
    softer.criteria.steady = None;
    let mut run = RunFolder::create(&path, &record(1)).unwrap();
    run.keep_plan(&softer, 1).unwrap();
    run.append(&judge(&softer, &trial(), 1, "logs/x", None))
        .unwrap();
    let decision = run.finish().unwrap();
    assert_eq!(decision.decision, Outcome::NoGo);
    assert!(decision.rows[0].reason.contains("digest"), "{decision:?}");
}

#[test]
fn a_row_whose_plan_is_gone_is_no_go_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    assert_eq!(written(&path, 1, &rows(1)).decision, Outcome::Go);
    let kept = path.join("plans/partition-khala-1.json");
    for spoil in [
        |file: &Path| fs::write(file, "{").unwrap(),
        |file: &Path| fs::remove_file(file).unwrap(),
    ] {
        spoil(&kept);
        let decision = gate(&path).unwrap();
        assert_eq!(decision.decision, Outcome::Inconclusive);
        assert!(
            decision.notes[0].contains("plans/partition-khala-1.json cannot be read"),
            "{decision:?}"
        );
    }
}

#[test]
fn a_row_is_handed_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = RunFolder::create(folder.path(), &record(1)).unwrap();
    let row = run.append(&rows(1)[0]).unwrap();
    let line = lines(folder.path()).remove(0);
    assert_eq!(serde_json::to_value(&row).unwrap(), line);
    assert_eq!(row.run, "r-20260101");
}

#[test]
fn rows_that_are_double_unplanned_or_of_another_plan_are_named_and_prevent_a_go() {
    let doubled = tempfile::tempdir().unwrap();
    let row = rows(1).remove(0);
    let decision = written(&doubled.path().join("run"), 1, &[row.clone(), row.clone()]);
    assert_eq!(decision.decision, Outcome::Inconclusive);
    assert!(
        decision.rows[0].reason.contains("written 2 times"),
        "{decision:?}"
    );

    let unplanned = tempfile::tempdir().unwrap();
    let decision = written(&unplanned.path().join("run"), 1, &rows(2));
    assert_eq!(
        (decision.decision, decision.failures),
        (Outcome::Inconclusive, 0)
    );
    assert!(
        decision.notes[0].contains("partition-khala-2 was not planned"),
        "{decision:?}"
    );

    let other = tempfile::tempdir().unwrap();
    let path = other.path().join("run");
    let mut record = record(1);
    record.rows[0].plan_digest = "sha256:ff".to_owned();
    let mut run = RunFolder::create(&path, &record).unwrap();
    run.append(&row).unwrap();
    let decision = run.finish().unwrap();
    assert_eq!(decision.decision, Outcome::Inconclusive);
    assert!(
        decision.rows[0].reason.contains("planned was sha256:ff"),
        "{decision:?}"
    );
}

#[test]
fn lines_that_are_no_rows_prevent_a_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    written(&path, 1, &rows(1));
    let mut all = lines(&path);
    all.push(serde_json::json!({"scenario": "partition", "schema_version": 1}));
    rewrite(&path, &all);
    let decision = gate(&path).unwrap();
    assert_eq!(decision.decision, Outcome::Inconclusive);
    assert!(
        decision.notes[0].contains("results.jsonl:2 is not a row"),
        "{decision:?}"
    );

    all[1] = serde_json::json!({"schema_version": 99});
    rewrite(&path, &all);
    assert!(matches!(
        gate(&path),
        Err(GateError::Version { found: 99, .. })
    ));
}

#[test]
fn evidence_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), 1, &rows(1));
    let again = RunFolder::create(folder.path(), &record(1)).unwrap_err();
    assert!(matches!(again, FolderError::Taken(_)), "{again}");
    assert_eq!(gate(folder.path()).unwrap().decision, Outcome::Go);
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(gate(empty.path()), Err(GateError::NoRun(_))));
    let mut outside = record(1);
    outside.rows[0].scenario = "../elsewhere".to_owned();
    assert!(matches!(
        RunFolder::create(empty.path(), &outside),
        Err(FolderError::Name(_))
    ));
}

#[test]
fn of_runs_that_begin_at_once_one_gets_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::thread::scope(|scope| {
        let begin = || RunFolder::create(folder.path(), &record(1)).is_ok();
        let runs: Vec<_> = (0..16).map(|_| scope.spawn(begin)).collect();
        runs.into_iter()
            .map(|run| run.join().unwrap())
            .filter(|made| *made)
            .count()
    });
    assert_eq!(made, 1);
}

#[test]
fn log_folders_are_made_inside() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path(), &record(1)).unwrap();
    let logs = run.log_dir("restart", Lane::Spacetime, 2).unwrap();
    assert!(logs.is_dir());
    assert_eq!(logs, folder.path().join("logs/restart-spacetime-2"));
    assert_eq!(
        RunFolder::log_path("restart", Lane::Spacetime, 2),
        "logs/restart-spacetime-2"
    );
}

#[test]
fn the_sidecar_is_an_interval_log_that_a_standard_reader_takes() {
    let folder = tempfile::tempdir().unwrap();
    let row = rows(1).remove(0);
    written(folder.path(), 1, std::slice::from_ref(&row));
    let text = fs::read_to_string(folder.path().join("histograms/partition-khala-1.hlog")).unwrap();
    assert!(
        text.starts_with("#[Histogram log format version 1.3]\n#[StartTime: 1790000000.123 "),
        "{text}"
    );
    let entries: Vec<_> = IntervalLogIterator::new(text.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(
        matches!(entries[0], LogEntry::StartTime(_)) && matches!(entries[1], LogEntry::BaseTime(_))
    );
    let mut tags = Vec::new();
    let mut last = std::time::Duration::ZERO;
    for entry in &entries[2..] {
        let LogEntry::Interval(interval) = entry else {
            panic!("{entry:?}");
        };
        assert!(interval.start_timestamp() >= last, "in order");
        last = interval.start_timestamp();
        let tag = interval.tag().unwrap().as_str().to_owned();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(interval.encoded_histogram())
            .unwrap();
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .unwrap();
        if tag == "recovery.recovery.f1-hold" {
            assert_eq!(read.len(), row.phases[&Phase::Recovery].count);
            assert_eq!(Some(read.max()), row.phases[&Phase::Recovery].max_us);
            assert_eq!(last.as_secs(), 10, "from the heal");
        }
        tags.push(tag);
    }
    assert_eq!(tags.len(), 6 + 6 + 2, "{tags:?}");
    assert!(
        tags.contains(&"delivery.during.f1-hold".to_owned()),
        "{tags:?}"
    );
}

#[test]
fn a_folder_with_something_else_in_it_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("SUMMARY.md");
    fs::write(&foreign, "mine").unwrap();
    let error = RunFolder::create(folder.path(), &record(1)).unwrap_err();
    assert!(matches!(error, FolderError::NotEmpty { .. }), "{error}");
    assert!(error.to_string().contains("`SUMMARY.md`"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "mine");

    fs::remove_file(&foreign).unwrap();
    fs::create_dir(folder.path().join("logs")).unwrap();
    assert!(RunFolder::create(folder.path(), &record(1)).is_ok());
}

#[test]
fn a_row_is_there_though_its_histograms_cannot_be_written_and_nothing_half_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = RunFolder::create(folder.path(), &record(1)).unwrap();
    // Nothing can be renamed to a folder that is not empty.
    let taken = |name: &str| fs::create_dir_all(folder.path().join(name).join("inside")).unwrap();
    taken("histograms/partition-khala-1.hlog");
    taken("SUMMARY.md");
    run.keep_plan(&plan(), 1).unwrap();
    run.append(&rows(1)[0]).unwrap();
    let error = run.finish().unwrap_err().to_string();
    assert!(
        error.contains("partition-khala-1.hlog"),
        "the first: {error}"
    );
    assert_eq!(gate(folder.path()).unwrap().decision, Outcome::Go);
    for half in ["SUMMARY.partial", "histograms/partition-khala-1.partial"] {
        assert!(!folder.path().join(half).exists(), "{half}");
    }
}
