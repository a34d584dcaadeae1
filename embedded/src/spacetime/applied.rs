//! The answer to a subscription that was made or ended.

use lanes::spacetime::message::{
    DatabaseUpdate, InitialSubscription, MultiApplied, QueryApplied, QueryId, QueryUpdate,
    ServerMessage, SubscribeRows, TableUpdate, TimeDuration,
};
use lanes::spacetime::rows::Table;
use model::ids::ClientId;
use model::target::Wire;
use tokio_websockets::Message;

use super::snapshot::Found;
use crate::defect::Defects;

/// The answer to a subscription, not yet encoded.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) kind: AppliedKind,
    pub(crate) request_id: u32,
    pub(crate) rows: Vec<(Table, Vec<Found>)>,
}

/// What the answer is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppliedKind {
    /// `Subscribe`
    Legacy,
    /// `SubscribeSingle`, by its query id
    Single(u32),
    /// `SubscribeMulti`
    Multi(u32),
    /// `Unsubscribe`
    EndSingle(u32),
    /// `UnsubscribeMulti`
    EndMulti(u32),
}

impl Applied {
    fn ends(&self) -> bool {
        matches!(
            self.kind,
            AppliedKind::EndSingle(_) | AppliedKind::EndMulti(_)
        )
    }

    /// How many rows it delivers.
    pub(crate) fn delivers(&self) -> u64 {
        if self.ends() {
            return 0;
        }
        self.rows.iter().map(|(_, found)| found.len() as u64).sum()
    }

    /// The answer.
    pub(crate) fn encode(self, wire: Wire, defects: Defects, client: Option<ClientId>) -> Message {
        let ended = self.ends();
        let mut tables: Vec<TableUpdate> = self
            .rows
            .into_iter()
            .map(|(table, found)| {
                let rows = found
                    .iter()
                    .map(|row| row.row(defects, client).in_snapshot(wire))
                    .collect();
                let update = if ended {
                    QueryUpdate {
                        deletes: rows,
                        inserts: Vec::new(),
                    }
                } else {
                    QueryUpdate {
                        deletes: Vec::new(),
                        inserts: rows,
                    }
                };
                TableUpdate::new(table, vec![update])
            })
            .collect();
        let request_id = self.request_id;
        let multi = |id, tables| MultiApplied {
            request_id,
            total_host_execution_duration_micros: 0,
            query_id: QueryId { id },
            update: DatabaseUpdate { tables },
        };
        let message = match self.kind {
            AppliedKind::Legacy => ServerMessage::InitialSubscription(InitialSubscription {
                database_update: DatabaseUpdate { tables },
                request_id,
                total_host_execution_duration: TimeDuration::default(),
            }),
            AppliedKind::Multi(id) => ServerMessage::SubscribeMultiApplied(multi(id, tables)),
            AppliedKind::EndMulti(id) => ServerMessage::UnsubscribeMultiApplied(multi(id, tables)),
            AppliedKind::Single(id) | AppliedKind::EndSingle(id) => {
                let table_rows = tables.remove(0);
                let applied = QueryApplied {
                    request_id,
                    total_host_execution_duration_micros: 0,
                    query_id: QueryId { id },
                    rows: SubscribeRows {
                        table_id: table_rows.table_id,
                        table_name: table_rows.table_name.clone(),
                        table_rows,
                    },
                };
                if ended {
                    ServerMessage::UnsubscribeApplied(applied)
                } else {
                    ServerMessage::SubscribeApplied(applied)
                }
            }
        };
        message.frame(wire).into_message()
    }
}
