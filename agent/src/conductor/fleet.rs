//! The shards as one: what they are told and asked. Every call goes through the agent.

use std::time::Duration;

use futures_util::future::try_join_all;
use host::http::{CallError, Method};
use model::instant::Mono;
use model::quantity::Span;
use model::shard::{
    CleanUp, Cursors, Episode, FinalRead, Finish, Ledger, ShardReport, ShardStatus, Start, Tick,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::steady::Sample;
use super::target::Target;
use crate::client::Agent;

const SOON: Duration = Duration::from_secs(5);
/// A final read goes through all streams.
const FINAL_READ_WITHIN: Duration = Duration::from_secs(20);

/// A clean-up reads all streams several times.
const CLEAN_UP_WITHIN: Duration = Duration::from_mins(1);

/// A shard, and the agent whose child it is.
#[derive(Debug, Clone)]
pub struct Shard {
    /// The agent.
    pub agent: Agent,
    /// Its name there.
    pub name: String,
}

/// All shards of a trial.
#[derive(Debug)]
pub struct Fleet {
    /// The publisher's first.
    shards: Vec<Shard>,
    /// What the publisher had acknowledged by the last tick, to be handed round in the next.
    news: Tick,
}

impl Fleet {
    /// The fleet of a target.
    #[must_use]
    pub fn new(target: &Target) -> Self {
        let shards = std::iter::once(target.publisher.clone())
            .chain(target.shards.clone())
            .collect();
        Self {
            shards,
            news: Tick::default(),
        }
    }

    /// How many shards there are, the publisher's included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// The heads of the streams that are to be published to: where a trial begins among others.
    ///
    /// # Errors
    /// The publisher did not answer, or could not read one.
    pub async fn heads(&self) -> Result<Cursors, CallError> {
        self.publisher(Method::GET, "/heads", &(), SOON).await
    }

    /// Lets the clients connect, to begin after these cursors, and the publisher publish.
    ///
    /// # Errors
    /// A shard did not answer.
    pub async fn start(&self, cursors: &Cursors) -> Result<(), CallError> {
        let start = Start {
            cursors: cursors.clone(),
        };
        self.all::<serde_json::Value>(Method::POST, "/start", &start, SOON)
            .await
            .map(drop)
    }

    /// Hands round what was acknowledged since the last tick, and asks how the shards are doing.
    ///
    /// # Errors
    /// A shard did not answer.
    pub async fn tick(&mut self) -> Result<Sample, CallError> {
        let mut statuses: Vec<ShardStatus> =
            self.all(Method::POST, "/tick", &self.news, SOON).await?;
        self.news = Tick::default();
        for status in &mut statuses {
            if let Some(until) = status.complete_until {
                let acknowledged = std::mem::take(&mut status.acknowledged);
                self.news = Tick {
                    acknowledged,
                    complete_until: until,
                };
            }
        }
        let at = statuses
            .iter()
            .map(|status| status.at)
            .max()
            .unwrap_or(Mono(0));
        Ok(Sample::of(at, &statuses))
    }

    /// Tells all shards what time it is under fault.
    ///
    /// # Errors
    /// A shard did not answer.
    pub async fn tell(&self, episode: &Episode) -> Result<(), CallError> {
        self.all::<serde_json::Value>(Method::PUT, "/episode", episode, SOON)
            .await
            .map(drop)
    }

    /// Stops the publisher; what became of its events.
    ///
    /// # Errors
    /// The publisher did not answer.
    pub async fn stop_publishing(&self) -> Result<Ledger, CallError> {
        self.publisher(Method::POST, "/publish/stop", &(), SOON)
            .await
    }

    /// Reads all streams anew.
    ///
    /// # Errors
    /// The reader did not answer; a stream that could not be read is not an error here.
    pub async fn final_read(&self) -> Result<FinalRead, CallError> {
        self.publisher(Method::POST, "/final-read", &(), FINAL_READ_WITHIN)
            .await
    }

    /// Removes what was published. To be asked when the fleet has ended: to a client, a removal looks like a loss.
    ///
    /// # Errors
    /// The publisher did not answer; what could not be removed is not an error here.
    pub async fn clean_up(&self) -> Result<CleanUp, CallError> {
        self.publisher(Method::POST, "/clean-up", &(), CLEAN_UP_WITHIN)
            .await
    }

    /// Ends the fleet: what each shard saw, or why it cannot be had.
    pub async fn finish(&self, finish: &Finish) -> Vec<Result<ShardReport, CallError>> {
        let within = finish.wait.plus(Span::from_secs(10)).duration();
        let reports = self
            .shards
            .iter()
            .map(|shard| shard.call(Method::POST, "/finish", finish, within));
        futures_util::future::join_all(reports).await
    }

    async fn all<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<Vec<T>, CallError> {
        try_join_all(
            self.shards
                .iter()
                .map(|shard| shard.call(method.clone(), path, body, within)),
        )
        .await
    }

    async fn publisher<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, CallError> {
        self.shards[0].call(method, path, body, within).await
    }
}

impl Shard {
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, CallError> {
        self.agent
            .call_child(&self.name, method, path, body, within)
            .await
    }
}
