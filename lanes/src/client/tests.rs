//! A client against frames as a lane sends them, and against lanes that do wrong.

mod open_world;

use super::*;
use crate::client::policy::Pacing;
use crate::khala::error::{ErrorBody, ErrorCode, StaleReason, StaleTopic};
use crate::khala::message::{
    FrameKind, Joined, Reply, ServerMessage as KhalaMessage, Subscribed, SyncFrame, Update,
    UpdateBatch, Watermark,
};
use crate::khala::snapshot::{FORMAT, SnapshotPlan, TopicSnapshot};
use crate::spacetime::message::{
    ConnectionId, DatabaseUpdate, Encoded, Energy, Identity, IdentityToken, MultiApplied, QueryId,
    QueryUpdate, ReducerCall, ServerMessage, TableUpdate, TimeDuration, Timestamp,
    TransactionUpdate, TransactionUpdateLight, UpdateStatus,
};
use crate::spacetime::rows::{Row as TableRow, StreamHead, SyncEvent, Table};
use machine::Held;
use model::event::Origin;
use model::ids::Lane;
use model::intervals::IntervalSet;
use model::profile::Profile;
use model::shard::Policy;
use model::snapshot::{Cover, Snapshot};
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
            contents: Mutex::new(Contents::new(origin.clone(), World::Closed)),
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
        rig.tell(Event::Token(Rig::held("a.b.c")));
        rig
    }

    fn held(jwt: &str) -> Held {
        Held {
            jwt: jwt.to_owned(),
            exp_unix: 60,
            exp: EXP,
            refresh_after: Mono(59_000_000),
        }
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
        let rows = seqs.iter().map(|seq| self.event(*seq)).collect();
        self.applied_rows(rows, head)
    }

    fn applied_rows(&mut self, rows: Vec<SyncEvent>, head: Seq) -> Vec<Command> {
        let events = rows
            .into_iter()
            .map(|row| TableRow::Event(row).in_snapshot(Wire::Json))
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
        self.hear(&live_update(row))
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

fn live_update(row: &SyncEvent) -> String {
    let query = QueryUpdate {
        deletes: Vec::new(),
        inserts: vec![TableRow::Event(row.clone()).in_update(Wire::Json)],
    };
    let update = TransactionUpdateLight {
        request_id: 0,
        update: DatabaseUpdate {
            tables: vec![TableUpdate::new(Table::SyncEvent, vec![query])],
        },
    };
    ServerMessage::TransactionUpdateLight(update).encode()
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
fn a_closed_connection_that_is_served_beside_the_next_is_a_zombie_and_what_was_on_its_way_is_not() {
    let mut rig = Rig::new(Lane::Spacetime, None);
    rig.connect();
    rig.applied(&[1], 1);
    let old = rig.client.epoch();
    let mut renewed = Rig::held("d.e.f");
    renewed.exp_unix += 60;
    let out = rig.tell(Event::Token(renewed));
    assert!(
        matches!(out[..], [Command::Close, Command::Dial(_)]),
        "{out:?}"
    );
    let late = |rig: &mut Rig, intended: Mono| {
        let event = rig.origin.event(STREAM, 1, intended);
        let row = SyncEvent {
            payload_hash: event.payload_hash,
            payload_json: event.payload_json,
            ..rig.event(2)
        };
        let (text, mut out) = (live_update(&row), Vec::new());
        rig.client
            .receive(Mono(rig.now), old, &text.into(), &rig.common, &mut out);
        assert_eq!(out, [], "nothing is done about it");
    };
    let before = Mono(rig.now + 9_000_000);
    late(&mut rig, before);
    assert_eq!(rig.found(), [], "there is no other connection yet");
    rig.connect();
    rig.applied(&[], 1);
    let live = rig.client.machine.live_since().expect("it is live");
    late(&mut rig, live + CLOSE_TOLERANCE);
    assert_eq!(rig.found(), [], "the lane need not have seen the Close");
    late(&mut rig, live + CLOSE_TOLERANCE + Span::from_millis(1));
    assert!(
        rig.found().contains(&(Anomaly::Zombie, 1)),
        "{:?}",
        rig.found()
    );
}

#[test]
fn a_frame_that_goes_on_after_the_client_has_renewed_is_no_zombie() {
    let mut rig = Rig::new(Lane::Khala, None);
    rig.khala_connect();
    let mut renewed = Rig::held("d.e.f");
    renewed.exp_unix += 60;
    assert_eq!(rig.tell(Event::Token(renewed)), []);
    rig.client.session = Box::new(TwoSignals);
    let out = rig.hear("both");
    assert!(
        matches!(out[..], [Command::Close, Command::Dial(_)]),
        "{out:?}"
    );
    assert_eq!(rig.found(), []);
}

/// A lane that says in one frame that the replay is complete, and what was published since.
struct TwoSignals;

impl Session for TwoSignals {
    fn open(&mut self) -> Vec<Frame<'static>> {
        Vec::new()
    }

    fn subscribe(&mut self, _: &[(&str, Seq)]) -> Vec<Frame<'static>> {
        Vec::new()
    }

    fn heartbeat(&mut self) -> Vec<Frame<'static>> {
        Vec::new()
    }

    fn receive(&mut self, _: &Frame<'_>) -> Result<Vec<Signal>, String> {
        let row = Row {
            stream: STREAM.to_owned(),
            seq: 1,
            key: None,
            payload: "{}".to_owned(),
            hash: String::new(),
        };
        Ok(vec![
            Signal::Subscribed {
                rows: Vec::new(),
                heads: Vec::new(),
            },
            Signal::Rows {
                framing: 0,
                rows: vec![row],
            },
        ])
    }
}

#[test]
fn the_planted_double_apply_comes_with_a_resume() {
    let mut rig = Rig::new(Lane::Spacetime, Some(Defect::ApplyTwice));
    rig.connect();
    rig.applied(&[1, 2], 2);
    assert_eq!(rig.found(), []);
    rig.reconnect();
    rig.applied(&[2, 3], 3);
    assert!(
        rig.found().contains(&(Anomaly::DuplicateApply, 1)),
        "{:?}",
        rig.found()
    );
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

/// The answer to a cursor of `asked` where the head is `head`.
fn stale(asked: Seq, head: Seq, snapshot: Snapshot) -> ErrorBody {
    ErrorBody {
        reason_codes: vec![StaleReason::CursorAheadOfHead],
        stale_topics: vec![StaleTopic {
            topic: TOPIC.to_owned(),
            reason: StaleReason::CursorAheadOfHead,
            qos_tier: "run_events".to_owned(),
            resume_after: asked,
            retention_floor: 0,
            head_watermark: head,
            replay_lag: 0,
            replay_budget_events: 100,
        }],
        snapshot_plan: Some(SnapshotPlan {
            format: FORMAT.to_owned(),
            topics: vec![TopicSnapshot {
                topic: TOPIC.to_owned(),
                head_watermark: head,
                snapshot: Some(snapshot),
            }],
        }),
        ..ErrorBody::new(ErrorCode::StaleCursor, "stale")
    }
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
    let cover = Cover {
        watermark: 2,
        snapshot: Some(snapshot.clone()),
    };
    let error = stale(3, 2, snapshot);
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
    let stream = &rig.client.streams[0];
    assert_eq!(stream.began_from(), Some(&cover), "what the lane says");
    assert!(stream.applied().1.is_empty());
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

#[test]
fn a_record_tells_an_outage_in_order_and_never_holds_the_token() {
    let mut rig = Rig::new(Lane::Spacetime, None);
    rig.connect();
    rig.applied(&[1, 2], 2);
    for seq in 3..=9 {
        let row = rig.event(seq);
        rig.live(&row);
    }
    let beyond = rig.event(11);
    rig.live(&beyond);
    rig.now += 2_000_000;
    rig.tell(Event::Tick);
    rig.tell(Event::Refused(machine::Refusal {
        status: Some(503),
        reason: "busy".to_owned(),
        retry_after: None,
    }));
    let record = rig.client.record(Some("Backoff".to_owned()));
    let whats: Vec<_> = record.moments.iter().map(|moment| &moment.what).collect();
    let run = |replay: bool, first: Seq, count: u32, lasted_us: u32| What::Rows {
        stream: 0,
        framing: 0,
        replay,
        first,
        count,
        lasted_us,
    };
    let at = |place: usize| record.moments[place].at;
    let expected = [
        What::TokenAsked { ttl_s: 120 },
        What::TokenFetched { exp: EXP },
        What::Dialled { connection: 1 },
        What::Upgraded,
        What::Joined,
        What::Subscribed { after: [0].into() },
        run(true, 1, 2, 0),
        What::Live,
        run(false, 3, 7, 6),
        run(false, 11, 1, 0),
        What::Gap {
            stream: 0,
            awaited: 10,
            beyond: 1,
        },
        What::Lost {
            reason: "a gap in what came live".into(),
        },
        What::Waits {
            until: at(11) + Profile::embedded().backoff_base,
        },
        What::Dialled { connection: 2 },
        What::Refused {
            status: Some(503),
            reason: "busy".into(),
        },
        What::Waits {
            until: at(14) + Profile::embedded().backoff_base.scale(2.0),
        },
    ];
    assert_eq!(whats, expected.iter().collect::<Vec<_>>());
    assert_eq!(record.streams, [STREAM]);
    assert_eq!(record.forgotten, 0);
    let text = serde_json::to_string(&record).unwrap();
    assert!(!text.contains("a.b.c"), "{text}");
}

#[test]
fn a_record_shows_findings_and_stale_cursors_where_they_were_met() {
    let mut rig = Rig::new(Lane::Spacetime, None);
    rig.connect();
    rig.applied(&[1, 2, 3], 3);
    let again = rig.event(3);
    rig.live(&again);
    rig.reconnect();
    rig.applied(&[], 2);
    let moments = rig.client.record(None).moments;
    let found = What::Found {
        anomaly: Anomaly::DuplicateDelivery,
        stream: Some(0),
        seq: 3,
        times: 1,
        lasted_us: 0,
    };
    let stale = What::Stale {
        stream: 0,
        reason: "cursor_ahead_of_head".into(),
    };
    let place = |what: &What| moments.iter().position(|moment| moment.what == *what);
    let (found, stale) = (place(&found), place(&stale));
    assert!(found.is_some() && found < stale, "{moments:?}");
    assert_eq!(
        moments[stale.unwrap() + 1].what,
        What::Reset { stream: 0, to: 0 }
    );
    let resubscribed = What::Subscribed { after: [0].into() };
    assert_eq!(moments.last().unwrap().what, resubscribed);
}
