//! A client against frames as a lane sends them, and against lanes that do wrong.

use super::*;
use crate::client::policy::Pacing;
use crate::khala::error::{ErrorBody, ErrorCode, StaleReason, StaleTopic};
use crate::khala::message::{
    FrameKind, Joined, Reply, ServerMessage as KhalaMessage, Subscribed, SyncFrame, Update,
    UpdateBatch, Watermark,
};
use crate::khala::snapshot::{FORMAT, Snapshot, SnapshotPlan, TopicSnapshot};
use crate::spacetime::message::{
    ConnectionId, DatabaseUpdate, Encoded, Energy, Identity, IdentityToken, MultiApplied, QueryId,
    QueryUpdate, ReducerCall, ServerMessage, TableUpdate, TimeDuration, Timestamp,
    TransactionUpdate, TransactionUpdateLight, UpdateStatus,
};
use crate::spacetime::rows::{Row as TableRow, StreamHead, SyncEvent, Table};
use machine::Held;
use model::event::Origin;
use model::ids::Lane;
use model::profile::Profile;
use model::shard::Policy;
use model::target::Wire;
use serde_json::json;

const STREAM: &str = "runtime.run.1.events";
const TOPIC: &str = "run:1:events";
const EXP: Mono = Mono(60_000_000);

struct Rig {
    client: Client,
    common: Common,
    origin: Origin,
    now: u64,
    subscriptions: u32,
}

impl Rig {
    fn new(lane: Lane, defect: Option<Defect>) -> Self {
        let profile = Profile::embedded();
        let origin = Origin {
            run: "r1".to_owned(),
            seed: 7,
            padding: 8,
        };
        let common = Common {
            kind: Kind::of(lane),
            access: Arc::new(model::target::Access::plain(
                ([127, 0, 0, 1], 1).into(),
                ([127, 0, 0, 1], 1).into(),
            )),
            promise: model::target::Promise::strict(Span::ZERO),
            budgets: (BTreeMap::new(), 100),
            late_after: Span::from_secs(1),
            defect,
            contents: Mutex::new(Contents::new(origin.clone())),
        };
        let settings = Settings {
            client: ClientId(1),
            pacing: Pacing {
                policy: Policy::Desktop,
                base: profile.backoff_base,
                cap: profile.backoff_cap,
                seed: 7,
                fleet: 1,
                capacity: None,
            },
            profile,
            unix_offset_us: 0,
            ignores_retry_after: false,
            stays_down: false,
        };
        let client = Client::new(settings, vec![STREAM.to_owned()], &common, Mono(0));
        let mut rig = Self {
            client,
            common,
            origin,
            now: 1,
            subscriptions: 0,
        };
        rig.tell(Event::Start(Mono(0)));
        rig.tell(Event::Token(Held {
            jwt: "a.b.c".to_owned(),
            exp_unix: 60,
            exp: EXP,
            refresh_after: Mono(59_000_000),
        }));
        rig
    }

    fn tell(&mut self, event: Event) -> Vec<Command> {
        self.now += 1;
        let mut out = Vec::new();
        self.client
            .handle(Mono(self.now), event, &self.common, &mut out);
        out
    }

    fn hear(&mut self, text: &str) -> Vec<Command> {
        self.now += 1;
        let mut out = Vec::new();
        let epoch = self.client.epoch();
        self.client
            .receive(Mono(self.now), epoch, &text.into(), &self.common, &mut out);
        out
    }

    /// Up to the subscription, on the spacetime lane.
    fn connect(&mut self) {
        self.tell(Event::Upgraded);
        let identity = IdentityToken {
            identity: Identity {
                text: "0x1".to_owned(),
            },
            token: String::new(),
            connection_id: ConnectionId { number: 1 },
        };
        let asked = self.hear(&ServerMessage::IdentityToken(identity).encode());
        assert!(
            matches!(&asked[..], [Command::Send(texts)] if texts.len() == 1),
            "{asked:?}"
        );
        self.subscriptions = 1;
    }

    fn reconnect(&mut self) {
        self.tell(Event::Lost("FIN".to_owned()));
        self.now += 2_000_000;
        let out = self.tell(Event::Tick);
        assert!(matches!(out[..], [Command::Dial(_)]), "{out:?}");
        self.connect();
    }

    fn event(&self, seq: Seq) -> SyncEvent {
        let event = self.origin.event(STREAM, seq - 1, Mono(seq));
        SyncEvent {
            stream_id: event.stream,
            seq,
            idempotency_key: event.key,
            payload_hash: event.payload_hash,
            payload_json: event.payload_json,
            committed_at_unix_ms: 0,
            durable_offset: 0,
            confirmed_read: true,
        }
    }

    fn applied(&mut self, seqs: &[Seq], head: Seq) -> Vec<Command> {
        let events = seqs
            .iter()
            .map(|seq| TableRow::Event(self.event(*seq)).in_snapshot(Wire::Json))
            .collect();
        let head = TableRow::Head(StreamHead {
            stream_id: STREAM.to_owned(),
            head_seq: head,
            updated_at_unix_ms: 0,
        });
        let update = |table, inserts| {
            TableUpdate::new(
                table,
                vec![QueryUpdate {
                    deletes: Vec::new(),
                    inserts,
                }],
            )
        };
        let message = ServerMessage::SubscribeMultiApplied(MultiApplied {
            request_id: 1,
            total_host_execution_duration_micros: 1,
            query_id: QueryId {
                id: self.subscriptions,
            },
            update: DatabaseUpdate {
                tables: vec![
                    update(Table::SyncEvent, events),
                    update(Table::StreamHead, vec![head.in_snapshot(Wire::Json)]),
                ],
            },
        });
        self.hear(&message.encode())
    }

    fn live(&mut self, row: &SyncEvent) -> Vec<Command> {
        let inserts = vec![TableRow::Event(row.clone()).in_update(Wire::Json)];
        let query = QueryUpdate {
            deletes: Vec::new(),
            inserts,
        };
        let update = TransactionUpdateLight {
            request_id: 0,
            update: DatabaseUpdate {
                tables: vec![TableUpdate::new(Table::SyncEvent, vec![query])],
            },
        };
        self.hear(&ServerMessage::TransactionUpdateLight(update).encode())
    }

    fn found(&self) -> Vec<(Anomaly, u64)> {
        let tallies = self.client.findings.iter();
        tallies
            .map(|(anomaly, tally)| (anomaly, tally.count))
            .collect()
    }

    fn cursor(&self) -> Seq {
        self.client.streams[0].cursor()
    }
}

#[test]
fn a_spacetime_client_resumes_from_its_cursor_without_a_finding() {
    let mut rig = Rig::new(Lane::Spacetime, None);
    rig.connect();
    rig.applied(&[2, 1, 3], 3);
    let next = rig.event(4);
    rig.live(&next);
    rig.reconnect();
    rig.applied(&[6, 5], 6);
    assert_eq!((rig.cursor(), rig.found()), (6, vec![]));
    assert_eq!(rig.client.machine.state(), State::Live);
    assert_eq!(rig.client.delivered.0, 6);
    assert_eq!(rig.client.rebootstraps, 0);
}

#[test]
fn a_head_that_went_back_is_noticed_before_anything_is_applied() {
    let mut rig = Rig::new(Lane::Spacetime, None);
    rig.connect();
    rig.applied(&[1, 2, 3], 3);
    rig.reconnect();
    let out = rig.applied(&[], 2);
    assert!(
        matches!(&out[..], [Command::Send(texts)] if texts.len() == 2),
        "unsubscribe, subscribe: {out:?}"
    );
    rig.subscriptions = 2;
    rig.applied(&[1, 2], 2);
    assert_eq!(
        (rig.cursor(), rig.client.rebootstraps, rig.found()),
        (2, 1, vec![])
    );
}

#[test]
fn the_planted_blindness_to_stale_cursors_is_a_finding() {
    let mut rig = Rig::new(Lane::Spacetime, Some(Defect::IgnoreStaleCursor));
    rig.connect();
    rig.applied(&[1, 2, 3], 3);
    rig.reconnect();
    rig.applied(&[], 2);
    assert_eq!(rig.found(), [(Anomaly::StaleCursor, 1)]);
    assert_eq!(rig.client.machine.state(), State::Live);
}

#[test]
fn a_hole_that_a_resume_does_not_fill_is_a_gap_and_the_first_sight_of_it_is_not() {
    let mut rig = Rig::new(Lane::Spacetime, None);
    rig.connect();
    rig.applied(&[1, 2], 2);
    let beyond = rig.event(4);
    let out = rig.live(&beyond);
    assert_eq!(out, [Command::Drop]);
    assert_eq!(rig.found(), []);
    rig.now += 2_000_000;
    rig.tell(Event::Tick);
    rig.connect();
    // Below the floor, as far as a client can see: it begins anew, and the hole is still there.
    rig.applied(&[4], 4);
    rig.subscriptions = 2;
    rig.applied(&[1, 2, 4], 4);
    assert_eq!((rig.cursor(), rig.found()), (4, vec![(Anomaly::Gap, 1)]));
}

#[test]
fn rows_that_must_not_come_are_leaks() {
    let mut rig = Rig::new(Lane::Spacetime, None);
    rig.connect();
    rig.applied(&[1], 1);
    let mut foreign = rig.event(2);
    foreign.stream_id = "runtime.run.rival.events".to_owned();
    rig.live(&foreign);
    assert_eq!(rig.found(), [(Anomaly::Leak, 1)]);

    let published = |at: Span, rig: &Rig, seq| {
        let event = rig.origin.event(STREAM, seq - 1, EXP + at);
        SyncEvent {
            payload_hash: event.payload_hash,
            payload_json: event.payload_json,
            ..rig.event(seq)
        }
    };
    let just_before_the_close = published(Span::from_millis(100), &rig, 2);
    rig.live(&just_before_the_close);
    assert_eq!(rig.found(), [(Anomaly::Leak, 1)]);
    let long_after = published(Span::from_millis(400), &rig, 3);
    rig.live(&long_after);
    assert_eq!(rig.found(), [(Anomaly::Leak, 2)]);
}

#[test]
fn altered_and_foreign_content_is_named() {
    let mut rig = Rig::new(Lane::Spacetime, None);
    rig.connect();
    rig.applied(&[1], 1);
    let mut altered = rig.event(2);
    altered.payload_json = altered.payload_json.replace("\"index\":1", "\"index\":8");
    altered.payload_hash = model::event::payload_hash(&altered.payload_json);
    rig.live(&altered);
    let mut foreign = rig.event(3);
    foreign.idempotency_key = "somebody-elses".to_owned();
    foreign.payload_json = "{}".to_owned();
    rig.live(&foreign);
    assert_eq!(
        rig.found(),
        [(Anomaly::Phantom, 1), (Anomaly::Divergence, 1)]
    );
}

/// What a real server answers to everything on the connections that are open when its module is published again.
#[test]
fn a_request_that_failed_is_the_end_of_its_connection() {
    let mut rig = Rig::new(Lane::Spacetime, None);
    rig.connect();
    rig.applied(&[1], 1);
    let failed = TransactionUpdate {
        status: UpdateStatus::Failed("no such module".to_owned()),
        timestamp: Timestamp { micros: 1 },
        caller_identity: Identity {
            text: "0x1".to_owned(),
        },
        caller_connection_id: ConnectionId { number: 1 },
        reducer_call: ReducerCall {
            reducer_name: "<none>".to_owned(),
            reducer_id: u32::MAX,
            args: Encoded::Text("[]".to_owned()),
            request_id: 0,
        },
        energy_quanta_used: Energy::default(),
        total_host_execution_duration: TimeDuration::default(),
    };
    let out = rig.hear(&ServerMessage::TransactionUpdate(failed).encode());
    assert_eq!(out, [Command::Drop]);
    rig.now += 2_000_000;
    let out = rig.tell(Event::Tick);
    assert!(matches!(out[..], [Command::Dial(_)]), "{out:?}");
    rig.connect();
    rig.applied(&[2], 2);
    assert_eq!((rig.cursor(), rig.found()), (2, vec![]));
}

#[test]
fn an_older_connection_that_still_receives_is_a_zombie() {
    let mut rig = Rig::new(Lane::Spacetime, None);
    rig.connect();
    rig.applied(&[1], 1);
    let old = rig.client.epoch();
    rig.reconnect();
    rig.applied(&[], 1);
    let event = rig.event(2);
    let update = TransactionUpdateLight {
        request_id: 0,
        update: DatabaseUpdate {
            tables: vec![TableUpdate::new(
                Table::SyncEvent,
                vec![QueryUpdate {
                    deletes: Vec::new(),
                    inserts: vec![TableRow::Event(event).in_update(Wire::Json)],
                }],
            )],
        },
    };
    let text = ServerMessage::TransactionUpdateLight(update).encode();
    let now = Mono(rig.now);
    rig.client
        .receive(now, old, &text.into(), &rig.common, &mut Vec::new());
    assert_eq!(rig.found(), [(Anomaly::Zombie, 1)]);
}

#[test]
fn the_planted_double_apply_comes_with_a_resume() {
    let mut rig = Rig::new(Lane::Spacetime, Some(Defect::ApplyTwice));
    rig.connect();
    rig.applied(&[1, 2], 2);
    assert_eq!(rig.found(), []);
    rig.reconnect();
    rig.applied(&[3], 3);
    assert_eq!(rig.found(), [(Anomaly::DuplicateApply, 1)]);
}

fn watermark(seq: Seq) -> Watermark {
    Watermark {
        topic: TOPIC.to_owned(),
        watermark: seq,
    }
}

impl Rig {
    fn khala_connect(&mut self) {
        let out = self.tell(Event::Upgraded);
        assert!(
            matches!(&out[..], [Command::Send(texts)] if texts[0].as_text().unwrap().contains("phx_join"))
        );
        let joined = Joined {
            subscription_id: "s".to_owned(),
            allowed_topics: vec![TOPIC.to_owned()],
            current_watermarks: Vec::new(),
        };
        let out = self.reply("1", Reply::Ok(serde_json::to_value(joined).unwrap()));
        assert!(
            matches!(&out[..], [Command::Send(texts)] if texts[0].as_text().unwrap().contains("sync:subscribe"))
        );
    }

    fn reply(&mut self, reference: &str, reply: Reply) -> Vec<Command> {
        let reference = Some(reference.to_owned());
        self.hear(&KhalaMessage::Reply { reference, reply }.encode(Some("1")))
    }

    fn subscribed(&mut self, reference: &str, head: Seq) -> Vec<Command> {
        let subscribed = Subscribed {
            subscription_id: "s".to_owned(),
            topics: vec![TOPIC.to_owned()],
            current_watermarks: vec![watermark(head)],
        };
        self.reply(
            reference,
            Reply::Ok(serde_json::to_value(subscribed).unwrap()),
        )
    }

    fn both_framings(&mut self, seqs: &[Seq]) {
        let updates = seqs.iter().map(|seq| {
            let row = self.event(*seq);
            Update {
                topic: TOPIC.to_owned(),
                doc_key: row.idempotency_key,
                doc_version: *seq,
                payload: serde_json::from_str(&row.payload_json).unwrap(),
                payload_hash: row.payload_hash,
                watermark: *seq,
                hydration_required: false,
            }
        });
        let batch = UpdateBatch {
            updates: updates.collect(),
            replay_complete: true,
            head_watermarks: Vec::new(),
        };
        let last = seqs.last().copied().unwrap_or(0);
        let frame = SyncFrame::new(TOPIC, last, FrameKind::UpdateBatch, &batch);
        self.hear(&KhalaMessage::UpdateBatch(batch).encode(None));
        self.hear(&KhalaMessage::Frame(frame).encode(None));
    }
}

#[test]
fn a_khala_client_takes_the_replay_before_the_reply_and_both_framings_once() {
    let mut rig = Rig::new(Lane::Khala, None);
    rig.khala_connect();
    rig.both_framings(&[1, 2]);
    assert_eq!(rig.client.machine.state(), State::Replaying);
    rig.subscribed("2", 2);
    rig.both_framings(&[3]);
    assert_eq!((rig.cursor(), rig.found()), (3, vec![]));
    assert_eq!((rig.client.deliveries, rig.client.delivered.0), ([3, 3], 3));
}

#[test]
fn a_stale_cursor_in_three_forms_is_acted_on_once() {
    let mut rig = Rig::new(Lane::Khala, None);
    rig.khala_connect();
    rig.both_framings(&[1, 2, 3]);
    rig.subscribed("2", 3);
    rig.tell(Event::Lost("FIN".to_owned()));
    rig.now += 2_000_000;
    rig.tell(Event::Tick);
    rig.khala_connect();
    let mut snapshot = Snapshot::default();
    for seq in [1, 2] {
        snapshot.push(&rig.event(seq).payload_hash);
    }
    let error = ErrorBody {
        reason_codes: vec![StaleReason::CursorAheadOfHead],
        stale_topics: vec![StaleTopic {
            topic: TOPIC.to_owned(),
            reason: StaleReason::CursorAheadOfHead,
            qos_tier: "run_events".to_owned(),
            resume_after: 3,
            retention_floor: 0,
            head_watermark: 2,
            replay_lag: 0,
            replay_budget_events: 100,
        }],
        snapshot_plan: Some(SnapshotPlan {
            format: FORMAT.to_owned(),
            topics: vec![TopicSnapshot {
                topic: TOPIC.to_owned(),
                head_watermark: 2,
                snapshot,
            }],
        }),
        ..ErrorBody::new(ErrorCode::StaleCursor, "stale")
    };
    let frame = SyncFrame::new("sync:v1", 0, FrameKind::Error, &error);
    let again = rig.hear(&KhalaMessage::Error(error.clone()).encode(None));
    assert!(
        matches!(&again[..], [Command::Send(texts)] if texts[0].as_text().unwrap().contains("sync:subscribe"))
    );
    assert_eq!(rig.hear(&KhalaMessage::Frame(frame).encode(None)), []);
    assert_eq!(rig.reply("2", Reply::Error(json!(error))), []);
    rig.subscribed("3", 2);
    assert_eq!(
        (rig.cursor(), rig.client.rebootstraps, rig.found()),
        (2, 1, vec![])
    );
    let indexes = rig.client.streams[0].applied().1;
    assert_eq!(
        indexes,
        &IntervalSet::range(0, 1),
        "what the snapshot's digest stands for"
    );
}

#[test]
fn a_lane_that_says_nothing_of_a_stale_cursor_is_found_out() {
    let mut rig = Rig::new(Lane::Khala, None);
    rig.khala_connect();
    rig.both_framings(&[1, 2, 3]);
    rig.subscribed("2", 3);
    rig.tell(Event::Lost("FIN".to_owned()));
    rig.now += 2_000_000;
    rig.tell(Event::Tick);
    rig.khala_connect();
    rig.subscribed("2", 1);
    assert_eq!(rig.found(), [(Anomaly::StaleCursor, 1)]);
}
