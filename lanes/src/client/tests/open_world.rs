//! Clients among rows that others publish: what is not the run's is not judged, but its place is, and what is the run's
//! is judged as ever.

use super::*;

/// Where the client begins: what lies before is somebody's history.
const BEGUN: Seq = 40_000;

impl Rig {
    /// A client that begins after so much history in a world with others.
    fn among_others(lane: Lane, begun: Seq, defect: Option<Defect>) -> Self {
        let mut rig = Self::new(lane, defect);
        rig.common.promise.world = World::Open;
        rig.common.contents = Mutex::new(Contents::new(rig.origin.clone(), World::Open));
        let heads = Cursors::from([(STREAM.to_owned(), begun)]);
        rig.client.begin_after(&heads);
        rig
    }

    /// The run's event of that index, wherever it came to stand.
    fn ours(&self, seq: Seq, index: u64) -> SyncEvent {
        SyncEvent {
            seq,
            ..self.event(index + 1)
        }
    }

    /// What somebody else published, in one of the shapes that others have.
    fn theirs(&self, seq: Seq) -> SyncEvent {
        let shapes = ["not JSON", "null", "{\"run\":\"r2\"}", "[1,2]"];
        let place = usize::try_from(seq).unwrap() % shapes.len();
        SyncEvent {
            seq,
            idempotency_key: format!("theirs-{seq}"),
            payload_hash: "of their own".to_owned(),
            payload_json: shapes[place].to_owned(),
            ..self.event(1)
        }
    }
}

#[test]
fn rows_of_others_are_phantoms_in_a_closed_world_and_counted_in_an_open_one() {
    let rows = |rig: &Rig| vec![rig.ours(1, 0), rig.theirs(2), rig.theirs(3), rig.ours(4, 1)];
    let mut closed = Rig::new(Lane::Spacetime, None);
    closed.connect();
    closed.applied_rows(rows(&closed), 4);
    assert_eq!(closed.found(), [(Anomaly::Phantom, 2)]);

    let mut open = Rig::among_others(Lane::Spacetime, 0, None);
    open.connect();
    open.applied_rows(rows(&open), 4);
    let live = open.theirs(5);
    open.live(&live);
    assert_eq!((open.cursor(), open.found()), (5, vec![]));
    assert_eq!((open.client.foreign, open.client.delivered.0), (3, 2));
}

#[test]
fn a_client_begins_after_the_history_of_others_and_is_not_stale_for_it() {
    let mut rig = Rig::among_others(Lane::Spacetime, BEGUN, None);
    rig.connect();
    rig.applied_rows(
        vec![rig.theirs(BEGUN + 1), rig.ours(BEGUN + 2, 0)],
        BEGUN + 2,
    );
    rig.reconnect();
    rig.applied_rows(vec![rig.ours(BEGUN + 3, 1)], BEGUN + 3);
    assert_eq!((rig.cursor(), rig.found()), (BEGUN + 3, vec![]));
    assert_eq!(rig.client.rebootstraps, 0);
    let stream = &rig.client.streams[0];
    assert_eq!(stream.initial(), BEGUN);
    assert_eq!(stream.applied().1, &IntervalSet::range(0, 1));
}

#[test]
fn a_missing_seq_a_repetition_and_disorder_are_found_whoever_published() {
    let mut rig = Rig::among_others(Lane::Spacetime, BEGUN, None);
    rig.connect();
    rig.applied_rows(vec![rig.theirs(BEGUN + 1)], BEGUN + 1);
    let again = rig.theirs(BEGUN + 1);
    rig.live(&again);
    assert_eq!(rig.found(), [(Anomaly::DuplicateDelivery, 1)]);
    let beyond = rig.theirs(BEGUN + 3);
    assert_eq!(
        rig.live(&beyond),
        [Command::Drop],
        "it resumes rather than skip a seq"
    );
    rig.now += 2_000_000;
    rig.tell(Event::Tick);
    rig.connect();
    // The resume does not fill the hole: the client begins anew from where it began, and the hole is still there.
    rig.applied_rows(vec![rig.theirs(BEGUN + 3)], BEGUN + 3);
    rig.subscriptions = 2;
    rig.applied_rows(
        vec![rig.theirs(BEGUN + 1), rig.theirs(BEGUN + 3)],
        BEGUN + 3,
    );
    assert_eq!(rig.cursor(), BEGUN + 3);
    assert!(
        rig.found().contains(&(Anomaly::Gap, 1)),
        "{:?}",
        rig.found()
    );
}

#[test]
fn an_altered_event_of_the_run_is_found_among_others() {
    let mut rig = Rig::among_others(Lane::Spacetime, BEGUN, None);
    rig.connect();
    let mut altered = rig.ours(BEGUN + 2, 0);
    altered.payload_json = altered.payload_json.replace("\"index\":0", "\"index\":9");
    rig.applied_rows(vec![rig.theirs(BEGUN + 1), altered], BEGUN + 2);
    assert_eq!(rig.found(), [(Anomaly::Divergence, 1)]);
}

#[test]
fn the_planted_double_apply_and_blindness_are_found_among_others() {
    let mut twice = Rig::among_others(Lane::Spacetime, BEGUN, Some(Defect::ApplyTwice));
    twice.connect();
    twice.applied_rows(vec![twice.theirs(BEGUN + 1)], BEGUN + 1);
    twice.reconnect();
    twice.applied_rows(vec![twice.theirs(BEGUN + 1)], BEGUN + 1);
    assert!(twice.found().contains(&(Anomaly::DuplicateApply, 1)));

    let blind = Some(Defect::IgnoreStaleCursor);
    let mut blind = Rig::among_others(Lane::Spacetime, BEGUN, blind);
    blind.connect();
    blind.applied_rows(vec![blind.theirs(BEGUN + 1)], BEGUN + 1);
    blind.reconnect();
    blind.applied(&[], BEGUN);
    assert_eq!(blind.found(), [(Anomaly::StaleCursor, 1)]);
}

#[test]
fn a_head_that_went_back_behind_the_beginning_is_noticed_and_begun_from() {
    let mut rig = Rig::among_others(Lane::Spacetime, BEGUN, None);
    rig.connect();
    let out = rig.applied(&[], BEGUN - 10);
    assert!(
        matches!(&out[..], [Command::Send(frames)] if frames.len() == 2),
        "unsubscribe, subscribe: {out:?}"
    );
    assert_eq!(rig.client.regressions.len(), 1);
    rig.subscriptions += 1;
    rig.applied(&[], BEGUN - 10);
    let next = rig.ours(BEGUN - 9, 0);
    rig.live(&next);
    assert_eq!((rig.cursor(), rig.found()), (BEGUN - 9, vec![]));
    assert_eq!(rig.client.streams[0].initial(), BEGUN - 10);
}

#[test]
fn more_than_the_budget_before_the_first_join_is_begun_anew_once_and_then_taken() {
    let mut rig = Rig::among_others(Lane::Spacetime, BEGUN, None);
    let rows = |rig: &Rig| (1..=150).map(|n| rig.theirs(BEGUN + n)).collect();
    rig.connect();
    rig.applied_rows(rows(&rig), BEGUN + 150);
    assert_eq!(rig.client.rebootstraps, 1);
    rig.subscriptions += 1;
    rig.applied_rows(rows(&rig), BEGUN + 150);
    assert_eq!(rig.client.rebootstraps, 1, "a beginning continues anything");
    assert_eq!((rig.cursor(), rig.found()), (BEGUN + 150, vec![]));
    assert_eq!(rig.client.machine.state(), State::Live);
}

/// What is found after a snapshot up to `head`.
fn after_snapshot(rig: &mut Rig, asked: Seq, head: Seq, digest: Snapshot) -> Vec<(Anomaly, u64)> {
    rig.tell(Event::Lost("FIN".to_owned()));
    rig.now += 2_000_000;
    rig.tell(Event::Tick);
    rig.khala_connect();
    rig.hear(&KhalaMessage::Error(stale(asked, head, digest)).encode(None));
    rig.subscribed("3", head);
    rig.found()
}

#[test]
fn a_snapshot_of_unknown_history_is_a_new_beginning_and_told() {
    let mut rig = Rig::among_others(Lane::Khala, 1, None);
    rig.khala_connect();
    rig.both_framings(&[2, 3]);
    rig.subscribed("2", 3);
    let digest = Snapshot {
        count: 9,
        digest: "over others' history too".to_owned(),
    };
    assert_eq!(after_snapshot(&mut rig, 3, 9, digest), []);
    let began = rig.client.streams[0].began_from();
    assert_eq!(
        began.map(|cover| cover.watermark),
        Some(9),
        "results judges what it holds"
    );
    assert_eq!((rig.cursor(), rig.client.streams[0].initial()), (9, 1));
}
