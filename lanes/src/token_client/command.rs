//! A program that the agent runs: its own configuration says which. What is asked for is in the environment; the
//! token is what it prints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use host::http::Client;
use model::command::{CommandAnswer, CommandOrder};
use model::quantity::Span;
use model::target::TokenAsk;

use super::Issued;
use crate::client::machine::Refusal;

/// The agent has a time limit for the program of its own, and a queue before it.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How much of what the program complains of is told.
const COMPLAINT_KEPT: usize = 200;

/// The command, at its agent.
#[derive(Debug)]
pub(super) struct Command {
    agent: Client,
    name: String,
    lead: Span,
}

impl Command {
    pub(super) fn new(name: &str, agent: SocketAddr, lead: Span) -> Self {
        Self {
            agent: Client::new(agent),
            name: name.to_owned(),
            lead,
        }
    }

    pub(super) async fn fetch(&self, ask: &TokenAsk) -> Result<Issued, Refusal> {
        let order = CommandOrder {
            variables: variables(ask),
        };
        let refusal = |reason: String| Refusal {
            reason: format!("the command `{}`: {reason}", self.name),
            ..Refusal::default()
        };
        let path = format!("/commands/{}", self.name);
        let answer: CommandAnswer = self
            .agent
            .post(&path, &order, TIMEOUT)
            .await
            .map_err(|error| refusal(error.to_string()))?;
        if answer.timed_out {
            return Err(refusal("it did not end in time".to_owned()));
        }
        if answer.exit != Some(0) {
            let how = match (answer.exit, answer.signal) {
                (Some(code), _) => format!("it ended with {code}"),
                (None, signal) => format!("it was ended by signal {}", signal.unwrap_or_default()),
            };
            let said: String = answer.stderr.trim().chars().take(COMPLAINT_KEPT).collect();
            return Err(refusal(format!("{how}: {said}")));
        }
        let token = answer.stdout.trim();
        if token.is_empty() || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let reason = "it did not print one token and nothing else";
            return Err(refusal(reason.to_owned()));
        }
        Ok(Issued {
            token: token.to_owned(),
            expires: None,
            lead: self.lead,
        })
    }
}

fn variables(ask: &TokenAsk) -> BTreeMap<String, String> {
    [
        ("IDENTITY", ask.identity.clone()),
        ("TENANT", ask.tenant.clone()),
        ("STREAMS", ask.streams.join(",")),
        ("SCOPES", ask.scopes.join(",")),
        ("TTL_SECONDS", ask.ttl_seconds.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (format!("FAULTLANE_{name}"), value))
    .collect()
}
