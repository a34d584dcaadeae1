//! The processes: each parses its configuration, hands it to its crate, and ends on a signal or with its stdin.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use host::child;
use model::ids::Lane;
use model::profile::Profile;
use model::quantity::Span;
use model::role::{LaneConfig, ProxyConfig, SpacetimedbConfig, TokensConfig};
use scenarios::{Source, agent_config};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::operating::AgentArgs;
use crate::cli::{ConfigStdin, LaneArgs, PUBLISH_SECRET, ProfileArg, SESSION_SECRET, TokensArgs};
use crate::exit::{Error, Exit};

pub(super) fn agent(args: &AgentArgs) -> Result<Exit, Error> {
    let Some(path) = &args.config else {
        debug_assert!(args.config_stdin, "clap requires one of them");
        let from_stdin = ConfigStdin { config_stdin: true };
        return serve(
            &from_stdin,
            || unreachable!("clap requires it"),
            agent::main,
        )
        .map(|()| Exit::Go);
    };
    let source = Source::read(path).map_err(Error::usage)?;
    // Seen from the file, wherever the agent goes later.
    let folder = std::path::absolute(path).map_err(Error::could_not_run)?;
    let folder = folder.parent().unwrap_or(Path::new("/"));
    let config = agent_config::operating(&source, folder).map_err(Error::usage)?;
    until_signalled(CancellationToken::new(), |shutdown| {
        agent::operated::main(config, shutdown)
    })
    .map(|()| Exit::Go)
}

pub(super) fn shard(config: &ConfigStdin) -> Result<Exit, Error> {
    serve(
        &only_stdin(config)?,
        || unreachable!("checked"),
        lanes::shard::main,
    )
    .map(|()| Exit::Go)
}

pub(super) fn proxy(
    config: &ConfigStdin,
    listen: SocketAddr,
    upstream: Option<SocketAddr>,
    upstream_authenticates: bool,
) -> Result<Exit, Error> {
    if !upstream_authenticates {
        refuse_off_loopback(
            "--listen",
            listen,
            "the proxy asks nobody who they are",
            "listen on loopback, or say --upstream-authenticates if the upstream asks",
        )?;
    }
    let typed = || ProxyConfig {
        listen,
        upstream: upstream.expect("it was typed"),
        tls: None,
    };
    serve(config, typed, proxy::main).map(|()| Exit::Go)
}

pub(super) fn worker(config: &ConfigStdin) -> Result<Exit, Error> {
    debug_assert!(config.config_stdin, "clap requires it");
    let config = child::read_config().map_err(Error::usage)?;
    until_signalled(CancellationToken::new(), |shutdown| {
        proxy::crew::worker(config, shutdown)
    })
    .map(|()| Exit::Go)
}

pub(super) fn lane(lane: Lane, config: &ConfigStdin, args: LaneArgs) -> Result<Exit, Error> {
    refuse_known_secret(
        args.listen,
        "--publish-secret",
        &args.publish_secret,
        PUBLISH_SECRET,
    )?;
    let strict = args.profile == ProfileArg::Embedded;
    if !strict {
        refuse_off_loopback(
            "--listen",
            args.listen,
            "--profile real lets anybody read and append",
            "listen on loopback, or take --profile embedded",
        )?;
    }
    let mut profile = if strict {
        Profile::embedded()
    } else {
        Profile::field()
    };
    profile.token_skew = args.skew.unwrap_or(profile.token_skew);
    let typed = move || LaneConfig {
        lane,
        listen: args.listen,
        data_dir: args.data_dir.expect("clap requires it"),
        profile,
        strict,
        accept_rate: args.accept_rate,
        database: args.database,
        issuer: args.issuer,
        key_file: args.key_file,
        publish_secret: args.publish_secret,
        stream_budgets: [].into(),
        defect: None,
    };
    serve(config, typed, embedded::lane::main).map(|()| Exit::Go)
}

pub(super) fn tokens(config: &ConfigStdin, args: TokensArgs) -> Result<Exit, Error> {
    refuse_known_secret(
        args.listen,
        "--session-secret",
        &args.session_secret,
        SESSION_SECRET,
    )?;
    let tenants = args
        .tenants
        .iter()
        .map(|tenant| match tenant.split_once('=') {
            Some((org, streams)) if !org.is_empty() => Ok((
                org.to_owned(),
                streams.split(',').map(str::to_owned).collect(),
            )),
            _ => Err(Error::usage(format!(
                "--tenant {tenant}: write ORG=STREAM[,STREAM…]"
            ))),
        })
        .collect::<Result<_, _>>()?;
    let typed = move || TokensConfig {
        listen: args.listen,
        key_file: args.key_file,
        session_secret: args.session_secret,
        ttl: args.ttl,
        ttl_limits: (
            Span::from_secs(2).min(args.ttl),
            Span::from_secs(900).max(args.ttl),
        ),
        refresh_lead: args.refresh_lead,
        skew: args.skew,
        rate: args.rate,
        burst: args.burst,
        tenants,
        defect: None,
    };
    serve(config, typed, embedded::tokens::main).map(|()| Exit::Go)
}

pub(super) fn spacetimedb(
    config: &ConfigStdin,
    server: &Path,
    listen: SocketAddr,
    data_dir: Option<PathBuf>,
    database: String,
) -> Result<Exit, Error> {
    refuse_off_loopback(
        "--listen",
        listen,
        "the server lets anybody read and append",
        "listen on loopback",
    )?;
    let profile = Profile::field();
    let typed = || SpacetimedbConfig {
        listen,
        data_dir: data_dir.expect("clap requires it"),
        database,
        ping: profile.server_tick,
        idle: profile.heartbeat_timeout,
    };
    serve(config, typed, |config, shutdown| async move {
        agent::spacetimedb::main(config, server, shutdown).await
    })
    .map(Exit::Other)
}

/// Without a runtime: it has to be small, and to do one thing after another.
pub(super) fn pressure() -> Result<Exit, Error> {
    agent::pressure::main()
        .map(|()| Exit::Go)
        .map_err(Error::could_not_run)
}

pub(super) fn watchdog(journal: &Path) -> Result<Exit, Error> {
    agent::watchdog::main(journal)
        .map(|()| Exit::Go)
        .map_err(Error::could_not_run)
}

/// Without a runtime, as it is to leave nothing of its own to what it starts.
pub(super) fn launch(command: &[std::ffi::OsString], within: Span) -> Result<Exit, Error> {
    let (program, args) = command.split_first().expect("clap requires it");
    let code = agent::launch::main(program, args, within)
        .map_err(|error| Error::could_not_run(format!("{}: {error}", program.display())))?;
    Ok(Exit::Other(code))
}

pub(super) fn guard(command: &[std::ffi::OsString]) -> Result<Exit, Error> {
    let (program, args) = command.split_first().expect("clap requires it");
    let code = runtime()?
        .block_on(agent::guard::main(program, args))
        .map_err(|error| Error::could_not_run(format!("{}: {error}", program.display())))?;
    Ok(Exit::Other(code))
}

/// Off loopback nothing listens that lets anybody in.
pub(super) fn refuse_off_loopback(
    flag: &str,
    listen: SocketAddr,
    why: &str,
    remedy: &str,
) -> Result<(), Error> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{flag} {listen} is off loopback, and {why}: {remedy}"
    )))
}

/// An empty secret is no secret anywhere, and off loopback one that everybody knows is none.
fn refuse_known_secret(
    listen: SocketAddr,
    flag: &str,
    secret: &str,
    known: &str,
) -> Result<(), Error> {
    if secret.is_empty() {
        return Err(Error::usage(format!(
            "{flag} is empty, which would protect nothing: choose one"
        )));
    }
    if listen.ip().is_loopback() || secret != known {
        return Ok(());
    }
    Err(Error::usage(format!(
        "--listen {listen} is off loopback, where the default {flag} would protect nothing: choose one"
    )))
}

/// A process that makes no sense by hand.
fn only_stdin(config: &ConfigStdin) -> Result<ConfigStdin, Error> {
    if config.config_stdin {
        Ok(ConfigStdin { config_stdin: true })
    } else {
        Err(Error::usage(
            "this process is started by a drill: it takes its configuration by --config-stdin",
        ))
    }
}

/// Runs a process until SIGTERM, SIGINT or, where it is somebody's child, the end of stdin; what came of it.
fn serve<C, F, T>(
    source: &ConfigStdin,
    typed: impl FnOnce() -> C,
    main: impl FnOnce(C, CancellationToken) -> F,
) -> Result<T, Error>
where
    C: DeserializeOwned,
    F: Future<Output = io::Result<T>>,
{
    let (config, shutdown) = if source.config_stdin {
        (
            child::read_config().map_err(Error::usage)?,
            child::until_stdin_ends(),
        )
    } else {
        (typed(), CancellationToken::new())
    };
    until_signalled(shutdown, |shutdown| main(config, shutdown))
}

/// Runs something that ends with `shutdown`, until SIGTERM or SIGINT; what came of it.
pub(super) fn until_signalled<F, T>(
    shutdown: CancellationToken,
    main: impl FnOnce(CancellationToken) -> F,
) -> Result<T, Error>
where
    F: Future<Output = io::Result<T>>,
{
    runtime()?
        .block_on(async {
            let (mut terminate, mut interrupt) = (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            );
            let on_signal = shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                on_signal.cancel();
            });
            main(shutdown).await
        })
        .map_err(Error::could_not_run)
}

/// Two workers: the machine is shared with the rest of the drill, and no process of it needs more.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::could_not_run)
}
