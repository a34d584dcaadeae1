//! External probes in rows, verdicts and summaries.

use std::fs;

use model::external::{ExternalProbe, ProbeRule};
use model::quantity::Span;
use model::trial::Abort;
use results::{Row, RunFolder, Status};
use scenarios::plan::{Ask, CommandAsk, Plan, Probe, Rule};

use crate::builder::{clean_row, plan, record, row};

fn planned(rule: Rule) -> Probe {
    Probe {
        name: "queue".to_owned(),
        ask: Ask::Command(CommandAsk {
            run: "queue-depth".to_owned(),
            contains: None,
        }),
        every: Span::from_secs(1),
        within: Span::from_secs(1),
        rule,
    }
}

fn told(rule: ProbeRule, good: u64, failed: u64) -> ExternalProbe {
    ExternalProbe {
        name: "queue".to_owned(),
        rule,
        ask: "command queue-depth".to_owned(),
        wanted: "exit 0".to_owned(),
        asked: good + failed,
        good,
        failed,
        last_failure: (failed > 0)
            .then(|| "exit 3, token=hush; of stderr: it is `a | b`".to_owned()),
        longest_failing_us: failed * 1_000_000,
        breached: false,
    }
}

fn watched(plan: &mut Plan) {
    plan.probes = vec![planned(Rule::Steady)];
    plan.digest = plan.computed_digest();
}

#[test]
fn a_probe_that_failed_meanwhile_fails_no_trial_by_itself() {
    let row = row(|plan, trial| {
        watched(plan);
        trial.external = vec![told(ProbeRule::Steady, 20, 4)];
    });
    assert_eq!(row.status, Status::Passed, "{:?}", row.verdict);
    assert_eq!(row.external[0].failed, 4);
    let why = row.external[0].last_failure.as_deref().unwrap();
    assert!(!why.contains("hush"), "{why}");
}

#[test]
fn a_probe_of_which_nothing_is_known_makes_a_trial_inconclusive() {
    for external in [
        Vec::new(),
        vec![told(ProbeRule::Steady, 0, 0)],
        vec![told(ProbeRule::Abort, 5, 0)],
    ] {
        let row = row(|plan, trial| {
            watched(plan);
            trial.external = external.clone();
        });
        assert_eq!(row.status, Status::Inconclusive, "{external:?}");
        let reason = "missing: what the external probe `queue` was told";
        assert_eq!(row.verdict.reason, reason);
    }
}

/// A trial that such a probe ended before its fault had hit anybody.
fn ended_early(rule: ProbeRule) -> Row {
    row(|_, trial| {
        trial.abort = Some(Abort::Limit("probe `queue` failed for 5s".to_owned()));
        for fault in &mut trial.faults {
            fault.view = None;
        }
        for shard in &mut trial.shards {
            shard.affected = 0;
        }
        trial.external = vec![ExternalProbe {
            breached: true,
            ..told(rule, 3, 6)
        }];
    })
}

#[test]
fn a_limit_that_has_to_hold_at_any_time_does_not_ask_whom_the_faults_affected() {
    let row = ended_early(ProbeRule::AbortAlways);
    assert_eq!(row.status, Status::Failed, "{:?}", row.verdict);
    assert_eq!(row.verdict.reason, "aborted: probe `queue` failed for 5s");
    // One that counts after the last heal only says nothing of a fault that hit nobody.
    let row = ended_early(ProbeRule::Abort);
    assert_eq!(row.status, Status::Inconclusive, "{:?}", row.verdict);
}

#[test]
fn a_row_without_external_probes_is_written_as_before_and_read_as_before() {
    let text = serde_json::to_string(&clean_row()).unwrap();
    assert!(!text.contains("\"external\""));
    let read: Row = serde_json::from_str(&text).unwrap();
    assert!(read.external.is_empty());
}

fn summary(external: Vec<ExternalProbe>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut run = RunFolder::create(folder.path(), &record(1)).unwrap();
    run.keep_plan(&plan(), 1).unwrap();
    run.append(&row(|_, trial| trial.external = external))
        .unwrap();
    run.finish().unwrap();
    fs::read_to_string(folder.path().join("SUMMARY.md")).unwrap()
}

#[test]
fn the_summary_has_a_table_where_there_are_probes() {
    let text = summary(vec![
        told(ProbeRule::Steady, 20, 0),
        told(ProbeRule::Abort, 17, 3),
    ]);
    for line in [
        "## External probes",
        "| queue | steady | command queue-depth | exit 0 | 20 | 20 | 0 | - | - |",
        "| queue | abort | command queue-depth | exit 0 | 20 | 17 | 3 | 3.00 s | exit 3, token=[redacted]; of stderr: it is \
         `a \\| b` |",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!summary(Vec::new()).contains("External probes"));
}
