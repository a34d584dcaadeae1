//! What shows that evidence was changed after it was written.
//!
//! Most figures of a row are sums over what shards reported, and a folder does not hold the reports: nobody can compute
//! them anew. So each row carries a digest over all that it says, the digest of the row before it (the first row that of
//! `run.json`) and that of its plan's file. This shows accidents and casual edits. It does not show a forger who computes
//! the digests anew: there is no key in it. Who needs that keeps the last row's digest elsewhere.

use model::event::{canonical_json, payload_hash};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The field of a row in which its seal is.
const FIELD: &str = "seal";

/// The digests of a row. Each is `sha256:<hex>` over canonical JSON, so that white space and the order of keys do not
/// matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Of the row before it in the file, as that row has it; for the first row that of `run.json`.
    pub previous: String,
    /// Of the plan's file; `None` where none was kept.
    pub plan: Option<String>,
    /// Of the row with its seal, without this field.
    pub digest: String,
}

impl Seal {
    /// The seal of a row, given as JSON without one.
    pub(crate) fn of(mut row: Value, previous: &str, plan: Option<&str>) -> Self {
        row[FIELD] = serde_json::json!({"previous": previous, "plan": plan});
        Self {
            previous: previous.to_owned(),
            plan: plan.map(str::to_owned),
            digest: digest(&row),
        }
    }

    /// Whether the row is the one that was sealed.
    pub(crate) fn fits(&self, row: &Value) -> bool {
        Self::of(row.clone(), &self.previous, self.plan.as_deref()) == *self
    }
}

/// `sha256:<hex>` over canonical JSON.
pub(crate) fn digest(value: &Value) -> String {
    payload_hash(&canonical_json(value))
}
