//! One question of a probe: over the web by the conductor itself, or to the agent, which runs a command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::http::{CallError, Client, Method, Response};
use host::peer::Reach;
use model::command::CommandOrder;
use model::target::Access;
use scenarios::plan::{Ask, Reachable, Web};

use super::{answer, promql};
use crate::client::Agent;

/// A body that is longer is no answer to a probe.
const BODY_LIMIT: usize = 1 << 20;
const MASK: &str = "[redacted]";

/// Asks one probe. It keeps its connection from one question to the next.
pub(super) struct Asker {
    ask: Ask,
    agent: Agent,
    line: Option<Line>,
}

/// A server that has been reached.
struct Line {
    client: Client,
    path: String,
    secrets: Arc<[String]>,
}

impl Asker {
    pub(super) fn new(ask: Ask, agent: Agent) -> Self {
        Self {
            ask,
            agent,
            line: None,
        }
    }

    /// Asks once; what is wrong with the answer, or why there is none.
    pub(super) async fn ask(&mut self, within: Duration) -> Result<(), String> {
        let asked = async {
            match &self.ask {
                Ask::Http(http) => {
                    let got = get(&mut self.line, &http.web, within, ToOwned::to_owned).await?;
                    judge(self.line.as_ref(), &got.body, |body| {
                        answer::of_http(http, got.status.as_u16(), body)
                    })
                }
                Ask::Promql(promql) => {
                    let path = |base: &str| promql::path(base, &promql.query);
                    let got = get(&mut self.line, &promql.web, within, path).await?;
                    judge(self.line.as_ref(), &got.body, |body| {
                        promql::judge(promql, got.status.as_u16(), body)
                    })
                }
                Ask::Command(command) => {
                    let order = CommandOrder::default();
                    let ran = self.agent.run_command(&command.run, &order, within).await;
                    answer::of_command(command, &ran.map_err(reason)?)
                }
            }
        };
        // Names are looked up and connections made within the same time.
        let asked = tokio::time::timeout(within, asked).await;
        asked.unwrap_or_else(|_| Err(no_answer(within)))
    }
}

fn no_answer(within: Duration) -> String {
    format!("no answer within {within:?}")
}

/// Without the call: whoever reads it knows what was asked.
fn reason(error: CallError) -> String {
    match error {
        CallError::TimedOut { after, .. } => no_answer(after),
        CallError::Broken { reason, .. } | CallError::Garbled { reason, .. } => reason,
        CallError::Refused { message, .. } => message,
    }
}

/// Judges an answer. A server may repeat what it was sent, so what is said of a bad answer is taken from a body without
/// secrets, before anything is cut off it.
fn judge(
    line: Option<&Line>,
    body: &[u8],
    judge: impl Fn(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    judge(body).map_err(|_| {
        let body = String::from_utf8_lossy(body).into_owned();
        let secrets = line.iter().flat_map(|line| line.secrets.iter());
        let clean = secrets.fold(body, |body, secret| body.replace(secret, MASK));
        let why = judge(clean.as_bytes()).err();
        why.unwrap_or_else(|| "the answer is not as wanted".to_owned())
    })
}

/// `GET`, on the line there is, or on a new one to the first of the server's addresses that takes a connection.
async fn get(
    line: &mut Option<Line>,
    web: &Web,
    within: Duration,
    path: impl Fn(&str) -> String,
) -> Result<Response, String> {
    let send = async |line: &Line| {
        let path = path(&line.path);
        let nothing = Bytes::new();
        line.client
            .send(Method::GET, &path, &[], nothing, within)
            .await
    };
    if let Some(known) = line {
        match send(known).await {
            // A server may close an idle connection just when it is used again, and its name may mean another address by
            // now. To ask anew does no harm.
            Err(CallError::Broken { .. }) => *line = None,
            got => return got.map_err(reason),
        }
    }
    let mut failed = None;
    let reachable = web.reach(&|name| std::env::var(name).ok())?;
    for addr in addresses(&reachable.dial).await? {
        let new = open(&reachable, addr)?;
        match send(&new).await {
            Err(
                error @ CallError::Broken {
                    connected: false, ..
                },
            ) => {
                failed.get_or_insert(format!("{addr}: {}", reason(error)));
            }
            got => {
                *line = Some(new);
                return got.map_err(reason);
            }
        }
    }
    Err(failed.unwrap_or_else(|| format!("`{}` has no address", reachable.dial)))
}

async fn addresses(dial: &str) -> Result<impl Iterator<Item = SocketAddr>, String> {
    let found = tokio::net::lookup_host(dial).await;
    found.map_err(|error| format!("the address of `{dial}` cannot be found: {error}"))
}

fn open(reachable: &Reachable, addr: SocketAddr) -> Result<Line, String> {
    let access = Access {
        authority: Some(reachable.authority.clone()),
        headers: reachable.headers.clone(),
        tls: reachable.tls.clone(),
        ..Access::plain(addr, addr)
    };
    let reach = Reach::of(&access).map_err(|error| error.to_string())?;
    Ok(Line {
        client: Client::of(reach.direct).with_answer_limit(BODY_LIMIT),
        path: reachable.path.clone(),
        secrets: reachable.secrets.clone().into(),
    })
}
