//! One fault of the plan, from its injection to its undo: by one agent, or by several at once.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use host::clock;
use host::http::CallError;
use host::timer::Timer;
use model::crew::{Reach, When};
use model::fault::{FaultOrder, FaultView, Holder};
use model::instant::Mono;
use model::net::Cidr;
use model::quantity::Span;
use scenarios::plan::Step;
use tokio::sync::mpsc;

use super::reach::Prober;
use crate::client::Agent;
use crate::faults::relay::merge;
use crate::offset::Offset;

/// So long before a partition it is begun to try who hears whom without it.
const BEFORE: Span = Span::from_millis(600);

/// An agent by which a fault is done.
#[derive(Debug, Clone)]
pub struct Aim {
    /// What the inventory calls it; `None` for the conductor's own.
    pub node: Option<String>,
    /// It.
    pub agent: Agent,
    /// The address of its host, where that is known.
    pub host: Option<IpAddr>,
    /// How far its clock is from this one's.
    pub offset: Offset,
}

impl Aim {
    /// Its part of a fault that several do to each other: nobody is cut off from itself.
    fn part(&self, order: &FaultOrder) -> FaultOrder {
        let mut order = order.clone();
        if let (Some(host), Some(peers)) = (self.host, order.fault.peers_mut()) {
            let own = Cidr::from(host);
            // Without any it would be done to all.
            if peers.iter().any(|peer| *peer != own) {
                peers.retain(|peer| *peer != own);
            }
        }
        order
    }

    /// The same words, with the agent's name where it has one.
    fn named(&self, error: &dyn std::fmt::Display) -> String {
        match &self.node {
            Some(node) => format!("node `{node}`: {error}"),
            None => error.to_string(),
        }
    }
}

/// What the agents of a fault see of it, as one.
#[derive(Debug)]
pub struct Seen {
    /// Asked when the first was, seen when the last did; what bit is added up.
    pub view: FaultView,
    /// Those of several that did not see it bite.
    pub toothless: Vec<String>,
}

/// What became of a step.
#[derive(Debug)]
pub enum Outcome {
    /// It is in force.
    Injected(Seen),
    /// It is undone.
    Healed(Seen),
    /// Who heard whom, or why that is not known.
    Reached(When, Result<Vec<Reach>, CallError>),
    /// It could not be injected or undone.
    Failed(String),
}

/// A step under way.
pub struct Walk {
    /// What is to be done.
    pub step: Arc<Step>,
    /// By whom; at least one.
    pub aims: Vec<Aim>,
    /// Who tries who hears whom meanwhile.
    pub prober: Option<Prober>,
    /// The plan's seed.
    pub seed: u64,
    /// When the timeline began.
    pub zero: Mono,
    /// Who wakes it.
    pub timer: Timer,
    /// Its place in the plan.
    pub place: usize,
    /// Who hears of it. When that is gone, the trial is being ended, and nobody needs to know.
    pub outcomes: mpsc::UnboundedSender<(usize, Outcome)>,
}

impl Walk {
    /// Waits for the step's instant, injects, renews the lease, undoes. Each outcome is sent with the step's place in the
    /// plan. When the task is aborted half-way the lease, or whoever ends the trial, undoes the fault.
    pub async fn walk(self) {
        let step = &self.step;
        let begin = self.zero + step.at;
        if self.prober.is_some() {
            self.timer.sleep_until(begin - BEFORE).await;
            // An agent that is slow to answer does not delay the fault: who hears whom is then not known.
            tokio::select! {
                () = self.probe(When::Before) => {}
                () = self.timer.sleep_until(begin) => {}
            }
        }
        self.timer.sleep_until(begin).await;
        match self.inject().await {
            Ok(seen) => self.say(Outcome::Injected(seen)),
            Err(error) => return self.say(Outcome::Failed(error)),
        }
        let end = begin + step.fault.lead() + step.lasts;
        let kept = tokio::select! {
            kept = self.keep_until(end) => kept,
            () = async {
                self.probe(When::During).await;
                std::future::pending::<()>().await;
            } => unreachable!("it goes on until it is dropped"),
        };
        match self.undo().await {
            Ok(mut seen) => {
                // Undone by a halt, or by a lease that could not be renewed any more: at any rate not as planned.
                seen.view.lapsed |= !kept;
                self.say(Outcome::Healed(seen));
            }
            Err(error) => return self.say(Outcome::Failed(error)),
        }
        self.probe(When::After).await;
    }

    fn say(&self, outcome: Outcome) {
        drop(self.outcomes.send((self.place, outcome)));
    }

    async fn probe(&self, phase: When) {
        if let Some(prober) = &self.prober {
            let reached = prober.round(phase).await;
            self.say(Outcome::Reached(phase, reached));
        }
    }

    /// Has all inject it at the same time. Where one cannot, the others undo it.
    async fn inject(&self) -> Result<Seen, String> {
        let step = &self.step;
        let order = FaultOrder {
            id: step.id.clone(),
            fault: step.fault.clone(),
            node: step.node.clone(),
            share: step.share,
            seed: self.seed,
            lease: step.lease,
        };
        // An injection may take longer than a lease, which runs from its beginning.
        let renewing = async {
            loop {
                self.timer.sleep_until(clock::now() + self.third()).await;
                self.renew().await;
            }
        };
        let injecting = join_all(
            self.aims
                .iter()
                .map(|aim| async { aim.agent.inject(&aim.part(&order)).await }),
        );
        let injected = tokio::select! {
            injected = injecting => injected,
            () = renewing => unreachable!("it goes on until it is dropped"),
        };
        let failed = self.failed("inject", &injected);
        let Some(mut why) = failed else {
            return Ok(self.seen(injected.into_iter().flatten().collect()));
        };
        let others = self
            .aims
            .iter()
            .zip(&injected)
            .filter(|(_, injected)| injected.is_ok());
        let undoing = others.map(|(aim, _)| async move {
            aim.agent
                .undo(&step.id)
                .await
                .map_err(|error| aim.named(&error))
        });
        for undone in join_all(undoing).await {
            if let Err(error) = undone {
                why = format!("{why}; and it could not be undone: {error}");
            }
        }
        Err(why)
    }

    /// Renews the lease until then; whether that went well everywhere.
    async fn keep_until(&self, end: Mono) -> bool {
        loop {
            let now = clock::now();
            self.timer.sleep_until(end.min(now + self.third())).await;
            if clock::now() >= end {
                return true;
            }
            if self.renew().await {
                return false;
            }
        }
    }

    /// Renews the lease everywhere; whether one has lapsed or was undone, so that to go on renewing would not help.
    async fn renew(&self) -> bool {
        let step = &self.step;
        let renewing = self
            .aims
            .iter()
            .map(|aim| aim.agent.renew(&step.id, step.lease));
        let mut lapsed = false;
        for (aim, renewed) in self.aims.iter().zip(join_all(renewing).await) {
            if let Err(error) = renewed {
                tracing::warn!(
                    fault = step.id,
                    error = aim.named(&error),
                    "the lease could not be renewed"
                );
                lapsed |= matches!(error, CallError::Refused { .. });
            }
        }
        lapsed
    }

    async fn undo(&self) -> Result<Seen, String> {
        let undone = join_all(self.aims.iter().map(|aim| aim.agent.undo(&self.step.id))).await;
        match self.failed("undo", &undone) {
            Some(why) => Err(why),
            None => Ok(self.seen(undone.into_iter().flatten().collect())),
        }
    }

    fn failed(&self, what: &str, answers: &[Result<FaultView, CallError>]) -> Option<String> {
        let failures = self.aims.iter().zip(answers).filter_map(|(aim, answer)| {
            let error = answer.as_ref().err()?;
            Some(format!("{what}: {}", aim.named(error)))
        });
        let failures: Vec<_> = failures.collect();
        (!failures.is_empty()).then(|| failures.join("; "))
    }

    fn seen(&self, views: Vec<FaultView>) -> Seen {
        seen_by(self.aims.iter().zip(views), self.step.fault.holder())
    }

    fn third(&self) -> Span {
        Span::from_micros(self.step.lease.as_micros() / 3)
    }
}

/// What several agents see, as one, in this host's clock. There is at least one.
///
/// What children hold is one fault, wherever they are, whose figures add up. What agents do is as many faults as there are of
/// them, each of which has to bite, with figures of its own.
pub(super) fn seen_by<'a>(
    views: impl Iterator<Item = (&'a Aim, FaultView)>,
    holder: Holder,
) -> Seen {
    let views: Vec<_> = views
        .map(|(aim, view)| (aim, aim.offset.here(view)))
        .collect();
    let apart = holder == Holder::Agent && views.len() > 1;
    let toothless = views
        .iter()
        .filter(|(_, view)| apart && view.observation.bitten == 0);
    let toothless = toothless.filter_map(|(aim, _)| aim.node.clone()).collect();
    let views = views.into_iter().map(|(aim, mut view)| {
        if let Some(node) = aim.node.as_deref().filter(|_| apart) {
            let figures = std::mem::take(&mut view.observation.figures).into_iter();
            view.observation.figures = figures
                .map(|(name, value)| (format!("{name}@{node}"), value))
                .collect();
        }
        view
    });
    Seen {
        view: merge(views.collect()).expect("a fault is done by somebody"),
        toothless,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use model::fault::{DropSockets, Fault, Observation};
    use model::instant::Bracket;
    use model::quantity::Share;

    use super::*;

    fn aim(name: &str, ahead: i64) -> Aim {
        Aim {
            node: Some(name.to_owned()),
            agent: Agent::new((Ipv4Addr::LOCALHOST, 1).into()),
            host: None,
            offset: Offset {
                mono_us: ahead,
                wall_us: 0,
                within: Span::from_micros(5),
            },
        }
    }

    fn view(at: u64, bitten: u64) -> FaultView {
        FaultView {
            id: "f1-kill".to_owned(),
            active: true,
            injected: Bracket {
                asked: Mono(at),
                observed: Mono(at + 10),
            },
            healed: None,
            lapsed: false,
            observation: Observation {
                bitten,
                observed: Some(Mono(at + 7)),
                figures: [("pid_before".to_owned(), bitten)].into(),
            },
        }
    }

    #[test]
    fn faults_of_several_hosts_are_told_in_one_clock_and_each_has_to_bite() {
        let aims = [aim("a", 1_000_000), aim("b", -400)];
        let views = vec![view(1_005_000, 3), view(4_700, 0)];
        let seen = seen_by(aims.iter().zip(views), Holder::Agent);
        let injected = seen.view.injected;
        assert_eq!(
            (injected.asked, injected.observed),
            (Mono(4_995), Mono(5_115))
        );
        assert_eq!(seen.view.observation.observed, Some(Mono(5_007)));
        assert_eq!(seen.view.observation.bitten, 3);
        let figures = [
            ("pid_before@a".to_owned(), 3),
            ("pid_before@b".to_owned(), 0),
        ];
        assert_eq!(seen.view.observation.figures, figures.into());
        assert_eq!(seen.toothless, ["b"]);
    }

    #[test]
    fn nobody_is_cut_off_from_itself_and_nobody_from_all_for_that() {
        let own: IpAddr = [10, 0, 0, 1].into();
        let aim = Aim {
            host: Some(own),
            ..aim("a", 0)
        };
        let part = |peers: &[&str]| {
            let peers: Vec<_> = peers.iter().map(|peer| peer.parse().unwrap()).collect();
            let mut part = aim.part(&FaultOrder {
                id: "f1".to_owned(),
                fault: Fault::DropSockets(DropSockets {
                    peers,
                    ports: Vec::new(),
                }),
                node: None,
                share: Share::ALL,
                seed: 1,
                lease: Span::from_secs(1),
            });
            let left = part.fault.peers_mut().unwrap();
            left.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(part(&["10.0.0.1", "10.0.0.2"]), ["10.0.0.2"]);
        assert_eq!(part(&["10.0.0.1"]), ["10.0.0.1"]);
        assert_eq!(part(&[]), [""; 0]);
    }

    #[test]
    fn what_proxies_hold_is_one_fault() {
        let aims = [aim("a", 0), aim("b", 0)];
        let seen = seen_by(
            aims.iter().zip(vec![view(10, 2), view(20, 0)]),
            Holder::Proxy,
        );
        assert_eq!(
            seen.view.observation.figures,
            [("pid_before".to_owned(), 2)].into()
        );
        assert!(seen.toothless.is_empty());
    }
}
