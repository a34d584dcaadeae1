//! Shards driven as a conductor drives them, within the test's process: two of them, one that publishes and probes and
//! one with clients, over their control API.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use host::http::{Client, Method};
use model::ids::Seq;
use model::instant::Mono;
use model::quantity::{Rate, Span};
use model::shard::{
    CleanUp, ClientsConfig, Cursors, Episode, FinalRead, Finish, Ledger, Policy, PublishConfig,
    ShardConfig, ShardReport, ShardStatus, Start, Tick,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const CALL: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(50);
/// No step of a test takes so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// One shard.
pub(crate) struct Shard {
    control: Client,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Shard {
    pub(crate) fn new(config: ShardConfig) -> Self {
        let listener = host::net::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let control = Client::new(listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let shard = lanes::shard::Shard::new(config).unwrap();
        let served = tokio::spawn(shard.serve(listener, shutdown.clone()));
        Self {
            control,
            shutdown,
            served,
        }
    }

    pub(crate) async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> T {
        self.control.post(path, body, CALL).await.unwrap()
    }

    pub(crate) async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        self.control.get(path, CALL).await.unwrap()
    }
}

/// A publisher, a slice of clients, and what passes between them.
pub(crate) struct Rig {
    pub(crate) publisher: Shard,
    pub(crate) clients: Shard,
    news: Tick,
}

impl Rig {
    /// `base` is a shard's configuration without clients, publisher and probes, but for the publisher's probes.
    pub(crate) fn new(base: &ShardConfig, publish: PublishConfig, clients: ClientsConfig) -> Self {
        let publisher = ShardConfig {
            publish: Some(publish),
            ..base.clone()
        };
        let clients = ShardConfig {
            ordinal: 1,
            probes: None,
            clients: Some(clients),
            ..base.clone()
        };
        Self {
            publisher: Shard::new(publisher),
            clients: Shard::new(clients),
            news: Tick::default(),
        }
    }

    pub(crate) async fn start(&self) {
        self.start_after(Cursors::new()).await;
    }

    /// Starts in a world with others: after what there is already.
    pub(crate) async fn start_after_heads(&self) -> Cursors {
        let heads: Cursors = self.publisher.get("/heads").await;
        self.start_after(heads.clone()).await;
        heads
    }

    async fn start_after(&self, cursors: Cursors) {
        let start = Start { cursors };
        for shard in [&self.publisher, &self.clients] {
            let _: serde_json::Value = shard.post("/start", &start).await;
        }
    }

    /// Has the publisher remove what it has published.
    pub(crate) async fn clean_up(&self) -> CleanUp {
        self.publisher.post("/clean-up", &()).await
    }

    /// Ticks once: the publisher's and the clients' status.
    pub(crate) async fn tick(&mut self) -> (ShardStatus, ShardStatus) {
        let publisher: ShardStatus = self.publisher.post("/tick", &Tick::default()).await;
        let clients = self.clients.post("/tick", &self.news).await;
        self.news = Tick {
            acknowledged: publisher.acknowledged.clone(),
            complete_until: publisher.complete_until.unwrap(),
        };
        (publisher, clients)
    }

    /// Ticks until it is so.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        so: impl Fn(&ShardStatus, &ShardStatus) -> bool,
    ) {
        let began = tokio::time::Instant::now();
        loop {
            let (publisher, clients) = self.tick().await;
            if so(&publisher, &clients) {
                return;
            }
            assert!(
                began.elapsed() < DEADLINE,
                "not {what}: {publisher:?} {clients:?}"
            );
            tokio::time::sleep(TICK).await;
        }
    }

    pub(crate) async fn tell(&self, t0: Mono, th: Option<Mono>) {
        let episode = Episode {
            t0,
            th,
            faults: Vec::new(),
        };
        self.tell_episode(&episode).await;
    }

    pub(crate) async fn tell_episode(&self, episode: &Episode) {
        let _: serde_json::Value = self
            .clients
            .control
            .call(Method::PUT, "/episode", episode, CALL)
            .await
            .unwrap();
    }

    pub(crate) async fn stop_publishing(&self) -> Ledger {
        self.publisher.post("/publish/stop", &()).await
    }

    /// Waits for the clients, reads all anew, and collects both reports: the publisher's and the clients'.
    pub(crate) async fn finish(
        &self,
        ledger: &Ledger,
        wait: Span,
    ) -> (ShardReport, ShardReport, FinalRead) {
        let finish = Finish {
            marks: marks(ledger),
            wait,
            aborted: false,
        };
        let clients = self.clients.post("/finish", &finish).await;
        let publisher = self.publisher.post("/finish", &finish).await;
        let read = self.publisher.post("/final-read", &()).await;
        (publisher, clients, read)
    }

    pub(crate) async fn end(self) {
        for shard in [self.publisher, self.clients] {
            shard.shutdown.cancel();
            shard.served.await.unwrap();
        }
    }
}

/// The highest acknowledged seq of each stream.
pub(crate) fn marks(ledger: &Ledger) -> BTreeMap<String, Seq> {
    let highest = |runs: &model::shard::SeqRuns| {
        runs.iter()
            .map(|(seq, _, length)| seq + length - 1)
            .max()
            .unwrap_or(0)
    };
    ledger
        .streams
        .iter()
        .map(|(stream, held)| (stream.clone(), highest(&held.acknowledged)))
        .collect()
}

/// `count` clients of all these streams, at once.
pub(crate) fn clients(count: u32, streams: &[&str]) -> ClientsConfig {
    ClientsConfig {
        first: 0,
        count,
        fleet: count,
        streams: streams.iter().map(|stream| (*stream).to_owned()).collect(),
        per_client: u32::try_from(streams.len()).unwrap(),
        ramp: Span::from_millis(100),
        policy: Policy::Spread,
        capacity: Some(Rate::per_second(100.0)),
        late_after: Span::from_millis(500),
    }
}

/// Events of these streams, 20 a second.
pub(crate) fn publish(streams: &[&str], secret: &str) -> PublishConfig {
    PublishConfig {
        burst: None,
        streams: streams.iter().map(|stream| (*stream).to_owned()).collect(),
        rate: Rate::per_second(20.0),
        secret: secret.to_owned(),
    }
}

/// Asserts that nothing was lost and nothing was found, on streams that began with this run.
pub(crate) fn assert_clean(
    ledger: &Ledger,
    publisher: &ShardReport,
    clients: &ShardReport,
    read: &FinalRead,
) {
    for report in [publisher, clients] {
        let found: Vec<_> = report.findings.iter().collect();
        assert!(found.is_empty(), "{found:?}");
    }
    assert_eq!(read.failed, BTreeMap::new());
    for (stream, held) in &ledger.streams {
        assert!(
            held.unknown.is_empty() && held.failed.is_empty(),
            "{stream}: {held:?}"
        );
        let count = held.invoked.len();
        assert!(count > 0, "nothing was published to {stream}");
        assert_eq!(held.acknowledged, [(1, 0, count)], "{stream}");
        assert_eq!(read.streams[stream].events, held.acknowledged);
        assert_eq!(
            (read.streams[stream].head, read.streams[stream].foreign),
            (count, 0)
        );
        let applied: Vec<_> = clients
            .applied
            .iter()
            .filter(|entry| entry.stream == *stream)
            .collect();
        assert_eq!(applied.len(), 1, "all applied the same: {applied:?}");
        assert_eq!(
            applied[0].seqs,
            model::intervals::IntervalSet::range(1, count)
        );
        assert_eq!(applied[0].indexes, held.invoked);
    }
}
