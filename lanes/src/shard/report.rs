//! What a slice of the fleet saw, for results.

use std::collections::{BTreeMap, HashMap};

use model::anomaly::{Anomaly, Example};
use model::criteria::Phase;
use model::ids::{ClientId, Seq, StreamId};
use model::instant::Mono;
use model::intervals::IntervalSet;
use model::shard::{
    Applied, CensoredClient, Delivery, DeliveryPart, Episode, Finish, PhaseReport, ShardReport,
    Storm,
};
use model::snapshot::Cover;

use super::fleet::{Fleet, lock, way};
use super::kept::Kept;
use crate::client::journey::Way;
use crate::client::{Client, Sample};
use crate::marks::Marks;

/// How many clients that were not whole are described.
const DESCRIBED: usize = 100;
/// The storm is counted in slots of 100 ms.
const SLOT_US: u64 = 100_000;

impl Fleet {
    /// The report, after [`Fleet::finish`].
    #[must_use]
    pub(super) fn report(&self, finish: &Finish) -> ShardReport {
        let episode = lock(&self.episode).clone();
        let marks = lock(&self.marks);
        let mut writer = Writer {
            report: ShardReport {
                clients: self.config.count,
                ..ShardReport::default()
            },
            episode,
            slots: BTreeMap::new(),
            applied: HashMap::new(),
            kept: Kept::default(),
        };
        for phase in Phase::ALL {
            writer.report.phases.insert(phase, PhaseReport::default());
        }
        for sample in lock(&self.early).iter() {
            writer.deliver(DeliveryPart::Before, sample);
        }
        for member in &self.members {
            writer.client(
                &mut member.client(),
                self.seed,
                &marks,
                finish,
                self.common.kind.framings,
            );
        }
        {
            let contents = lock(&self.common.contents);
            writer.report.seen = contents.seen();
            writer.report.foreign = contents.foreign();
        }
        writer.done()
    }
}

type Content = (StreamId, Seq, IntervalSet, IntervalSet, Option<Cover>);

struct Writer {
    report: ShardReport,
    episode: Option<Episode>,
    slots: BTreeMap<u64, u32>,
    applied: HashMap<Content, Vec<ClientId>>,
    kept: Kept,
}

impl Writer {
    fn client(
        &mut self,
        client: &mut Client,
        seed: u64,
        marks: &Marks,
        finish: &Finish,
        framings: &[&str],
    ) {
        let way = self
            .episode
            .as_ref()
            .and_then(|episode| way(client, seed, episode, marks));
        if let Some(way) = &way {
            self.way(client, way, finish);
        }
        self.storm(client, way.as_ref());
        self.samples(client, way.as_ref());
        self.keep(client, way.as_ref(), finish);
        let report = &mut self.report;
        report.planned_reconnects += client.machine.journey.planned();
        report.rebootstraps += client.rebootstraps;
        report.foreign_rows += client.foreign;
        for (name, count) in framings.iter().zip(client.deliveries) {
            *report.deliveries.entry((*name).to_owned()).or_default() += count;
        }
        report.regressions.append(&mut client.regressions);
        report.findings.merge(&client.findings);
        for stream in &client.streams {
            let (seqs, indexes) = stream.applied();
            let content = (
                stream.stream().to_owned(),
                stream.initial(),
                seqs.clone(),
                indexes.clone(),
                stream.began_from().cloned(),
            );
            self.applied.entry(content).or_default().push(client.id);
        }
    }

    /// A client that lacks something in the end is kept even where the episode did not affect it: what it lacks may
    /// turn out to be lost.
    fn keep(&mut self, client: &Client, way: Option<&Way>, finish: &Finish) {
        let target = |stream: &str| finish.marks.get(stream).copied().unwrap_or(0);
        let censored = way.is_some_and(|way| way.whole.is_none());
        let unfinished = !finish.aborted && (censored || !client.has_reached(target));
        let found = client.findings.iter().next().is_some();
        if unfinished || found {
            let lacked = unfinished.then(|| client.describe(target));
            self.kept.take(client.record(lacked));
        }
    }

    fn way(&mut self, client: &Client, way: &Way, finish: &Finish) {
        let report = &mut self.report;
        report.affected += 1;
        if way.whole.is_none() && finish.aborted {
            report.unknown += 1;
        } else if way.whole.is_none() {
            let detail = client.describe(|stream| finish.marks.get(stream).copied().unwrap_or(0));
            report.findings.note(
                Anomaly::NotRecovered,
                Example {
                    client: Some(client.id),
                    stream: None,
                    seq: None,
                    detail: detail.clone(),
                    at: None,
                },
            );
            if report.censored.len() < DESCRIBED {
                report.censored.push(CensoredClient {
                    client: client.id,
                    detail,
                });
            }
        }
        for (phase, length) in way.phases() {
            let entry = report.phases.entry(phase).or_default();
            match length {
                Some(length) => entry.histogram.record(length),
                None if finish.aborted => {}
                None => entry.censored += 1,
            }
        }
    }

    fn storm(&mut self, client: &Client, way: Option<&Way>) {
        let Some(t0) = self.episode.as_ref().map(|episode| episode.t0) else {
            return;
        };
        let journey = &client.machine.journey;
        for at in journey.attempts().iter().filter(|at| **at >= t0) {
            *self.slots.entry(at.0 / SLOT_US).or_default() += 1;
        }
        let storm = &mut self.report.storm;
        storm.wasted += journey.wasted_since(t0);
        storm.retry_after_given += client.machine.obedience.given;
        storm.retry_after_obeyed += client.machine.obedience.obeyed;
        if let Some(way) = way {
            let attempts = journey.attempts_within(way.t0, way.whole);
            *storm.attempts_per_client.entry(attempts).or_default() += 1;
            let (replayed, missed) = journey.replayed_since(way.t0);
            storm.replayed += replayed;
            storm.missed += missed;
        }
    }

    fn samples(&mut self, client: &Client, way: Option<&Way>) {
        let (from, until) = match (&self.episode, way) {
            (None, _) => (Mono(u64::MAX), Mono(u64::MAX)),
            (Some(_), Some(way)) => (way.t0, way.whole.unwrap_or(Mono(u64::MAX))),
            (Some(episode), None) => (episode.t0, episode.th.unwrap_or(Mono(u64::MAX))),
        };
        for sample in &client.samples {
            let part = if sample.intended < from {
                DeliveryPart::Before
            } else if sample.intended < until {
                DeliveryPart::During
            } else {
                DeliveryPart::After
            };
            self.deliver(part, sample);
        }
    }

    fn deliver(&mut self, part: DeliveryPart, sample: &Sample) {
        let Delivery {
            corrected,
            uncorrected,
        } = self.report.delivery.entry(part).or_default();
        corrected.record(sample.latency);
        if sample.live {
            uncorrected.record(sample.latency);
        }
    }

    fn done(mut self) -> ShardReport {
        self.report.storm = Storm {
            attempts: self.slots.into_iter().collect(),
            ..self.report.storm
        };
        let mut applied: Vec<Applied> = self
            .applied
            .into_iter()
            .map(
                |((stream, initial, seqs, indexes, snapshot), clients)| Applied {
                    stream,
                    clients,
                    initial,
                    seqs,
                    indexes,
                    snapshot,
                },
            )
            .collect();
        applied.sort_by(|a, b| (&a.stream, &a.clients).cmp(&(&b.stream, &b.clients)));
        self.report.applied = applied;
        self.report.kept = self.kept.done();
        self.report
    }
}
