//! A clean plan and a clean trial of it, to be spoilt one thing at a time.

use std::collections::{BTreeMap, BTreeSet};

use model::anomaly::{Anomaly, Example};
use model::criteria::{Bounds, Criteria, Limits, Phase};
use model::event::Origin;
use model::fault::{Fault, FaultView, Hold, Observation};
use model::histogram::Micros;
use model::ids::{ClientId, Lane};
use model::instant::{Bracket, Mono};
use model::intervals::IntervalSet;
use model::profile::Profile;
use model::quantity::{Rate, Share, Span};
use model::role::{LaneStatus, ProxyStatus};
use model::schedule::Schedule;
use model::shard::{
    Applied, Cursors, Delivery, DeliveryPart, FinalRead, Harness, Ledger, PhaseReport, Policy,
    ProbeTally, ShardReport, Storm, StreamLedger, StreamRead,
};
use model::snapshot::{Cover, Snapshot};
use model::target::{Kind, Promise};
use model::trial::{FaultRecord, Residue, Trial};
use results::{PlannedRow, Row, RunRecord, judge};
use scenarios::plan::{Plan, Steady, Step, TargetSettings, Workload};

/// The fleet: shards 1 and 2 have half of it each, shard 0 publishes and probes.
pub(crate) const CLIENTS: u32 = 120;
/// Events per stream: index n is seq n + 1.
pub(crate) const EVENTS: u64 = 100;
pub(crate) const STREAM: &str = "runtime.run.1.events";
pub(crate) const OTHER_STREAM: &str = "runtime.run.2.events";

const STARTED: Mono = Mono(1_000_000_000);

pub(crate) fn plan() -> Plan {
    let bounds = |p99, max| Bounds {
        p99: Some(Span::from_secs(p99)),
        max: Some(Span::from_secs(max)),
        ..Bounds::default()
    };
    let mut plan = Plan {
        scenario: "partition".to_owned(),
        about: "a two-way partition".to_owned(),
        lane: Lane::Khala,
        seed: 7,
        workload: Workload {
            clients: CLIENTS,
            shards: 2,
            streams: vec![STREAM.to_owned(), OTHER_STREAM.to_owned()],
            streams_per_client: 2,
            publish: Rate::per_second(4.0),
            burst: None,
            padding: 16,
            policy: Policy::Spread,
            capacity: None,
            ramp: Span::from_secs(1),
            probe_every: Span::from_secs(1),
        },
        target: TargetSettings {
            kind: Kind::Embedded,
            wire: model::target::Wire::Json,
            promise: Promise::strict(Span::ZERO),
            profile: Profile::embedded(),
            accept_rate: Some(Rate::per_second(50.0)),
            token_rate: None,
            token_burst: 10,
            stream_budgets: BTreeMap::new(),
            limits: None,
        },
        layout: model::crew::Layout::default(),
        steady: Steady {
            window: Span::from_secs(3),
            connected: Share::ratio(0.999),
            delivery_p99: Span::from_millis(250),
            within: Span::from_secs(20),
        },
        steps: vec![Step {
            id: "f1-hold".to_owned(),
            at: Span::from_secs(1),
            lasts: Span::from_secs(5),
            fault: Fault::Hold(Hold {}),
            node: None,
            nodes: Vec::new(),
            share: Share::ALL,
            lease: Span::from_secs(2),
        }],
        probes: Vec::new(),
        abort: None,
        criteria: Criteria {
            affected: Share::ratio(0.9),
            bounds: BTreeMap::from([
                (Phase::Detect, bounds(5, 6)),
                (Phase::Recovery, bounds(8, 10)),
            ]),
            steady: Some(Span::from_secs(15)),
            limits: Limits {
                duplicate_delivery: Share::ratio(0.01),
                over_replay: 5,
                attempts_per_client: Some(4.0),
                peak_arrivals: Some(Rate::per_second(500.0)),
                delivery_p95: Some(Span::from_millis(600)),
                ..Limits::default()
            },
            deadline: Span::from_secs(20),
        },
        digest: String::new(),
        defect: None,
    };
    plan.digest = plan.computed_digest();
    plan
}

pub(crate) fn histogram(count: u64, each: impl Fn(u64) -> Span) -> Micros {
    let mut histogram = Micros::default();
    (0..count).for_each(|n| histogram.record(each(n)));
    histogram
}

fn origin() -> Origin {
    Origin {
        run: "r-20260101".to_owned(),
        seed: 7,
        padding: 16,
    }
}

fn schedule() -> Schedule {
    Schedule {
        first: STARTED,
        rate: Rate::per_second(4.0),
        burst: None,
    }
}

/// A snapshot of [`STREAM`] that holds these events.
pub(crate) fn cover(indexes: impl IntoIterator<Item = u64>) -> Cover {
    let mut snapshot = Snapshot::default();
    for index in indexes {
        let due = schedule().due(index).unwrap();
        snapshot.push(&origin().event(STREAM, index, due).payload_hash);
    }
    Cover {
        watermark: snapshot.count,
        snapshot: Some(snapshot),
    }
}

fn applied(stream: &str, clients: impl Iterator<Item = u32>) -> Applied {
    Applied {
        stream: stream.to_owned(),
        clients: clients.map(ClientId).collect(),
        initial: 0,
        seqs: IntervalSet::range(1, EVENTS),
        indexes: IntervalSet::range(0, EVENTS - 1),
        snapshot: None,
    }
}

fn fleet_shard(ordinal: u32, first: u32) -> ShardReport {
    let count = CLIENTS / 2;
    let clients = first..first + count;
    let phase = |base: u64| PhaseReport {
        histogram: histogram(u64::from(count), |n| Span::from_millis(base + n * 10)),
        censored: 0,
    };
    let delivery = |base: u64| Delivery {
        corrected: histogram(500, |n| Span::from_micros(base + n)),
        uncorrected: histogram(500, |n| Span::from_micros(base / 2 + n)),
    };
    ShardReport {
        shard: ordinal,
        clients: count,
        affected: count,
        phases: BTreeMap::from([
            (Phase::Detect, phase(3_000)),
            (Phase::Reconnect, phase(100)),
            (Phase::Resume, phase(5)),
            (Phase::CatchUp, phase(20)),
            (Phase::Recovery, phase(1_000)),
            (Phase::Outage, phase(6_000)),
        ]),
        delivery: BTreeMap::from([
            (DeliveryPart::Before, delivery(2_000)),
            (DeliveryPart::During, delivery(3_000_000)),
            (DeliveryPart::After, delivery(2_500)),
        ]),
        deliveries: BTreeMap::from([("batch".to_owned(), 12_000), ("frame".to_owned(), 12_000)]),
        seen: BTreeMap::from([
            (STREAM.to_owned(), vec![(1, 0, EVENTS)]),
            (OTHER_STREAM.to_owned(), vec![(1, 0, EVENTS)]),
        ]),
        applied: vec![
            applied(STREAM, clients.clone()),
            applied(OTHER_STREAM, clients),
        ],
        storm: Storm {
            attempts: vec![(10_090, 40), (10_091, 20)],
            attempts_per_client: BTreeMap::from([(1, 50), (2, 10)]),
            wasted: 10,
            retry_after_given: 10,
            retry_after_obeyed: 10,
            replayed: 900,
            missed: 600,
        },
        harness: harness(),
        ..ShardReport::default()
    }
}

fn harness() -> Harness {
    Harness {
        receive_lag: histogram(1_000, |n| Span::from_micros(100 + n)),
        send_lag: Micros::default(),
        busiest: 0.4,
    }
}

pub(crate) fn trial() -> Trial {
    let publisher = ShardReport {
        shard: 0,
        probes: vec![ProbeTally {
            probe: "expired-token".to_owned(),
            expected: "token_expired".to_owned(),
            answers: BTreeMap::from([("token_expired".to_owned(), 9)]),
            met: 9,
            unreachable: 3,
            last_unreachable: Some("connection refused".to_owned()),
        }],
        harness: Harness {
            send_lag: histogram(200, |n| Span::from_micros(50 + n)),
            ..harness()
        },
        ..ShardReport::default()
    };
    let at = |micros: u64| Mono(STARTED.0 + micros);
    let bracket = |asked: u64| Bracket {
        asked: at(asked),
        observed: at(asked + 700),
    };
    let ledger = StreamLedger {
        schedule: Some(schedule()),
        acknowledged_at: Vec::new(),
        invoked: IntervalSet::range(0, EVENTS - 1),
        acknowledged: vec![(1, 0, EVENTS)],
        ..StreamLedger::default()
    };
    let read = StreamRead {
        floor: 0,
        head: EVENTS,
        events: vec![(1, 0, EVENTS)],
        ..StreamRead::default()
    };
    let streams = || [STREAM.to_owned(), OTHER_STREAM.to_owned()].into_iter();
    Trial {
        started: STARTED,
        ended: at(19_500_000),
        started_unix_us: 1_790_000_000_123_456,
        steady: Some(at(4_000_000)),
        time_to_steady: Some(Span::from_millis(2_500)),
        relapses: 0,
        faults: vec![FaultRecord {
            id: "f1-hold".to_owned(),
            fault: Fault::Hold(Hold {}),
            share: Share::ALL,
            view: Some(FaultView {
                id: "f1-hold".to_owned(),
                active: false,
                injected: bracket(5_000_000),
                healed: Some(bracket(10_000_000)),
                lapsed: false,
                observation: Observation {
                    bitten: 120,
                    observed: Some(at(5_000_900)),
                    figures: BTreeMap::from([("connections_held".to_owned(), 120)]),
                },
            }),
            error: None,
            nodes: Vec::new(),
            toothless: Vec::new(),
            reach: Vec::new(),
        }],
        nodes: Vec::new(),
        shards: vec![publisher, fleet_shard(1, 0), fleet_shard(2, CLIENTS / 2)],
        shards_planned: 3,
        cursors: Cursors::new(),
        clean_up: None,
        ledger: Some(Ledger {
            origin: Some(origin()),
            streams: streams().map(|name| (name, ledger.clone())).collect(),
        }),
        final_read: Some(FinalRead {
            streams: streams().map(|name| (name, read.clone())).collect(),
            failed: BTreeMap::new(),
        }),
        lane: Some(LaneStatus::default()),
        proxy: Some(ProxyStatus {
            accepted: 240,
            arrivals: vec![(10_010, 120), (10_090, 40), (10_091, 20), (10_130, 30)],
            ..ProxyStatus::default()
        }),
        residue: Some(Residue::default()),
        external: Vec::new(),
        abort: None,
    }
}

/// The row of a trial that something was done to.
pub(crate) fn row(spoil: impl FnOnce(&mut Plan, &mut Trial)) -> Row {
    let (mut plan, mut trial) = (plan(), trial());
    spoil(&mut plan, &mut trial);
    judge(
        &plan,
        &trial,
        1,
        "logs/partition-khala-1/conductor.log",
        None,
    )
}

pub(crate) fn clean_row() -> Row {
    row(|_, _| {})
}

/// The kinds of anomaly that a row counts, with how many.
pub(crate) fn found(row: &Row) -> BTreeMap<Anomaly, u64> {
    row.anomalies
        .iter()
        .filter_map(|(anomaly, tally)| Some((*anomaly, tally.count.filter(|count| *count > 0)?)))
        .collect()
}

pub(crate) fn kinds(row: &Row) -> BTreeSet<Anomaly> {
    found(row).into_keys().collect()
}

pub(crate) fn example(detail: &str) -> Example {
    Example {
        client: Some(ClientId(7)),
        stream: Some(STREAM.to_owned()),
        seq: Some(41),
        detail: detail.to_owned(),
        at: None,
    }
}

pub(crate) fn ledger(trial: &mut Trial) -> &mut StreamLedger {
    let ledger = trial.ledger.as_mut().unwrap();
    ledger.streams.get_mut(STREAM).unwrap()
}

pub(crate) fn read(trial: &mut Trial) -> &mut StreamRead {
    let read = trial.final_read.as_mut().unwrap();
    read.streams.get_mut(STREAM).unwrap()
}

/// A record that plans the given trials of the clean plan.
pub(crate) fn record(trials: u32) -> RunRecord {
    RunRecord {
        schema_version: 1,
        run: "r-20260101".to_owned(),
        started: "2026-01-01T00:00:00Z".to_owned(),
        version: "0.1.0".to_owned(),
        seed: 7,
        settings: serde_json::json!({"clients": CLIENTS, "session_secret": "hush"}),
        waivers: None,
        rows: (1..=trials)
            .map(|trial| PlannedRow {
                scenario: "partition".to_owned(),
                lane: Lane::Khala,
                trial,
                plan_digest: plan().digest,
            })
            .collect(),
    }
}
