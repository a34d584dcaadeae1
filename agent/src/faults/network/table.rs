//! A fault that is an nft table: a partition, or packet loss.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use futures_util::future::BoxFuture;
use host::clock;
use host::http::Failure;
use model::fault::Observation;
use model::instant::{Bracket, Mono};
use serde_json::Value;

use super::super::NotApplied;
use super::super::deed::{Deed, Undone};
use super::ruleset::{self, Spared, Stopped};
use super::{Change, away, failed, in_the_way};
use crate::journal::Undo;
use crate::tool::{self, ToolError};

/// What nft says where a name is taken.
const TAKEN: &str = "File exists";
/// And where there is nothing of that name.
const ABSENT: &str = "No such file or directory";

/// One table, and what it is to stop.
#[derive(Debug)]
pub(super) struct TableFault {
    table: String,
    stopped: Stopped,
    spared: Spared,
    /// When it was first seen to have stopped a packet.
    bitten: OnceLock<Mono>,
}

impl TableFault {
    pub(super) fn new(table: String, stopped: Stopped, spared: Spared) -> Self {
        Self {
            table,
            stopped,
            spared,
            bitten: OnceLock::new(),
        }
    }

    async fn make(&self) -> Result<(), NotApplied> {
        let transaction = self.stopped.create(&self.table, &self.spared);
        away(move || submit(&transaction)).await.map_err(|error| {
            if error.said().contains(TAKEN) {
                let table = &self.table;
                return NotApplied::untouched(in_the_way(&format_args!(
                    "there is an nft table `{table}`, which this fault did not make; where nothing needs it, nft delete table inet {table}"
                )));
            }
            NotApplied::half_way(failed(&error))
        })
    }

    /// Reads the table back from the kernel and holds it against what was ordered.
    async fn is_there(&self) -> Result<(Mono, Observation), Failure> {
        let found = self.list().await?;
        let observed = clock::now();
        for way in self.stopped.ways() {
            let wanted = self.stopped.rules(*way, &self.spared).len();
            let rules = found
                .as_ref()
                .and_then(|found| found.rules.get(way.chain()));
            if rules.is_none_or(|rules| *rules != wanted) {
                return Err(failed(&format_args!(
                    "nft made table `{}`, and the kernel shows {} rules in its chain `{}`, not {wanted}",
                    self.table,
                    rules.copied().unwrap_or_default(),
                    way.chain(),
                )));
            }
        }
        let mut observation = Observation::default();
        let peers = u64::try_from(self.stopped.peers.len()).unwrap_or(u64::MAX);
        if peers > 0 {
            observation.figures.insert("peers".to_owned(), peers);
        }
        self.tell(found.as_ref(), &mut observation);
        Ok((observed, observation))
    }

    /// A table that stands in nobody's way does not bite: packets that it has stopped are what is counted.
    fn tell(&self, found: Option<&Listing>, observation: &mut Observation) {
        let figures = &mut observation.figures;
        figures.insert("table_missing".to_owned(), u64::from(found.is_none()));
        let Some(found) = found else { return };
        let (mut packets, mut bytes) = (0, 0);
        for way in self.stopped.ways() {
            let counted = found.counters.get(way.counter()).copied();
            let (of_way, size) = counted.unwrap_or_default();
            packets += of_way;
            bytes += size;
            figures.insert(format!("packets_dropped_{}", way.counter()), of_way);
        }
        figures.insert("packets_dropped".to_owned(), packets);
        figures.insert("bytes_dropped".to_owned(), bytes);
        observation.bitten = packets;
        if packets > 0 {
            observation.observed = Some(*self.bitten.get_or_init(clock::now));
        }
    }

    async fn list(&self) -> Result<Option<Listing>, Failure> {
        let table = self.table.clone();
        away(move || list(&table))
            .await
            .map_err(|error| failed(&error))
    }

    async fn remove(&self, observation: &mut Observation) -> Result<Undone, Failure> {
        let asked = clock::now();
        let transaction = self.stopped.heal(&self.table);
        // Where the table is only half there this fails, and what follows does it all.
        let healed = away(move || submit(&transaction)).await;
        let found = self.list().await;
        let seen = clock::now();
        if let Ok(Some(found)) = &found {
            self.tell(Some(found), observation);
        }
        let table = self.table.clone();
        away(move || delete(&table))
            .await
            .map_err(|error| failed(&error))?;
        let passes = healed.is_ok() && matches!(&found, Ok(Some(found)) if found.rules.is_empty());
        let observed = if passes { seen } else { clock::now() };
        let reason = match &found {
            Ok(None) => format!("nft table `{}` was not there any more", self.table),
            _ => format!("nft table `{}` is deleted", self.table),
        };
        Ok((Some(Bracket { asked, observed }), reason))
    }
}

impl Deed for TableFault {
    fn undo_record(&self) -> Undo {
        Undo::Network(Change::Table {
            name: self.table.clone(),
        })
    }

    fn strike(&self) -> BoxFuture<'_, Result<(), NotApplied>> {
        Box::pin(self.make())
    }

    fn bite(&self) -> BoxFuture<'_, Result<(Mono, Observation), Failure>> {
        Box::pin(self.is_there())
    }

    fn look<'a>(&'a self, observation: &'a mut Observation) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match self.list().await {
                Ok(found) => self.tell(found.as_ref(), observation),
                Err(error) => tracing::warn!(table = self.table, %error, "not looked at"),
            }
        })
    }

    fn undo<'a>(
        &'a self,
        _ending: bool,
        observation: &'a mut Observation,
    ) -> BoxFuture<'a, Result<Undone, Failure>> {
        Box::pin(self.remove(observation))
    }
}

/// After this there is no such table, whether there was one or not.
pub(super) fn delete(table: &str) -> Result<(), ToolError> {
    submit(&ruleset::delete(table))
}

/// A transaction: all of it is done, or nothing.
fn submit(transaction: &Value) -> Result<(), ToolError> {
    let input = transaction.to_string();
    tool::change("nft", &["-j", "-f", "-"], input.as_bytes())
}

/// What the kernel shows of a table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    /// Packets and bytes, by counter.
    counters: BTreeMap<String, (u64, u64)>,
    /// How many rules, by chain.
    rules: BTreeMap<String, usize>,
}

fn list(table: &str) -> Result<Option<Listing>, ToolError> {
    match tool::run("nft", &["-j", "list", "table", "inet", table], b"") {
        Ok(said) => Ok(Some(read(&said))),
        Err(error) if error.said().contains(ABSENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(said: &[u8]) -> Listing {
    let said: Value = serde_json::from_slice(said).unwrap_or_default();
    let mut listing = Listing::default();
    for object in said["nftables"].as_array().into_iter().flatten() {
        let text = |kind: &str, field: &str| object[kind][field].as_str().map(str::to_owned);
        if let Some(name) = text("counter", "name") {
            let figure = |field: &str| object["counter"][field].as_u64().unwrap_or_default();
            listing
                .counters
                .insert(name, (figure("packets"), figure("bytes")));
        } else if let Some(name) = text("chain", "name") {
            listing.rules.entry(name).or_default();
        } else if let Some(chain) = text("rule", "chain") {
            *listing.rules.entry(chain).or_default() += 1;
        }
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nft_says_is_read() {
        let said = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "inet", "name": "t", "handle": 10}},
            {"counter": {"family": "inet", "name": "in", "table": "t", "handle": 1, "packets": 3, "bytes": 180}},
            {"chain": {"family": "inet", "table": "t", "name": "input", "handle": 2}},
            {"chain": {"family": "inet", "table": "t", "name": "output", "handle": 9}},
            {"rule": {"family": "inet", "table": "t", "chain": "input", "handle": 3, "expr": []}}]}"#;
        let listing = read(said.as_bytes());
        assert_eq!(listing.counters["in"], (3, 180));
        assert_eq!((listing.rules["input"], listing.rules["output"]), (1, 0));
        assert_eq!(read(b"nonsense"), Listing::default());
    }
}
