//! Upgrade rewriting: a header, a subprotocol or a token is replaced or taken out, in the request for a WebSocket or in the
//! answer to it. Every other byte of the head stays as it was.

use model::fault::Direction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behaviour, On, Slots};
use crate::faults::Effects;
use crate::identity::is_token;
use crate::websocket::HeadEdit;

const SUBPROTOCOL: &str = "sec-websocket-protocol";

/// Edits upgrades.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct WsRewriteUpgrade {
    /// What is edited.
    part: Part,
    /// The header, the subprotocol (none: all of them) or the parameter.
    name: String,
    /// What takes its place; without it, it is taken out.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// A part of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Part {
    /// The value of a header, in each of its lines.
    #[default]
    Header,
    /// One of those that the client offers, or the one that the upstream takes.
    Subprotocol,
    /// A parameter in the request's query, such as a token.
    Query,
    /// What is behind `Bearer`, or another scheme, in the request's `Authorization`.
    Authorization,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Subprotocol => "subprotocol",
            Self::Query => "query",
            Self::Authorization => "authorization",
        }
    }
}

impl Behaviour for WsRewriteUpgrade {
    fn check(&self) -> Result<(), String> {
        let Self { part, name, value } = self;
        let wrong = match part {
            Part::Header if !is_token(name) => "is not the name of a header; use one like Origin",
            Part::Subprotocol if !name.is_empty() && !is_token(name) => "is not a subprotocol",
            Part::Query if name.is_empty() => "is not the name of a parameter; use one like token",
            Part::Authorization if !name.is_empty() => "is superfluous: there is one such header",
            _ => "",
        };
        if !wrong.is_empty() {
            return Err(format!("part {}: name {name:?} {wrong}", part.name()));
        }
        let breaks = |value: &&String| value.bytes().any(|byte| byte.is_ascii_control());
        if let Some(value) = value.as_ref().filter(breaks) {
            return Err(format!(
                "value {value:?} has control characters, which would end the line"
            ));
        }
        Ok(())
    }

    fn check_direction(&self, direction: Direction) -> Result<(), String> {
        if direction == Direction::Downstream
            && matches!(self.part, Part::Query | Part::Authorization)
        {
            return Err(format!(
                "part {}: no answer has that; use stream upstream",
                self.part.name()
            ));
        }
        Ok(())
    }

    fn draws(&self) -> bool {
        false
    }

    fn take_hold(&self, on: &On<'_>, _: &mut Slots, effects: &mut Effects) {
        on.needs_request(effects);
        for way in on.ways() {
            let edit = (self.edit(), on.acts());
            effects.upgrade().head(way).edits.push(edit);
        }
    }
}

impl WsRewriteUpgrade {
    fn edit(&self) -> HeadEdit {
        let (name, value) = (self.name.clone(), self.value.clone());
        match self.part {
            Part::Subprotocol if name.is_empty() => HeadEdit::Header {
                name: SUBPROTOCOL.to_owned(),
                value,
            },
            Part::Header => HeadEdit::Header { name, value },
            Part::Subprotocol => HeadEdit::Item {
                header: SUBPROTOCOL,
                name,
                value,
            },
            Part::Query => HeadEdit::Query { name, value },
            Part::Authorization => HeadEdit::Credentials { value },
        }
    }
}
