//! Who hears whom around a partition: agents send each other datagrams, each pair both ways, before, during and after.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use futures_util::future::try_join_all;
use host::http::CallError;
use model::crew::{Reach, When};
use model::fault::Fault;
use model::quantity::Span;
use scenarios::plan::Step;

use crate::client::Agent;
use crate::ears::{Close, Ear, Send};

/// So many datagrams each way.
const DATAGRAMS: u16 = 10;
/// What has not come by then does not come.
const WAIT: Span = Span::from_millis(300);

/// An agent that can listen.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// It.
    pub agent: Agent,
    /// Where it is heard.
    pub ip: IpAddr,
}

/// Tries who hears whom.
#[derive(Debug)]
pub struct Prober {
    listeners: Vec<Listener>,
    /// Places in `listeners`: from, to.
    ways: Vec<(u16, u16)>,
}

impl Prober {
    /// Between the agents that do a partition and all others; `None` for other faults, and where nobody else listens.
    #[must_use]
    pub fn around(step: &Step, listeners: Vec<Listener>) -> Option<Self> {
        if step.nodes.is_empty() || !matches!(step.fault, Fault::Partition(_)) {
            return None;
        }
        let takes_part = |listener: &Listener| step.nodes.contains(&listener.name);
        let mut ways = Vec::new();
        for (from, a) in (0..).zip(&listeners) {
            for (to, b) in (0..).zip(&listeners) {
                if from != to && (takes_part(a) || takes_part(b)) {
                    ways.push((from, to));
                }
            }
        }
        (!ways.is_empty()).then_some(Self { listeners, ways })
    }

    /// Tries all ways at the same time.
    ///
    /// # Errors
    /// An agent does not listen or send.
    pub async fn round(&self, phase: When) -> Result<Vec<Reach>, CallError> {
        let ears: Vec<Ear> = try_join_all(
            self.listeners
                .iter()
                .map(|listener| listener.agent.open_ear()),
        )
        .await?;
        let at = |place: u16| &self.listeners[usize::from(place)];
        let sending = self.ways.iter().map(|(from, to)| {
            let ear = &ears[usize::from(*to)];
            let send = Send {
                to: SocketAddr::new(at(*to).ip, ear.port),
                nonce: ear.nonce.clone(),
                tag: *from,
                count: DATAGRAMS,
            };
            async move { at(*from).agent.send(&send).await }
        });
        let sent = try_join_all(sending).await?;
        let closing = (0..)
            .zip(&self.listeners)
            .zip(&ears)
            .map(|((place, listener), ear)| {
                let senders = self.ways.iter().filter(move |(_, to)| *to == place);
                let close = Close {
                    expected: senders.map(|(from, _)| (*from, DATAGRAMS)).collect(),
                    wait: WAIT,
                };
                async move { listener.agent.close_ear(ear.port, &close).await }
            });
        let heard: Vec<BTreeMap<u16, u32>> = try_join_all(closing)
            .await?
            .into_iter()
            .map(|heard| heard.by_tag)
            .collect();
        let reach = self.ways.iter().zip(sent).map(|((from, to), sent)| Reach {
            from: at(*from).name.clone(),
            to: at(*to).name.clone(),
            phase,
            sent: sent.sent,
            received: heard[usize::from(*to)].get(from).copied().unwrap_or(0),
        });
        Ok(reach.collect())
    }
}
