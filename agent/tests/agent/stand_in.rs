//! What the agent's tests start in place of `faultlane`: the real agent and guard, and children that do what a test
//! wants. A lane behaves as its `database` says, a proxy as its upstream's port says.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::faults::{Holder, Leased};
use host::http::{Failure, Reply, Request, Response, StatusCode};
use host::{child, clock, http, net};
use model::fault::{FaultOrder, FaultView, Observation, Renewal};
use model::ids::FaultId;
use model::instant::Bracket;
use model::role::{AgentConfig, LaneConfig, ProxyConfig, ProxyStatus, TokensConfig};
use model::shard::ShardConfig;
use rustix::process::WaitOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The upstream port of a proxy that refuses every fault.
const REFUSES: u16 = 1;
/// The upstream port of a proxy that takes faults on and then cannot undo them.
const STUCK: u16 = 2;

fn main() -> io::Result<ExitCode> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|role| role.to_str()) {
        Some("watchdog") => agent::watchdog::main(Path::new(&args[2])).map(|()| ExitCode::SUCCESS),
        Some("pressure") => agent::pressure::main().map(|()| ExitCode::SUCCESS),
        Some("wall-clock") => {
            println!("{}", clock::unix_micros());
            Ok(ExitCode::SUCCESS)
        }
        Some("launch") => {
            let within = args[2].to_str().unwrap().parse().unwrap();
            agent::launch::main(&args[4], &args[5..], within).map(ExitCode::from)
        }
        Some("first-process") => first_process(&args[1..]),
        role => with_a_runtime(role.unwrap_or_default(), &args),
    }
}

/// As the first process of a container: whoever loses its parent is given to it, and as it is of their session, the
/// kernel does not hang up on those that are stopped. It ends when they all have, or with an agent that ends as it shall: what
/// that leaves running is the operator's.
fn first_process(args: &[OsString]) -> io::Result<ExitCode> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let agent = Command::new(std::env::current_exe()?).args(args).spawn()?;
    let agent = rustix::process::Pid::from_child(&agent);
    while let Ok(ended) = rustix::process::wait(WaitOptions::empty()) {
        if ended.is_some_and(|(pid, status)| pid == agent && status.exit_status() == Some(0)) {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[tokio::main(worker_threads = 2)]
async fn with_a_runtime(role: &str, args: &[OsString]) -> io::Result<ExitCode> {
    match role {
        "guard" => return Ok(agent::guard::main(&args[1], &args[2..]).await?.into()),
        "agent" => {
            let config: AgentConfig = child::read_config()?;
            agent::main(config, child::until_stdin_ends()).await?;
        }
        "operated" => operated(Path::new(&args[1])).await?,
        "lane" => lane(child::read_config()?).await?,
        "tokens" => {
            let config: TokensConfig = child::read_config()?;
            serve_plain("tokens", config.listen, child::until_stdin_ends()).await?;
        }
        "proxy" => {
            let config: ProxyConfig = child::read_config()?;
            hold("proxy", config.upstream.port()).await?;
        }
        "conductor" => conductor(child::read_config()?).await?,
        "shard" => {
            let _: ShardConfig = child::read_config()?;
            hold("shard", 0).await?;
        }
        other => panic!("no role `{other}`"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Injects a fault, and renews its lease each third of it; says when it asked, once that was granted.
async fn conductor((control, order): (SocketAddr, FaultOrder)) -> io::Result<()> {
    let agent = agent::client::Agent::new(control);
    let failed = |error: http::CallError| io::Error::other(error.to_string());
    let mut asked = clock::now();
    agent.inject(&order).await.map_err(failed)?;
    loop {
        println!("{}", asked.0);
        tokio::time::sleep(order.lease.duration() / 3).await;
        asked = clock::now();
        agent.renew(&order.id, order.lease).await.map_err(failed)?;
    }
}

async fn operated(file: &Path) -> io::Result<()> {
    let source = scenarios::Source::read(file).map_err(io::Error::other)?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let config = scenarios::agent_config::operating(&source, folder).map_err(io::Error::other)?;
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let on_signal = shutdown.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        on_signal.cancel();
    });
    agent::operated::main(config, shutdown).await
}

async fn lane(config: LaneConfig) -> io::Result<()> {
    let shutdown = match config.database.as_str() {
        "dies" => std::process::exit(3),
        "stubborn" => {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::spawn(async move { while terminate.recv().await.is_some() {} });
            let shutdown = CancellationToken::new();
            // A test that fails half-way leaves it behind: not for long.
            let at_last = shutdown.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(20)).await;
                at_last.cancel();
            });
            shutdown
        }
        _ => child::until_stdin_ends(),
    };
    serve_plain("lane", config.listen, shutdown).await
}

async fn serve_plain(
    what: &str,
    listen: SocketAddr,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let control = net::listen((Ipv4Addr::LOCALHOST, 0).into())?;
    let data = net::listen(listen)?;
    eprintln!("started");
    child::announce(what, control.local_addr()?, &[("data", data.local_addr()?)])?;
    http::serve(control, shutdown, plain).await;
    Ok(())
}

async fn plain(request: Request) -> Reply {
    match (request.method.as_str(), request.segments().as_slice()) {
        ("GET", ["status"]) => Response::json(&serde_json::json!({"pid": std::process::id()})),
        ("GET", ["faults"]) => Response::json(&[(); 0]),
        ("POST", ["echo"]) => Response::json(&request.json::<serde_json::Value>()?),
        ("GET", ["teapot"]) => Err(Failure::new(StatusCode::IM_A_TEAPOT, "short and stout")),
        ("POST", ["die"]) => std::process::exit(7),
        ("POST", ["never"]) => std::future::pending::<Result<Infallible, _>>()
            .await
            .map(|never| match never {}),
        _ => Err(Failure::no_route(&request)),
    }
}

/// A holder of faults that do nothing. The figure `renewals` counts what was passed on.
struct Idle {
    behaviour: u16,
    views: Mutex<Vec<FaultView>>,
}

impl Idle {
    fn with<T>(&self, id: &str, change: impl FnOnce(&mut FaultView) -> T) -> Option<T> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.iter_mut().find(|view| view.id == id).map(change)
    }

    fn all(&self) -> Vec<FaultView> {
        self.views
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn instant() -> Bracket {
    let now = clock::now();
    Bracket {
        asked: now,
        observed: now,
    }
}

impl Holder for Idle {
    async fn inject(&self, order: FaultOrder) -> Result<FaultView, Failure> {
        if self.behaviour == REFUSES {
            let text = format!("`{}` is not for me", order.id);
            return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, text));
        }
        let momentary = order.fault.ends_after().is_some();
        let injected = instant();
        let view = FaultView {
            id: order.id,
            active: !momentary,
            injected,
            healed: momentary.then_some(injected),
            lapsed: false,
            observation: Observation {
                bitten: 3,
                observed: Some(injected.observed),
                figures: [("renewals".to_owned(), 0)].into(),
            },
        };
        self.views
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(view.clone());
        Ok(view)
    }

    async fn look(&self, id: &str) -> Option<FaultView> {
        self.with(id, |view| view.clone())
    }

    async fn undo(&self, id: &str, lapsed: bool) -> Result<FaultView, Failure> {
        if self.behaviour == STUCK {
            let text = "it will not come off";
            return Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, text));
        }
        self.with(id, |view| {
            if view.active {
                view.active = false;
                view.healed = Some(instant());
                view.lapsed = lapsed;
            }
            view.clone()
        })
        .ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "no such fault"))
    }

    async fn renewed(&self, id: &str, _: &Renewal) {
        self.with(id, |view| {
            *view
                .observation
                .figures
                .entry("renewals".to_owned())
                .or_default() += 1;
        });
    }

    fn ids(&self) -> Vec<FaultId> {
        self.all().into_iter().map(|view| view.id).collect()
    }
}

async fn hold(what: &str, behaviour: u16) -> io::Result<()> {
    let control = net::listen((Ipv4Addr::LOCALHOST, 0).into())?;
    let shutdown = child::until_stdin_ends();
    let faults = Leased::new(Idle {
        behaviour,
        views: Mutex::default(),
    });
    let enforcing = tokio::spawn(Arc::clone(&faults).enforce(shutdown.clone()));
    child::announce(what, control.local_addr()?, &[])?;
    http::serve(control, shutdown, move |request| {
        let faults = Arc::clone(&faults);
        async move {
            match request.segments().as_slice() {
                ["status"] => Response::json(&ProxyStatus {
                    faults: faults
                        .holder()
                        .all()
                        .into_iter()
                        .filter(|view| view.active)
                        .map(|view| view.id)
                        .collect(),
                    ..ProxyStatus::default()
                }),
                ["die"] => std::process::exit(7),
                _ => faults.route(&request).await,
            }
        }
    })
    .await;
    drop(enforcing.await);
    Ok(())
}
