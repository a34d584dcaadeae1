//! Established connections are ended: the kernel destroys the socket, and its peer is sent RST.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use host::clock;
use host::http::Failure;
use model::fault::{DropSockets, Observation};
use model::instant::Mono;

use super::super::NotApplied;
use super::super::deed::{Deed, Undone};
use super::ruleset::Spared;
use super::{Change, away, failed};
use crate::journal::Undo;
use crate::tool::{self, ToolError};

/// Both ends of a connection, as ss writes them.
type Ends = (String, String);

/// The connections that are to end.
#[derive(Debug)]
pub(super) struct SocketsFault {
    filter: Vec<String>,
    killed: Mutex<BTreeSet<Ends>>,
}

impl SocketsFault {
    pub(super) fn new(settings: &DropSockets, spared: &Spared) -> Self {
        Self {
            filter: filter(settings, spared),
            killed: Mutex::default(),
        }
    }

    async fn kill(&self) -> Result<(), NotApplied> {
        let filter = self.filter.clone();
        let killed = away(move || matching(&["-K"], &filter)).await;
        let killed = killed.map_err(|error| NotApplied::half_way(failed(&error)))?;
        *self.killed.lock().unwrap_or_else(PoisonError::into_inner) = killed;
        Ok(())
    }

    /// Of those that ss says it has ended, which the kernel shows no longer.
    async fn gone(&self) -> Result<(Mono, Observation), Failure> {
        let filter = self.filter.clone();
        let there = away(move || matching(&[], &filter)).await;
        let there = there.map_err(|error| failed(&error))?;
        let observed = clock::now();
        let killed = self.killed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |ends: usize| u64::try_from(ends).unwrap_or(u64::MAX);
        let gone = count(killed.difference(&there).count());
        Ok((
            observed,
            Observation {
                bitten: gone,
                observed: (gone > 0).then_some(observed),
                figures: [
                    ("sockets_killed".to_owned(), gone),
                    ("sockets_survived".to_owned(), count(killed.len()) - gone),
                ]
                .into(),
            },
        ))
    }
}

impl Deed for SocketsFault {
    fn undo_record(&self) -> Undo {
        Undo::Network(Change::Sockets)
    }

    fn strike(&self) -> BoxFuture<'_, Result<(), NotApplied>> {
        Box::pin(self.kill())
    }

    fn bite(&self) -> BoxFuture<'_, Result<(Mono, Observation), Failure>> {
        Box::pin(self.gone())
    }

    fn look<'a>(&'a self, _: &'a mut Observation) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn undo<'a>(
        &'a self,
        _ending: bool,
        _: &'a mut Observation,
    ) -> BoxFuture<'a, Result<Undone, Failure>> {
        Box::pin(async { Ok((None, "ended connections stay ended".to_owned())) })
    }
}

/// The local and the remote end of each connection.
fn matching(how: &[&str], filter: &[String]) -> Result<BTreeSet<Ends>, ToolError> {
    let mut args = vec!["-H", "-t", "-n"];
    args.extend(how);
    args.extend(["state", "established"]);
    args.extend(filter.iter().map(String::as_str));
    let said = tool::run("ss", &args, b"")?;
    Ok(String::from_utf8_lossy(&said)
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace().skip(2);
            Some((columns.next()?.to_owned(), columns.next()?.to_owned()))
        })
        .collect())
}

/// The filter in the words of ss.
fn filter(settings: &DropSockets, spared: &Spared) -> Vec<String> {
    let of_port = |end: &str, port: u16| format!("{end} = :{port}");
    let mut all = Vec::new();
    let peers: Vec<String> = settings
        .peers
        .iter()
        .map(|peer| format!("dst {}/{}", peer.addr(), peer.prefix_len()))
        .collect();
    if peers.is_empty() {
        let loopback = [("127.0.0.0", 8), ("::1", 128)];
        all.extend(loopback.map(|(addr, len)| format!("not dst {addr}/{len}")));
    } else {
        all.push(format!("( {} )", peers.join(" or ")));
    }
    let ports: Vec<String> = settings
        .ports
        .iter()
        .flat_map(|port| ["sport", "dport"].map(|end| of_port(end, port.get())))
        .collect();
    if !ports.is_empty() {
        all.push(format!("( {} )", ports.join(" or ")));
    }
    let named = |port: &u16| settings.ports.iter().any(|named| named.get() == *port);
    let spared = spared.own.iter().chain(&spared.either);
    for port in spared.filter(|port| !named(port)) {
        all.extend(["sport", "dport"].map(|end| format!("not {}", of_port(end, *port))));
    }
    let words = all.join(" and ");
    words.split(' ').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_says_whom_and_whom_not() {
        let mut settings = DropSockets {
            peers: vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
            ports: vec![80.try_into().unwrap()],
        };
        let spared = Spared {
            own: vec![4000],
            either: vec![22],
        };
        assert_eq!(
            filter(&settings, &spared).join(" "),
            "( dst 10.0.0.0/8 or dst ::1/128 ) and ( sport = :80 or dport = :80 ) \
             and not sport = :4000 and not dport = :4000 and not sport = :22 and not dport = :22"
        );
        settings.ports.push(22.try_into().unwrap());
        settings.peers.clear();
        let all = filter(&settings, &spared).join(" ");
        assert!(
            all.starts_with("not dst 127.0.0.0/8 and not dst ::1/128 and ("),
            "{all}"
        );
        assert!(!all.contains("not sport = :22"), "{all}");
    }
}
