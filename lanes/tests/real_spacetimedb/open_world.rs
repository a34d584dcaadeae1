//! A real server with another publisher, who was there before the run, writes as it runs and stays after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use host::http::Method;
use model::event::trial_mark;
use model::shard::{CleanUp, PublishConfig};
use model::target::{Removal, World};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// What the other had published to each stream before the run.
const HISTORY: u64 = 300;
/// In shapes that have nothing in common with the run's.
const SHAPES: [&str; 5] = [
    "not JSON",
    "null",
    "{\"run\":\"another\",\"index\":0}",
    "[1]",
    "",
];

/// Somebody else, who appends as fast as the server answers.
struct Other {
    http: Client,
    bearer: String,
    path: String,
    appended: AtomicU64,
}

impl Other {
    fn new(peer: &Real) -> Arc<Self> {
        let names = &peer.base.access.names;
        Arc::new(Self {
            http: Client::new(peer.addr),
            bearer: format!("Bearer {}", peer.token),
            path: format!("/v1/database/{}/call/{}", names.database, names.publish),
            appended: AtomicU64::new(0),
        })
    }

    /// Appends as `seq`; the seq that is next.
    async fn append(&self, stream: &str, seq: u64) -> u64 {
        let number = self.appended.load(Ordering::Relaxed);
        let shape = SHAPES[usize::try_from(number).unwrap() % SHAPES.len()];
        let key = format!("other-{stream}-{number}");
        let body = json!([stream, seq, key, "a hash of theirs", shape, 0, seq, true]);
        let headers = [
            ("authorization", self.bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let answer = self
            .http
            .send(
                Method::POST,
                &self.path,
                &headers,
                body.to_string().into(),
                DEADLINE,
            )
            .await
            .unwrap();
        if answer.status.is_success() {
            self.appended.fetch_add(1, Ordering::Relaxed);
            return seq + 1;
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let next = text.split("actual_next_seq=").nth(1);
        let next = next.unwrap_or_else(|| panic!("{text}"));
        next.trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .unwrap()
    }

    async fn history(&self) {
        for stream in STREAMS {
            let mut next = 1;
            while next <= HISTORY {
                next = self.append(stream, next).await;
            }
        }
    }

    /// Appends to all streams until it is told to stop; no append is broken off, for it would be counted by one side only.
    fn busy(self: &Arc<Self>, stop: CancellationToken) -> AbortOnDropHandle<()> {
        let other = Arc::clone(self);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut next = [HISTORY + 1; STREAMS.len()];
            while !stop.is_cancelled() {
                for (stream, next) in STREAMS.iter().zip(&mut next) {
                    *next = other.append(stream, *next).await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }))
    }
}

impl Real {
    /// How many rows the server holds of the run's, and of the other's.
    async fn held(&self) -> (u64, u64) {
        let rows = self.sql("SELECT * FROM sync_event").await;
        let keys = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row[2].as_str().unwrap());
        let own = keys.clone().filter(|key| key.starts_with("real/")).count() as u64;
        let others = keys.filter(|key| key.starts_with("other-")).count() as u64;
        let counted = self.sql("SELECT COUNT(*) AS rows FROM sync_event").await;
        assert_eq!(counted[0][0].as_u64(), Some(own + others));
        (own, others)
    }
}

fn among_others(removal: Removal, wire: Wire) -> impl FnOnce(&mut ShardConfig) {
    move |base| {
        base.origin.run = trial_mark("real", "open-spacetime-1");
        base.promise.world = World::Open;
        base.access.removal = removal;
        base.access.wire = wire;
        // Whoever has to replay the other's history is told so.
        base.profile.replay_budget = HISTORY - 1;
    }
}

async fn a_trial_among_others(test: &str, wire: Wire) {
    let change = among_others(Removal::Sql, wire);
    let Some(peer) = Real::start(test, "", change).await else {
        return;
    };
    let other = Other::new(&peer);
    other.history().await;
    let mut rig = Rig::new(
        &peer.base,
        PublishConfig {
            rate: model::quantity::Rate::per_second(50.0),
            ..rig::publish(&STREAMS, &peer.token)
        },
        rig::clients(CLIENTS, &STREAMS),
    );
    let stop = CancellationToken::new();
    let busy = other.busy(stop.clone());
    let begun = rig.start_after_heads().await;
    assert!(begun.values().all(|head| *head >= HISTORY), "{begun:?}");
    peer.more(&mut rig).await;
    peer.more(&mut rig).await;
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(5)).await;
    stop.cancel();
    busy.await.expect("the other ends when it is told to");

    for report in [&publisher, &clients] {
        let found: Vec<_> = report.findings.iter().collect();
        assert!(found.is_empty(), "{found:?}");
    }
    assert_eq!(clients.rebootstraps, 0);
    assert!(clients.foreign_rows > 0 && !clients.foreign.is_empty());
    for (stream, book) in &ledger.streams {
        assert!(
            book.failed.is_empty() && book.unknown.is_empty(),
            "{book:?}"
        );
        let read = &read.streams[stream];
        assert_eq!(read.events, book.acknowledged, "{stream}");
        assert!(read.foreign > 0 && read.floor >= begun[stream]);
        assert_eq!(read.foreign_at.len(), read.foreign);
        for applied in clients
            .applied
            .iter()
            .filter(|applied| applied.stream == *stream)
        {
            assert_eq!(applied.initial, begun[stream]);
            assert_eq!(applied.indexes, book.invoked);
        }
    }

    let (own, others) = peer.held().await;
    let total: u64 = ledger.streams.values().map(|book| book.invoked.len()).sum();
    assert_eq!(own, total);
    assert_eq!(others, other.appended.load(Ordering::Relaxed));
    let done = rig.clean_up().await;
    let clean = CleanUp {
        removed: total,
        ..CleanUp::default()
    };
    assert_eq!(done, clean);
    assert_eq!(peer.held().await, (0, others), "the other's are untouched");
    assert_eq!(
        rig.clean_up().await,
        CleanUp::default(),
        "it may be asked again"
    );
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_among_others_finds_nothing_of_theirs_and_leaves_nothing_of_its_own_with_json() {
    let test =
        "a_trial_among_others_finds_nothing_of_theirs_and_leaves_nothing_of_its_own_with_json";
    a_trial_among_others(test, Wire::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_among_others_finds_nothing_of_theirs_and_leaves_nothing_of_its_own_with_bsatn() {
    let test =
        "a_trial_among_others_finds_nothing_of_theirs_and_leaves_nothing_of_its_own_with_bsatn";
    a_trial_among_others(test, Wire::Bsatn).await;
}

/// A few events of the run, and nobody who reads them.
async fn published(peer: &Real, secret: &str) -> (Rig, u64) {
    let mut rig = Rig::new(
        &peer.base,
        rig::publish(&STREAMS, secret),
        rig::clients(0, &STREAMS),
    );
    rig.start_after_heads().await;
    rig.until("some events published", |publisher, _| {
        publisher.published.1 > 150
    })
    .await;
    let ledger = rig.stop_publishing().await;
    let published = ledger.streams.values().map(|book| book.invoked.len()).sum();
    (rig, published)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_that_lets_only_its_owner_delete_is_named_with_what_is_left() {
    let test = "a_real_server_that_lets_only_its_owner_delete_is_named_with_what_is_left";
    let change = among_others(Removal::Sql, Wire::Json);
    let Some(peer) = Real::start(test, "", change).await else {
        return;
    };
    let stranger: serde_json::Value = peer.http.post("/v1/identity", &(), DEADLINE).await.unwrap();
    let (rig, total) = published(&peer, stranger["token"].as_str().unwrap()).await;
    let done = rig.clean_up().await;
    assert_eq!((done.removed, done.left.values().sum::<u64>()), (0, total));
    assert_eq!(done.failed.len(), STREAMS.len());
    for why in done.failed.values() {
        assert!(why.contains("Only owners are authorized"), "{why}");
    }
    assert_eq!(peer.held().await, (total, 0));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_wants_nothing_removed_is_told_how_much_stays() {
    let test = "a_target_that_wants_nothing_removed_is_told_how_much_stays";
    let change = among_others(Removal::Nothing, Wire::Json);
    let Some(peer) = Real::start(test, "", change).await else {
        return;
    };
    let (rig, total) = published(&peer, &peer.token).await;
    let done = rig.clean_up().await;
    assert!(done.declined && done.failed.is_empty());
    assert_eq!((done.removed, done.left.values().sum::<u64>()), (0, total));
    assert_eq!(peer.held().await, (total, 0));
    rig.end().await;
}
