//! External probes beside a trial: each is asked by a task of its own, again and again, and never anew before it has
//! answered or its time was over. What they were told is collected once a tick.
//!
//! ```text
//! ask      one question, over the web or to the agent        answer   which answer is good, and what is said of others
//! promql   the answers of an instant query                   tally    what came of a probe so far
//! ```

use std::time::Duration;

use host::clock;
use model::external::ExternalProbe;
use model::instant::Mono;
use scenarios::plan::{self, Rule};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::ask::Asker;
use self::tally::Tally;
use crate::client::Agent;

mod answer;
mod ask;
mod promql;
mod tally;

/// What a probe was told, or why it was told nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which probe: its place in the plan.
    pub place: usize,
    /// When it was asked.
    pub asked: Mono,
    /// When it had answered, or was given up.
    pub at: Mono,
    /// What is wrong with the answer.
    pub outcome: Result<(), String>,
}

enum Word {
    Asked(usize),
    Answered(Answer),
}

/// The probes of a trial. They end with it.
#[derive(Debug, Default)]
pub struct Probes {
    tallies: Vec<Tally>,
    words: Option<UnboundedReceiver<Word>>,
    fresh: Vec<Answer>,
    tasks: JoinSet<()>,
}

impl Probes {
    /// Begins to ask all of them.
    #[must_use]
    pub fn start(probes: &[plan::Probe], agent: &Agent) -> Self {
        let (sender, words) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for (place, probe) in probes.iter().enumerate() {
            let asker = Asker::new(probe.ask.clone(), agent.clone());
            let (every, within) = (probe.every.duration(), probe.within.duration());
            tasks.spawn(keep_asking(place, asker, every, within, sender.clone()));
        }
        Self {
            tallies: probes.iter().map(Tally::new).collect(),
            words: Some(words),
            fresh: Vec::new(),
            tasks,
        }
    }

    /// Takes in what was said since the last time; a line for each probe that began to fail or is good again.
    pub fn collect(&mut self) -> Vec<String> {
        self.fresh.clear();
        let mut news = Vec::new();
        while let Some(word) = self.words.as_mut().and_then(|words| words.try_recv().ok()) {
            match word {
                Word::Asked(place) => self.tallies[place].asked(),
                Word::Answered(answer) => {
                    news.extend(self.tallies[answer.place].note(&answer));
                    self.fresh.push(answer);
                }
            }
        }
        news
    }

    /// What the last [`Self::collect`] took in.
    #[must_use]
    pub fn fresh(&self) -> &[Answer] {
        &self.fresh
    }

    /// Which probe has failed for so long that the trial has to end, and why. `healed` is when the last fault was over.
    pub fn breach(&mut self, healed: Option<Mono>) -> Option<String> {
        self.tallies
            .iter_mut()
            .find_map(|tally| tally.breach(healed))
    }

    /// Asks no more; what came of each.
    #[must_use]
    pub fn finish(mut self) -> Vec<ExternalProbe> {
        self.tasks.abort_all();
        self.collect();
        self.tallies.into_iter().map(Tally::record).collect()
    }
}

async fn keep_asking(
    place: usize,
    mut caller: Asker,
    every: Duration,
    within: Duration,
    said: UnboundedSender<Word>,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = clock::now();
        let told = said.send(Word::Asked(place)).is_ok();
        let answer = Answer {
            place,
            asked,
            outcome: caller.ask(within).await,
            at: clock::now(),
        };
        if !told || said.send(Word::Answered(answer)).is_err() {
            // The trial is over.
            return;
        }
    }
}

/// Whether a plan's probe has to be good for the system to be steady.
pub(super) fn is_of_steady(probe: &plan::Probe) -> bool {
    probe.rule == Rule::Steady
}

/// How results and reasons call a probe.
pub(super) fn named(probe: &plan::Probe) -> String {
    format!("probe `{}` ({})", probe.name, probe.ask)
}
