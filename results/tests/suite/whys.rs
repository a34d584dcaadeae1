//! One client's story, out of a folder; also out of one that somebody has been at.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use model::anomaly::{Anomaly, Example, Findings};
use model::ids::{ClientId, Lane};
use model::instant::Mono;
use model::moment::{ClientRecord, Moment, What};
use model::shard::CensoredClient;
use results::{Question, Row, RunFolder, Why, WhyError, explain, gate, why};

use crate::builder::{STREAM, clean_row, example, plan, record, row};

const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjMDA0MiJ9.c2lnbmF0dXJl";

/// The fault is at 1,005 s, the heal at 1,010 s.
fn at(millis: u64) -> Mono {
    Mono(1_000_000_000 + millis * 1_000)
}

fn client(id: u32) -> ClientRecord {
    let mut findings = Findings::default();
    findings.note(
        Anomaly::Gap,
        Example {
            client: Some(ClientId(id)),
            ..example("applied after 40; seq 41 never came")
        },
    );
    let moment = |millis, what| Moment {
        at: at(millis),
        what,
    };
    ClientRecord {
        client: ClientId(id),
        unfinished: Some("Backoff; runtime.run.1.events at 40 of 100".to_owned()),
        findings,
        streams: vec![STREAM.to_owned()],
        forgotten: 12,
        moments: vec![
            moment(
                4_000,
                What::Rows {
                    stream: 0,
                    framing: 0,
                    replay: false,
                    first: 3,
                    count: 38,
                    lasted_us: 900_000,
                },
            ),
            moment(
                5_250,
                What::Lost {
                    reason: format!("closed\u{1b}[31m by {JWT}").into(),
                },
            ),
            moment(
                11_000,
                What::Found {
                    anomaly: Anomaly::Gap,
                    stream: Some(9),
                    seq: 41,
                    times: 1,
                    lasted_us: 0,
                },
            ),
        ],
    }
}

fn run(path: &Path, rows: &[Row], kept: &[u32]) {
    let mut folder = RunFolder::create(path, &record(2)).unwrap();
    for row in rows {
        folder.keep_plan(&plan(), row.trial).unwrap();
        let clients: Vec<ClientRecord> = kept.iter().map(|id| client(*id)).collect();
        folder
            .keep_clients(&row.scenario, row.lane, row.trial, &clients)
            .unwrap();
        folder.append(row).unwrap();
    }
    folder.finish().unwrap();
}

fn question(client: u32) -> Question {
    Question {
        client: ClientId(client),
        scenario: None,
        lane: None,
        trial: None,
    }
}

fn asked(path: &Path, client: u32) -> Result<Why, WhyError> {
    why(path, &question(client))
}

fn second(row: &Row) -> Row {
    Row {
        trial: 2,
        ..row.clone()
    }
}

#[test]
fn a_story_has_fault_and_heal_among_its_moments_in_order() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &[clean_row()], &[7, 42]);
    let text = asked(folder.path(), 42).unwrap().to_string();
    let expected = [
        "c0042 in partition on khala, trial 1: passed",
        "  gap: 1 found by its shard",
        "applied after 40; seq 41 never came",
        "  not whole in the end: Backoff; runtime.run.1.events at 40 of 100",
        "(12 earlier ones are forgotten)",
        "-1.000  live: runtime.run.1.events seqs 3 to 40 over 900 ms",
        "+0.000  ==== fault f1-hold (in force within 700 µs) ====",
        "+0.250  connection lost: closed\u{fffd}[31m by [redacted]",
        "+5.000  ==== heal f1-hold",
        "+6.000  !! gap: stream 9 seq 41",
    ];
    let mut rest = text.as_str();
    for line in expected {
        let found = rest.find(line).unwrap_or_else(|| panic!("{line}\n{text}"));
        rest = &rest[found + line.len()..];
    }
    let kept = fs::read_to_string(folder.path().join("clients/partition-khala-1.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 2);
    assert!(!kept.contains("c2lnbmF0dXJl"), "{kept}");
}

#[test]
fn trials_are_told_in_order_and_can_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let row = clean_row();
    run(folder.path(), &[row.clone(), second(&row)], &[7]);
    let trials = |question: &Question| -> Vec<u32> {
        let why = why(folder.path(), question).unwrap();
        why.trials.iter().map(|story| story.trial).collect()
    };
    assert_eq!(trials(&question(7)), [1, 2]);
    let chosen = Question {
        scenario: Some("partition".to_owned()),
        lane: Some(Lane::Khala),
        trial: Some(2),
        ..question(7)
    };
    assert_eq!(trials(&chosen), [2]);
    let none = Question {
        lane: Some(Lane::Spacetime),
        ..question(7)
    };
    let error = why(folder.path(), &none).unwrap_err().to_string();
    assert_eq!(
        error,
        "the run has no trial on spacetime; it has partition-khala-1, partition-khala-2"
    );
}

#[test]
fn who_is_not_kept_is_told_apart_from_who_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &[clean_row()], &[3, 7, 42, 90]);
    let error = asked(folder.path(), 41).unwrap_err();
    assert!(matches!(error, WhyError::Well { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "c0041 was not kept: it was neither anomalous nor censored in partition-khala-1; kept: c0042, c0007, c0003, \
         c0090"
    );
    let error = asked(folder.path(), 4_000).unwrap_err().to_string();
    assert!(
        error.starts_with("there is no client c4000 in partition-khala-1, partition-khala-2")
            && error.contains("its clients are c0000 to c0119; kept: c0090, c0042"),
        "{error}"
    );
    let nowhere = asked(Path::new("/nowhere/at/all"), 1).unwrap_err();
    assert!(matches!(nowhere, WhyError::Folder(_)), "{nowhere}");
}

#[test]
fn a_client_that_only_the_ledger_accuses_is_told_without_moments() {
    let folder = tempfile::tempdir().unwrap();
    let lost = row(|_, trial| {
        for shard in &mut trial.shards[1..2] {
            for applied in &mut shard.applied {
                applied.indexes = applied
                    .indexes
                    .difference(&model::intervals::IntervalSet::range(40, 40));
            }
        }
    });
    run(folder.path(), std::slice::from_ref(&lost), &[]);
    let text = asked(folder.path(), 0).unwrap().to_string();
    assert!(
        text.contains("lost: found from the trial's evidence")
            && text.contains("index 40 was acknowledged")
            && text.contains("its moments were not kept"),
        "{text}"
    );
    assert!(
        !folder
            .path()
            .join("clients/partition-khala-1.jsonl")
            .exists()
    );
    assert!(
        !explain(&lost).contains("faultlane why"),
        "nobody surely kept, so nobody is pointed to"
    );
}

#[test]
fn an_explanation_points_to_a_client_that_is_kept() {
    let censored = row(|_, trial| {
        trial.shards[1].censored.push(CensoredClient {
            client: ClientId(9),
            detail: "Stopped".to_owned(),
        });
    });
    let text = explain(&censored);
    assert_eq!(
        text.matches("faultlane why DIR --client c0009").count(),
        1,
        "{text}"
    );
}

#[test]
fn a_torn_last_line_is_noted_and_a_bad_one_named() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &[clean_row()], &[7, 42]);
    let file = folder.path().join("clients/partition-khala-1.jsonl");
    let whole = fs::read(&file).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in (first + 1..whole.len()).step_by(17) {
        fs::write(&file, &whole[..cut]).unwrap();
        let why = asked(folder.path(), 7).unwrap();
        assert!(why.notes[0].contains("torn"), "{why:?}");
        assert!(why.to_string().contains("note: the last line of clients/"));
        assert!(asked(folder.path(), 42).is_err());
    }
    let mut append = OpenOptions::new().append(true).open(&file).unwrap();
    append.write_all(b"\n{\"client\":1}\n").unwrap();
    let error = asked(folder.path(), 7).unwrap_err();
    assert!(matches!(error, WhyError::Folder(_)), "{error}");
    assert!(
        error.to_string().contains("partition-khala-1.jsonl:2"),
        "{error}"
    );
}

#[test]
fn numbers_that_nobody_measured_do_not_break_it() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &[clean_row()], &[7]);
    let file = folder.path().join("clients/partition-khala-1.jsonl");
    let huge = serde_json::json!({
        "client": 7, "findings": {}, "streams": [], "forgotten": u64::MAX,
        "moments": [
            {"at_us": u64::MAX, "what": {"rows": {"stream": 65_535, "framing": 255, "replay": true,
             "first": u64::MAX, "count": u32::MAX, "lasted_us": u32::MAX}}},
            {"at_us": 0, "what": {"gap": {"stream": 1, "awaited": u64::MAX, "beyond": u32::MAX}}},
            {"at_us": 0, "what": {"subscribed": {"after": [u64::MAX, 0]}}},
            {"at_us": 0, "what": "live"}
        ]
    });
    fs::write(&file, format!("{huge}\n")).unwrap();
    let text = asked(folder.path(), 7).unwrap().to_string();
    assert!(text.contains("stream 65535"), "{text}");

    let run_file = folder.path().join("run.json");
    let record = fs::read_to_string(&run_file).unwrap();
    let outside = record.replace("\"partition\"", "\"../clients/partition\"");
    fs::write(&run_file, outside).unwrap();
    assert!(matches!(
        asked(folder.path(), 7),
        Err(WhyError::NoClient { .. })
    ));
}

#[test]
fn a_kept_client_changes_nothing_about_the_decision() {
    let folder = tempfile::tempdir().unwrap();
    let row = clean_row();
    run(folder.path(), &[row.clone(), second(&row)], &[7]);
    let before = gate(folder.path()).unwrap();
    fs::remove_dir_all(folder.path().join("clients")).unwrap();
    assert_eq!(gate(folder.path()).unwrap(), before);
}
