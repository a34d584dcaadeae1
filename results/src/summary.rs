//! `SUMMARY.md`: the decision and what it rests on, for a person.

mod tables;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use model::ids::Lane;
use model::profile::Profile;

use crate::decision::Decision;
use crate::gate::Evidence;
use crate::open_world::OpenWorld;
use crate::record::{Row, Status};
use crate::statistics::coverage;
use crate::terminal::explain;

/// The text.
pub(crate) fn render(evidence: &Evidence, decision: &Decision) -> String {
    let mut out = String::new();
    head(&mut out, evidence, decision);
    rows(&mut out, decision);
    not_passed(&mut out, evidence);
    waivers(&mut out, decision);
    statistics(&mut out, decision);
    if !evidence.rows.is_empty() {
        let refs: Vec<&Row> = evidence.rows.iter().collect();
        tables::all(&mut out, &refs);
    }
    remarks(&mut out, evidence);
    recompute(&mut out, evidence);
    out
}

fn head(out: &mut String, evidence: &Evidence, decision: &Decision) {
    let record = &evidence.record;
    let _ = writeln!(out, "# Decision: {}\n", decision.decision);
    let _ = writeln!(out, "Failures: {}\n", decision.failures);
    let _ = writeln!(
        out,
        "Run `{}`, begun {}, faultlane {}, seed {}; {} rows planned, {} written.",
        record.run,
        record.started,
        record.version,
        record.seed,
        record.rows.len(),
        evidence.rows.len()
    );
    for note in &decision.notes {
        let _ = writeln!(out, "\n> Note: {note}.");
    }
}

fn rows(out: &mut String, decision: &Decision) {
    let cells = decision.rows.iter().map(|row| {
        vec![
            row.scenario.clone(),
            row.lane.to_string(),
            row.trial.to_string(),
            row.status.to_string(),
            row.reason.clone(),
        ]
    });
    let _ = writeln!(out, "\n## Rows\n");
    tables::table(
        out,
        &["scenario", "lane", "trial", "status", "reason"],
        cells,
    );
}

fn not_passed(out: &mut String, evidence: &Evidence) {
    let mut rows = evidence
        .rows
        .iter()
        .filter(|row| row.status != Status::Passed)
        .peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "\n## Not passed\n\n```text");
    for row in rows {
        out.push_str(&explain(row).replace("```", "'''"));
    }
    out.push_str("```\n");
}

fn waivers(out: &mut String, decision: &Decision) {
    if decision.waivers.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n## Waivers\n\n\
         What somebody answers for does not fail a trial; it is counted and shown all the same. An expired waiver makes \
         the decision no-go, used or not.\n"
    );
    let cells = decision.waivers.iter().map(|used| {
        let waiver = &used.waiver;
        vec![
            waiver.anomaly.to_string(),
            waiver.scope.to_string(),
            waiver.owner.clone(),
            waiver.expires.to_string(),
            waiver.reason.clone(),
            used.state.to_string(),
            used.found.to_string(),
            used.trials.to_string(),
        ]
    });
    let head = [
        "anomaly",
        "scope",
        "owner",
        "until",
        "reason",
        "state",
        "found",
        "in trials",
    ];
    tables::table(out, &head, cells);
}

fn statistics(out: &mut String, decision: &Decision) {
    let mut trials: BTreeMap<(&str, Lane), (u32, u32)> = BTreeMap::new();
    for row in &decision.rows {
        let (passed, all) = trials.entry((&row.scenario, row.lane)).or_default();
        *passed += u32::from(row.status == Status::Passed);
        *all += 1;
    }
    let mut alike: BTreeMap<(u32, u32), Vec<String>> = BTreeMap::new();
    for ((scenario, lane), counts) in trials {
        alike
            .entry(counts)
            .or_default()
            .push(format!("{scenario} on {lane}"));
    }
    let _ = writeln!(
        out,
        "\n## What the number of trials says\n\n\
         The trial is the unit: the clients of one trial share a fate. n trials all within bounds say, with 95 % \
         confidence, that at least 0.05^(1/n) of trials are.\n"
    );
    for ((passed, all), names) in alike {
        let claim = if passed == all {
            format!(
                "with 95 % confidence at least {:.0} % of such trials are within bounds",
                coverage(all) * 100.0
            )
        } else {
            "not all within bounds, so nothing is claimed".to_owned()
        };
        let _ = writeln!(
            out,
            "- {passed} of {all} passed: {claim} ({}).",
            names.join(", ")
        );
    }
}

fn remarks(out: &mut String, evidence: &Evidence) {
    let mut profiles: Vec<&Profile> = Vec::new();
    for row in &evidence.rows {
        if !profiles.contains(&&row.profile) {
            profiles.push(&row.profile);
        }
    }
    let _ = writeln!(out, "\n## To know when reading this\n");
    for profile in profiles {
        let _ = writeln!(out, "- {}", clocks(profile));
    }
    let fidelities: Vec<&str> = ["proxy", "process", "kernel", "machine", "clock", "token"]
        .into_iter()
        .filter(|kind| {
            evidence
                .rows
                .iter()
                .any(|row| row.fidelity.split('+').any(|part| part == *kind))
        })
        .collect();
    for kind in fidelities {
        let _ = writeln!(
            out,
            "- Fidelity `{kind}`: {}",
            match kind {
                "proxy" =>
                    "the fault is made by a user-space proxy: peers keep getting ACKs, and a partition holds bytes \
                     instead of losing them.",
                "process" => "the fault is a real signal to a real process.",
                "kernel" =>
                    "the fault is made in the node's own kernel: packets are lost, connections are ended, as they would be.",
                "machine" =>
                    "what the machine has to give is really taken up, and a reserve is always left: nothing runs out \
                     altogether.",
                "clock" =>
                    "the token service issues by another time; no other process sees it, and the machine's clock is right.",
                _ =>
                    "tokens are real and their expiry is enforced; that they expire together is arranged.",
            }
        );
    }
    for row in &evidence.rows {
        if let Some(defect) = row.defect {
            let _ = writeln!(
                out,
                "- {}: the defect `{defect}` was planted; it must be called `{}`.",
                row.name(),
                defect.anomaly()
            );
        }
        if let Some(why) = &row.repeated {
            let _ = writeln!(
                out,
                "- {}: repeated once; the first execution was discarded: {why}.",
                row.name()
            );
        }
        for remark in row.open_world.iter().flat_map(OpenWorld::remarks) {
            let _ = writeln!(out, "- {}: {remark}.", row.name());
        }
        for foreign in row.residue.iter().flat_map(|residue| &residue.foreign) {
            let _ = writeln!(
                out,
                "- {}: changed by somebody else meanwhile: {foreign}.",
                row.name()
            );
        }
    }
    let _ = writeln!(
        out,
        "- `n/e`: not estimable, fewer than 1/(1−q) samples. `never`: among the clients that did not recover. `-`: \
         no samples, or no bound. A bound on a quantile that is not estimable is held against the largest sample."
    );
}

/// The clocks, and how they stand to the field's.
fn clocks(profile: &Profile) -> String {
    let list = |profile: &Profile| {
        format!(
            "heartbeat {}, read-idle {}, backoff cap {}, token TTL {}, skew {}",
            profile.heartbeat,
            profile.read_idle,
            profile.backoff_cap,
            profile.token_ttl,
            profile.token_skew
        )
    };
    let field = Profile::field();
    let clocks = list(profile);
    if clocks == list(&field) {
        format!(
            "Profile `{}`, the field's own numbers: {clocks}.",
            profile.name
        )
    } else {
        format!(
            "Profile `{}`, scaled down so that a drill ends in minutes: {clocks}. The field's numbers are: {}. \
             Recovery figures hold for the scaled clocks only.",
            profile.name,
            list(&field)
        )
    }
}

fn recompute(out: &mut String, evidence: &Evidence) {
    let _ = writeln!(
        out,
        "\n## How to check this\n\n\
         `faultlane gate DIR` on this folder decodes the histograms of `results.jsonl`, recomputes every figure and \
         every verdict, and compares them with what is written. `run.json` names the {} rows that have to be there; \
         `plans/` holds what was run; `histograms/` holds the same histograms for HdrHistogram's tools; `logs/` the \
         logs.",
        evidence.record.rows.len()
    );
}
