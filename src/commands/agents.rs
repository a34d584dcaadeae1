//! `faultlane agents` and `faultlane halt`: many agents, asked at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent::api::AgentStatus;
use agent::client::Agent;
use agent::offset::{self, Offset};
use agent::reach::reach;
use host::http::CallError;
use model::role::PROTOCOL_VERSION;
use scenarios::inventory::{ClientFiles, Entry, Place};
use tokio::task::JoinSet;

use super::{print, processes, source};
use crate::cli::operating::{HaltArgs, Whom};
use crate::exit::{Error, Exit};

/// So many round trips tell a clock's offset.
const ROUNDS: u32 = 8;
/// Whoever has not answered by then cannot be reached.
const WITHIN: Duration = Duration::from_secs(20);

pub(super) fn agents(args: &Whom) -> Result<Exit, Error> {
    ask(args, "reached", |agent| async move {
        let status = agent.status().await?;
        let offset = offset::measure(&agent, ROUNDS).await?;
        Ok(described(&status, offset))
    })
}

pub(super) fn halt(args: &HaltArgs) -> Result<Exit, Error> {
    let clear = args.clear;
    let done = if clear { "cleared" } else { "halted" };
    ask(&args.whom, done, move |agent| async move {
        if clear {
            agent.clear_halt().await?;
            return Ok("the halt is cleared".to_owned());
        }
        let halted = agent.halt().await?;
        let text = match halted.undone.as_slice() {
            [] => "halted; no fault was in force".to_owned(),
            undone => format!("halted; undone: {}", undone.join(", ")),
        };
        if halted.status.faults.is_empty() {
            return Ok(text);
        }
        let left = halted.status.faults.join(", ");
        Err(Trouble(format!(
            "{text}; not undone yet, tried again: {left}"
        )))
    })
}

/// What is wrong with one agent, in words.
struct Trouble(String);

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self(error.to_string())
    }
}

/// Asks all of them at once, and says of each what came of it, in the order in which they are named.
fn ask<F, A>(args: &Whom, done: &str, question: F) -> Result<Exit, Error>
where
    F: Fn(Agent) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<String, Trouble>> + Send,
{
    let entries = entries(args)?;
    let answers = processes::runtime()?.block_on(async {
        let mut asking = JoinSet::new();
        for (at, entry) in entries.iter().enumerate() {
            let (place, question) = (entry.at.clone(), question.clone());
            // To look for an address may take long too, and nobody waits for that of another.
            asking.spawn(async move {
                let ask = async {
                    let agent = reach(&place).await;
                    question(agent.map_err(|error| Trouble(error.to_string()))?).await
                };
                let late = |_| Err(Trouble(format!("no answer within {WITHIN:?}")));
                (
                    at,
                    tokio::time::timeout(WITHIN, ask).await.unwrap_or_else(late),
                )
            });
        }
        let answers: BTreeMap<_, _> = asking.join_all().await.into_iter().collect();
        Ok::<_, Error>(answers)
    })?;
    let mut exit = Exit::Go;
    for (entry, answer) in entries.iter().zip(answers.into_values()) {
        let said = answer.unwrap_or_else(|Trouble(trouble)| {
            exit = Exit::CouldNotRun;
            format!("NOT {done}: {trouble}")
        });
        print(&format!("{}: {said}\n", entry.name));
    }
    Ok(exit)
}

fn entries(args: &Whom) -> Result<Vec<Entry>, Error> {
    if let Some(path) = &args.inventory {
        return Ok(source::inventory(path)?.agents);
    }
    args.agents.iter().map(|addr| typed(args, addr)).collect()
}

fn typed(args: &Whom, addr: &str) -> Result<Entry, Error> {
    let address = addr.to_owned();
    let at = match (&args.ca, &args.certificate, &args.key, &args.token) {
        _ if addr.contains('/') => Place::Socket(addr.into()),
        (Some(ca), Some(certificate), Some(key), _) => Place::Tls {
            address,
            files: ClientFiles {
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
                server_name: None,
            },
        },
        (_, _, _, Some(token)) => {
            let loopback = addr
                .parse::<std::net::SocketAddr>()
                .is_ok_and(|addr| addr.ip().is_loopback());
            if !loopback {
                return Err(Error::usage(format!(
                    "--agent {addr}: a token is shown on loopback only, in plain text; give --ca, --certificate and --key"
                )));
            }
            let token = token.clone();
            Place::Loopback { address, token }
        }
        _ => {
            return Err(Error::usage(format!(
                "--agent {addr}: give --ca, --certificate and --key, or the --token file of an agent on loopback"
            )));
        }
    };
    Ok(Entry {
        name: addr.to_owned(),
        at,
        labels: BTreeMap::new(),
        host: None,
        runs: BTreeSet::new(),
    })
}

fn described(status: &AgentStatus, offset: Offset) -> String {
    let list = |names: &[String]| match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    let protocol = if status.protocol == PROTOCOL_VERSION {
        status.protocol.to_string()
    } else {
        format!("{} (this is {PROTOCOL_VERSION})", status.protocol)
    };
    let run = status.run.as_ref().map_or_else(
        || "no run has it".to_owned(),
        |run| format!("held by run {} of {}", run.run, run.by),
    );
    let halted = if status.halted { "HALTED" } else { "ready" };
    format!(
        "{halted}; `{}`, process {}, protocol {protocol}; clock {} ahead ± {}; faults: {}; children: {}; {run}",
        status.name,
        status.pid,
        milliseconds(offset.wall_us),
        offset.within,
        list(&status.faults),
        list(&status.children),
    )
}

fn milliseconds(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    format!("{sign}{}.{:03} ms", micros / 1_000, micros % 1_000)
}
