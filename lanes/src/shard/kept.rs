//! Which clients of a slice are kept in the evidence, with their last moments: those about which something was found,
//! and those that did not have everything in the end.

use std::collections::BTreeMap;

use model::anomaly::Anomaly;
use model::moment::{CLIENTS_KEPT, ClientRecord};

/// The clients to be explained, as they are met.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// With the place of each among those that have one of its anomalies.
    records: Vec<(usize, ClientRecord)>,
    met: BTreeMap<Anomaly, usize>,
}

impl Kept {
    /// Another one.
    pub(super) fn take(&mut self, record: ClientRecord) {
        let unfinished = record.unfinished.as_ref().map(|_| Anomaly::NotRecovered);
        let found = record.findings.iter().map(|(anomaly, _)| anomaly);
        let mut rank = usize::MAX;
        for anomaly in found.chain(unfinished) {
            let met = self.met.entry(anomaly).or_default();
            rank = rank.min(*met);
            *met += 1;
        }
        if rank < CLIENTS_KEPT {
            self.records.push((rank, record));
        }
    }

    /// The first of each kind of anomaly, then the second of each, and so on, as far as there is room.
    pub(super) fn done(mut self) -> Vec<ClientRecord> {
        self.records.sort_by_key(|(rank, _)| *rank);
        self.records.truncate(CLIENTS_KEPT);
        self.records.sort_by_key(|(_, record)| record.client);
        self.records.into_iter().map(|(_, record)| record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::anomaly::{Example, Findings};
    use model::ids::ClientId;

    fn record(client: u32, kinds: &[Anomaly]) -> ClientRecord {
        let mut findings = Findings::default();
        for kind in kinds {
            let example = Example {
                client: Some(ClientId(client)),
                stream: None,
                seq: None,
                detail: String::new(),
                at: None,
            };
            findings.note(*kind, example);
        }
        ClientRecord {
            client: ClientId(client),
            unfinished: None,
            findings,
            streams: Vec::new(),
            forgotten: 0,
            moments: Vec::new(),
        }
    }

    #[test]
    fn the_first_of_each_kind_is_kept_however_many_there_are_of_another() {
        let mut kept = Kept::default();
        for client in 0..500 {
            kept.take(record(client, &[Anomaly::DuplicateDelivery]));
        }
        kept.take(record(500, &[Anomaly::Leak]));
        kept.take(ClientRecord {
            unfinished: Some("Stopped".to_owned()),
            ..record(501, &[])
        });
        kept.take(record(502, &[Anomaly::Leak]));
        let clients: Vec<u32> = kept
            .done()
            .into_iter()
            .map(|record| record.client.0)
            .collect();
        assert_eq!(clients.len(), CLIENTS_KEPT);
        assert_eq!(clients[CLIENTS_KEPT - 3..], [500, 501, 502]);
        assert_eq!(clients[..3], [0, 1, 2]);
    }
}
