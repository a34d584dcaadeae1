//! The log: what survives, what is refused, what is kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use embedded::log::{
    AppendError, Audience, Budget, Change, Durability, Log, Record, Settings, Streams,
};
use lanes::khala::error::StaleReason;
use model::snapshot::Snapshot;
use proptest::prelude::*;

use crate::support::event;

/// Keeps the seqs it was shown.
#[derive(Debug, Default)]
struct Seen(Vec<(String, u64)>);

impl Audience for Seen {
    type Tag = ();

    fn committed(&mut self, streams: &Streams, change: &Change, (): ()) {
        if let Change::Event { event, .. } = change {
            assert_eq!(streams.get(&event.stream_id).head(), event.seq);
            self.0.push((event.stream_id.clone(), event.seq));
        }
    }
}

fn open(path: &Path, durability: Durability, retention: u64, replay: u64) -> Log<Seen> {
    let settings = Settings {
        durability,
        budget: Budget { retention, replay },
        own_budgets: BTreeMap::new(),
    };
    Log::open(path, settings, Seen::default()).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

fn seqs(log: &Log<Seen>, stream: &str) -> Vec<u64> {
    let state = log.lock();
    state
        .streams
        .get(stream)
        .after(0)
        .map(|event| event.seq)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_file_torn_at_any_byte_keeps_every_whole_event(streams in proptest::collection::vec(0_u8..3, 1..12), cut in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        run(async {
            let log = open(&path, Durability::Synced, 1_000, 1_000);
            for (n, stream) in streams.iter().enumerate() {
                log.append(event(&format!("s{stream}"), n as u64), None, ()).await.unwrap();
            }
        });
        let whole = std::fs::read(&path).unwrap();
        let at = cut.index(whole.len());
        std::fs::write(&path, &whole[..at]).unwrap();
        let kept = whole[..at].split(|byte| *byte == b'\n').count() - 1;

        let log = open(&path, Durability::Synced, 1_000, 1_000);
        for name in 0..3_u8 {
            let mut count = 0;
            for stream in &streams[..kept] {
                count += u64::from(*stream == name);
            }
            prop_assert_eq!(seqs(&log, &format!("s{name}")), (1..=count).collect::<Vec<_>>());
        }
        // The next append goes on where the whole events end, and is there after another restart.
        let next = run(log.append(event("s0", 999), None, ())).unwrap();
        drop(log);
        let log = open(&path, Durability::Synced, 1_000, 1_000);
        prop_assert_eq!(log.lock().streams.get("s0").head(), next.seq);
        prop_assert!(run(log.append(event("s0", 999), None, ())).unwrap().duplicate);
    }

    #[test]
    fn keys_come_first_and_then_the_expected_seq(steps in proptest::collection::vec((0_u8..2, 0_u64..6, 0_u64..8), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder.path().join("log.jsonl"), Durability::Never, 1_000, 1_000);
        let (mut heads, mut keys) = (BTreeMap::<String, u64>::new(), BTreeMap::new());
        for (stream, key, expected) in steps {
            let stream = format!("s{stream}");
            let mut appended = event(&stream, 0);
            appended.idempotency_key = key.to_string();
            let got = run(log.append(appended, Some(expected).filter(|seq| *seq != 0), ()));
            let head = heads.entry(stream).or_default();
            if let Some(seq) = keys.get(&key) {
                let got = got.unwrap();
                prop_assert_eq!((got.seq, got.duplicate), (*seq, true));
            } else if expected != 0 && expected != *head + 1 {
                let conflict = AppendError::Conflict { expected, actual: *head + 1 };
                prop_assert_eq!(got, Err(conflict));
            } else {
                *head += 1;
                keys.insert(key, *head);
                prop_assert_eq!(got.unwrap().seq, *head);
            }
        }
    }

    #[test]
    fn a_window_is_what_is_kept(count in 0_u64..30, retention in 1_u64..10, replay in 0_u64..10, cursor in 0_u64..40) {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder.path().join("log.jsonl"), Durability::Never, retention, replay);
        let mut whole = Snapshot::default();
        for n in 1..=count {
            whole.push(&event("s", n).payload_hash);
            run(log.append(event("s", n), None, ())).unwrap();
        }
        let state = log.lock();
        let (window, stream) = (state.streams.window("s"), state.streams.get("s"));
        let floor = count.saturating_sub(retention);
        prop_assert_eq!((window.floor, window.head), (floor, count));
        prop_assert_eq!(stream.snapshot(), &whole);
        let after: Vec<u64> = stream.after(cursor).map(|event| event.seq).collect();
        prop_assert_eq!(after, (cursor.max(floor) + 1..=count).collect::<Vec<_>>());
        let expected = if cursor > count {
            Some(StaleReason::CursorAheadOfHead)
        } else if cursor < floor {
            Some(StaleReason::RetentionFloorBreach)
        } else if count - cursor > replay.max(1) {
            Some(StaleReason::ReplayBudgetExceeded)
        } else {
            None
        };
        prop_assert_eq!(window.stale(cursor), expected);
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_on_disk_and_in_order_for_its_audience() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let log = Arc::new(open(&path, Durability::Synced, 1_000, 1_000));
    let mut appends = tokio::task::JoinSet::new();
    for n in 0..200_u64 {
        let (log, path) = (Arc::clone(&log), path.clone());
        appends.spawn(async move {
            let stream = format!("s{}", n % 3);
            let seq = log.append(event(&stream, n), None, ()).await.unwrap().seq;
            if n % 20 == 0 {
                let records = host::jsonl::read::<Record>(&path).unwrap().values;
                assert!(
                    records
                        .iter()
                        .any(|record| matches!(record, Record::Event { event, .. }
                    if event.stream_id == stream && event.seq == seq))
                );
            }
        });
    }
    while let Some(done) = appends.join_next().await {
        done.unwrap();
    }
    let state = log.lock();
    for name in ["s0", "s1", "s2"] {
        let shown: Vec<u64> = state
            .audience
            .0
            .iter()
            .filter(|(stream, _)| stream == name)
            .map(|(_, seq)| *seq)
            .collect();
        let head = state.streams.get(name).head();
        assert_eq!(shown, (1..=head).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_repeated_key_waits_for_its_first_append() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let log = open(&path, Durability::Synced, 1_000, 1_000);
    let (first, second) = tokio::join!(
        log.append(event("s", 1), None, ()),
        log.append(event("s", 1), None, ())
    );
    assert!(!first.unwrap().duplicate);
    let second = second.unwrap();
    assert_eq!((second.seq, second.duplicate), (1, true));
    assert_eq!(seqs(&log, "s"), [1]);
}

#[tokio::test]
async fn late_and_never_are_as_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let on_disk = || host::jsonl::read::<Record>(&path).unwrap().values.len();
    let log = open(
        &path,
        Durability::Late(Duration::from_mins(1)),
        1_000,
        1_000,
    );
    log.append(event("s", 1), None, ()).await.unwrap();
    assert_eq!(on_disk(), 0, "a kill would lose it");
    drop(log);
    assert_eq!(on_disk(), 1, "an orderly end does not");

    let log = open(&path, Durability::Never, 1_000, 1_000);
    assert_eq!(seqs(&log, "s"), [0_u64; 0]);
    log.append(event("s", 2), None, ()).await.unwrap();
    drop(log);
    assert_eq!(on_disk(), 1);
}

#[test]
fn what_is_removed_stays_removed_and_its_seqs_are_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let keys = ["a:2", "a:3", "unknown"].map(str::to_owned);
    let log = open(&path, Durability::Synced, 4, 100);
    run(async {
        for n in 1..=5 {
            log.append(event("a", n), None, ()).await.unwrap();
        }
        log.append(event("b", 1), None, ()).await.unwrap();
        log.remove(Some("b".to_owned()), &keys, ()).await.unwrap();
        assert_eq!(seqs(&log, "a"), [2, 3, 4, 5], "they are not that stream's");
        log.remove(Some("a".to_owned()), &keys, ()).await.unwrap();
        log.remove(Some("a".to_owned()), &keys, ()).await.unwrap();
    });
    drop(log);
    let log = open(&path, Durability::Synced, 4, 100);
    assert_eq!((seqs(&log, "a"), seqs(&log, "b")), (vec![4, 5], vec![1]));
    let window = log.lock().streams.window("a");
    assert_eq!((window.floor, window.head), (1, 5));
    let again = run(log.append(event("a", 2), None, ())).unwrap();
    assert_eq!((again.seq, again.duplicate), (6, false), "its key is free");
    let known = run(log.append(event("a", 4), None, ())).unwrap();
    assert_eq!((known.seq, known.duplicate), (4, true));
    run(log.remove(None, &["a:4".to_owned(), "b:1".to_owned()], ())).unwrap();
    assert_eq!((seqs(&log, "a"), seqs(&log, "b")), (vec![5, 6], vec![]));
}
