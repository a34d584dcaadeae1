//! What a person reads.

use std::fs;

use model::anomaly::Anomaly;
use model::crew::{ClockOffset, NodeRecord, Reach, When};
use model::defect::Defect;
use model::shard::ProbeTally;
use model::trial::Trial;
use results::{RunFolder, explain, judge, table};

use crate::builder::{clean_row, example, plan, record, row, trial};

fn summary(planned: u32, rows: &[results::Row]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut run = RunFolder::create(folder.path(), &record(planned)).unwrap();
    for row in rows {
        run.keep_plan(&plan(), row.trial).unwrap();
        run.append(row).unwrap();
    }
    run.finish().unwrap();
    fs::read_to_string(folder.path().join("SUMMARY.md")).unwrap()
}

#[test]
fn the_summary_of_a_go_says_so_first_and_what_it_rests_on() {
    let text = summary(1, &[clean_row()]);
    assert!(
        text.starts_with("# Decision: GO\n\nFailures: 0\n"),
        "{text}"
    );
    for expected in [
        "| partition | khala | 1 | 120/120 | 3.59 s / 5s | 1.29 s | 1.59 s / 8s | 1.59 s / 10s |",
        "1 of 1 passed: with 95 % confidence at least 5 % of such trials",
        "Profile `embedded`, scaled down",
        "heartbeat 20s",
        "Fidelity `proxy`",
        "None was found.",
        "| f1-hold | 100% | proxy | 5.000 s (+700 µs) | 10.000 s (+700 µs) | 120 | connections_held 120 |",
        "| expired-token | token_expired | 9 | 3 | token_expired 9 |",
        "24000/24000",
        "| partition | khala | 1 | 200 | 200 | 0 | - | 0 | 0 |",
        "`faultlane gate DIR`",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert!(!text.contains("## Not passed"));
}

#[test]
fn every_table_line_has_as_many_cells_as_its_head() {
    let spoilt = row(|_, trial| {
        trial.shards[1]
            .findings
            .note(Anomaly::Leak, example("a | b\nc"));
        trial.faults[0].error = Some("one|two".to_owned());
    });
    let text = summary(2, &[spoilt]);
    let mut width = None;
    for line in text.lines() {
        if !line.starts_with('|') {
            width = None;
            continue;
        }
        let cells = line.replace("\\|", "").matches('|').count();
        assert_eq!(*width.get_or_insert(cells), cells, "{line}");
    }
}

#[test]
fn the_summary_of_a_failure_names_it_with_examples() {
    let mut planted = plan();
    planted.defect = Some(Defect::DeliverAfterExpiry);
    let mut trial = trial();
    let findings = &mut trial.shards[1].findings;
    findings.note(Anomaly::Leak, example("published 2 s after exp"));
    findings.note(Anomaly::Leak, example("published 3 s after exp"));
    let row = judge(
        &planted,
        &trial,
        1,
        "logs/x/conductor.log",
        Some("harness lag".to_owned()),
    );
    let text = summary(2, &[row]);
    assert!(
        text.starts_with("# Decision: NO-GO\n\nFailures: 2\n"),
        "{text}"
    );
    for expected in [
        "leak: 2, such as c0007 runtime.run.1.events seq 41: published 2 s after exp",
        "published 3 s after exp",
        "absent: the run ended before this row was written",
        "0 of 2 passed: not all within bounds",
        "the defect `deliver-after-expiry` was planted; it must be called `leak`",
        "repeated once; the first execution was discarded: harness lag",
        "see logs/x/conductor.log",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn the_terminal_s_table_is_aligned() {
    let failed = row(|_, trial| trial.shards[1].findings.note(Anomaly::Leak, example("x")));
    let text = table(&[clean_row(), failed.clone()]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    let column = lines[0].find("status").unwrap();
    assert!(
        lines[1][column..].starts_with("passed") && lines[2][column..].starts_with("failed"),
        "{text}"
    );
    assert!(
        lines[2].ends_with("leak 1") && lines[1].ends_with("none"),
        "{text}"
    );
    assert_eq!(explain(&clean_row()), "partition-khala-1: passed\n");
    let why = explain(&failed);
    assert!(
        why.contains("leak: 1, such as c0007") && why.ends_with("conductor.log\n"),
        "{why}"
    );
}

#[test]
fn probes_that_were_answered_as_expected_share_a_line_and_the_others_have_their_own() {
    let many = row(|_, trial| {
        let probes = &mut trial.shards[0].probes;
        let expected = probes[0].clone();
        probes.push(expected.clone());
        probes.push(ProbeTally {
            probe: "alg-none/append".to_owned(),
            answers: [("accepted".to_owned(), 2)].into(),
            met: 0,
            ..expected
        });
        probes[1].probe = "expired/resume".to_owned();
    });
    let text = summary(1, &[many]);
    assert!(
        text.contains("| 2 probes | as each has to be | 18 | 6 |"),
        "{text}"
    );
    assert!(
        text.contains("| alg-none/append | token_expired | 0 | 3 | accepted 2 |"),
        "{text}"
    );
    assert!(!text.contains("| expired/resume |"), "{text}");
}

#[test]
fn agents_and_who_heard_whom_are_shown_where_there_are_any() {
    let mut trial = trial();
    let shown = |trial: &Trial| summary(1, &[judge(&plan(), trial, 1, "logs/x", None)]);
    let alone = shown(&trial);
    assert!(
        !alone.contains("## Agents") && !alone.contains("## Who heard whom"),
        "{alone}"
    );
    let offset = ClockOffset {
        mono_us: 5,
        wall_us: -1_250,
        within_us: 80,
    };
    trial.nodes = vec![NodeRecord {
        name: "n1".to_owned(),
        protocol: 1,
        same_kernel: false,
        runs: [].into(),
        before: offset,
        after: None,
    }];
    let way = |from: &str, to: &str, phase, received| Reach {
        from: from.to_owned(),
        to: to.to_owned(),
        phase,
        sent: 10,
        received,
    };
    trial.faults[0].reach = vec![
        way("n1", "n2", When::Before, 10),
        way("n1", "n2", When::During, 0),
        way("n2", "n1", When::During, 10),
    ];
    let shown = shown(&trial);
    assert!(
        shown.contains("| n1 | - | its own | -1.250 ± 0.080 ms | - |"),
        "{shown}"
    );
    assert!(
        shown.contains("| f1-hold | n1 | n2 | 10/10 | 0/10 | - |"),
        "{shown}"
    );
    assert!(!shown.contains("| n2 | n1 |"), "{shown}");
}
