//! A shard's slice of the fleet: started, told of episodes and marks, asked how it is doing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::clock;
use host::peer::Reach;
use model::decide;
use model::defect::Defect;
use model::ids::{ClientId, StreamId};
use model::quantity::Span;
use model::shard::{ClientsConfig, Cursors, Episode, Finish, ShardConfig, ShardStatus, Tick};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_util::task::TaskTracker;

use super::member::{Driver, Live, Member};
use crate::client::apply::StreamApply;
use crate::client::journey::Way;
use crate::client::machine::{Event, Settings};
use crate::client::policy::Pacing;
use crate::client::{Client, Common, Sample};
use crate::content::Contents;
use crate::lane::Kind;
use crate::marks::Marks;
use crate::probes::safety;
use crate::token_client::TokenClient;

/// The share of the fleet that the planted defect keeps down.
const NEVER_RECOVER: f64 = 0.02;
/// How often it is looked whether all clients have got everything.
const LOOK: Span = Span::from_millis(20);

/// The clients of a shard.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) config: ClientsConfig,
    pub(super) seed: u64,
    pub(super) members: Vec<Arc<Member>>,
    pub(super) common: Arc<Common>,
    /// Orders to each member's driver; none once the fleet has been closed.
    orders: Mutex<Vec<UnboundedSender<Event>>>,
    drivers: TaskTracker,
    live: Arc<Live>,
    pub(super) episode: Mutex<Option<Episode>>,
    pub(super) marks: Mutex<Marks>,
    /// Samples from before any fault, taken from clients that had many.
    pub(super) early: Mutex<Vec<Sample>>,
    intended: Mutex<u32>,
}

impl Fleet {
    /// Makes the clients and their drivers; none connects yet.
    #[must_use]
    pub(super) fn new(
        shard: &ShardConfig,
        reach: &Reach,
        tokens: &TokenClient,
        config: ClientsConfig,
    ) -> Self {
        let now = clock::now();
        let common = Arc::new(common(shard, config.late_after));
        let live = Arc::new(Live::default());
        let drivers = TaskTracker::new();
        let (mut members, mut orders) = (Vec::new(), Vec::new());
        for ordinal in config.first..config.first + config.count {
            let id = ClientId(ordinal);
            let streams = streams_of(id, shard.origin.seed, &config);
            let settings = settings(id, shard, &config);
            let member = Member::new(Client::new(settings, streams.clone(), &common, now));
            let driver = Driver {
                member: Arc::clone(&member),
                common: Arc::clone(&common),
                live: Arc::clone(&live),
                endpoint: Arc::clone(&reach.endpoint),
                tokens: tokens.clone(),
                org: shard.tokens.org.clone(),
                streams,
            };
            let (sender, receiver) = unbounded_channel();
            drivers.spawn(driver.run(receiver));
            members.push(member);
            orders.push(sender);
        }
        Self {
            seed: shard.origin.seed,
            config,
            members,
            common,
            orders: Mutex::new(orders),
            drivers,
            live,
            episode: Mutex::default(),
            marks: Mutex::default(),
            early: Mutex::default(),
            intended: Mutex::new(0),
        }
    }

    /// Lets the clients connect, each at its place in the ramp of the whole fleet, to begin after these heads.
    pub(super) fn start(&self, heads: &Cursors) {
        for member in &self.members {
            member.client().begin_after(heads);
        }
        let now = clock::now();
        *lock(&self.intended) = self.config.count;
        for (ordinal, order) in (self.config.first..).zip(lock(&self.orders).iter()) {
            let place = f64::from(ordinal) / f64::from(self.config.fleet.max(1));
            let _ = order.send(Event::Start(now + self.config.ramp.scale(place)));
        }
    }

    /// Gives an order to the `at`-th client.
    pub(super) fn order(&self, at: usize, event: Event) {
        if let Some(order) = lock(&self.orders).get(at) {
            let _ = order.send(event);
        }
    }

    /// Takes in the news of a tick; how the clients are doing.
    #[must_use]
    pub(super) fn tick(&self, tick: Tick) -> ShardStatus {
        let mut marks = lock(&self.marks);
        marks.take(tick);
        let episode = lock(&self.episode).clone();
        let now = clock::now();
        let (live, live_min) = self.live.take();
        let mut status = ShardStatus {
            at: now,
            intended: *lock(&self.intended),
            live,
            live_min,
            ..ShardStatus::default()
        };
        for member in &self.members {
            let mut client = member.client();
            status.attempts += client.machine.journey.attempts().len() as u64;
            status.delivered += client.delivered.0;
            status.late += client.delivered.1;
            status.safety += safety(&client.findings);
            let owed = |stream: &str| marks.highest_at(stream, marks.complete_until());
            status.behind += u32::from(!client.has_reached(owed));
            if let Some(episode) = &episode {
                if let Some(way) = way(&mut client, self.seed, episode, &marks) {
                    status.affected += 1;
                    status.recovered += u32::from(way.whole.is_some());
                }
            } else {
                client.machine.journey.forget(now);
                let early = client.early_samples(now);
                lock(&self.early).extend(early);
            }
        }
        status
    }

    /// Takes note of the time under fault.
    pub(super) fn episode(&self, episode: Episode) {
        *lock(&self.episode) = Some(episode);
    }

    /// Waits until every client has reached the marks, or for so long; then closes all connections.
    pub(super) async fn finish(&self, finish: &Finish) {
        let until = clock::now() + finish.wait;
        let target = |stream: &str| finish.marks.get(stream).copied().unwrap_or(0);
        while clock::now() < until
            && !self
                .members
                .iter()
                .all(|member| member.client().has_reached(target))
        {
            tokio::time::sleep(LOOK.duration()).await;
        }
    }

    /// Closes all connections, and waits for that, but not for long.
    pub(super) async fn close(&self) {
        let orders = std::mem::take(&mut *lock(&self.orders));
        for order in &orders {
            let _ = order.send(Event::Stop);
        }
        drop(orders);
        self.drivers.close();
        self.drivers.wait().await;
    }
}

/// A client's way through the episode.
pub(super) fn way(client: &mut Client, seed: u64, episode: &Episode, marks: &Marks) -> Option<Way> {
    let Client {
        id,
        machine,
        streams,
        ..
    } = client;
    let names = streams.iter().map(StreamApply::stream);
    machine.journey.way(*id, seed, episode, marks, names)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The largest replay by stream, where it differs, and the usual one.
pub(super) fn budgets(shard: &ShardConfig) -> (BTreeMap<StreamId, u64>, u64) {
    let own = shard.stream_budgets.iter();
    let own = own.map(|(stream, (_, budget))| (stream.clone(), *budget));
    (own.collect(), shard.profile.replay_budget)
}

/// How many events each stream has to keep, where that differs, and how many the others.
pub(super) fn retentions(shard: &ShardConfig) -> (BTreeMap<StreamId, u64>, u64) {
    let own = shard.stream_budgets.iter();
    let own = own.map(|(stream, (retention, _))| (stream.clone(), *retention));
    (own.collect(), shard.profile.retention)
}

/// What the clients of a shard have in common.
fn common(shard: &ShardConfig, late_after: Span) -> Common {
    Common {
        kind: Kind::of(shard.lane),
        access: Arc::new(shard.access.clone()),
        promise: shard.promise.clone(),
        budgets: budgets(shard),
        late_after,
        defect: shard.defect,
        contents: Mutex::new(Contents::new(shard.origin.clone(), shard.promise.world)),
    }
}

fn settings(id: ClientId, shard: &ShardConfig, config: &ClientsConfig) -> Settings {
    let seed = shard.origin.seed;
    Settings {
        client: id,
        pacing: Pacing {
            policy: config.policy,
            base: shard.profile.backoff_base,
            cap: shard.profile.backoff_cap,
            seed,
            fleet: config.fleet,
            capacity: config.capacity,
        },
        profile: shard.profile.clone(),
        unix_offset_us: clock::unix_micros().saturating_sub(clock::now().0),
        ignores_retry_after: shard.defect == Some(Defect::IgnoreRetryAfter),
        stays_down: shard.defect == Some(Defect::NeverRecover)
            && never_recovers(id, seed, config.fleet),
    }
}

/// Some clients, and at least one of the fleet.
fn never_recovers(id: ClientId, seed: u64, fleet: u32) -> bool {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is below the fleet's size"
    )]
    let certain = (decide::unit(seed, "never-recover", "", 0) * f64::from(fleet)) as u32;
    id.0 == certain || decide::unit(seed, "never-recover", &id.to_string(), 1) < NEVER_RECOVER
}

/// The streams that a client subscribes to: `per_client` of them, each stream as likely as any other.
fn streams_of(id: ClientId, seed: u64, config: &ClientsConfig) -> Vec<StreamId> {
    let mut ranked: Vec<(f64, &StreamId)> = config
        .streams
        .iter()
        .map(|stream| {
            (
                decide::unit(seed, "subscribe", &format!("{id}:{stream}"), 0),
                stream,
            )
        })
        .collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut taken: Vec<StreamId> = ranked
        .into_iter()
        .take(config.per_client as usize)
        .map(|(_, stream)| stream.clone())
        .collect();
    taken.sort();
    taken
}
