//! The array of five.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A Phoenix frame with an undecoded payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Five", from = "Five")]
pub struct Frame {
    /// The ref of the join to which it belongs.
    pub join_ref: Option<String>,
    /// By which a reply finds its request; `None` for a push.
    pub reference: Option<String>,
    /// The channel.
    pub topic: String,
    /// What it is.
    pub event: String,
    /// What it says.
    pub payload: Value,
}

type Five = (Option<String>, Option<String>, String, String, Value);

impl From<Five> for Frame {
    fn from((join_ref, reference, topic, event, payload): Five) -> Self {
        Self {
            join_ref,
            reference,
            topic,
            event,
            payload,
        }
    }
}

impl From<Frame> for Five {
    fn from(frame: Frame) -> Self {
        (
            frame.join_ref,
            frame.reference,
            frame.topic,
            frame.event,
            frame.payload,
        )
    }
}

impl Frame {
    /// Reads a frame.
    ///
    /// # Errors
    /// The text is not an array of five.
    pub fn decode(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// Writes a frame without taking its payload through a [`Value`].
#[must_use]
pub fn encode(
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    event: &str,
    payload: &impl Serialize,
) -> String {
    serde_json::to_string(&(join_ref, reference, topic, event, payload))
        .expect("payloads of this crate have a JSON form")
}
