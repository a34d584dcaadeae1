//! `faultlane proxy`: the standalone proxy with Toxiproxy's API, one proxy before an upstream, or a word to a server that
//! runs.

mod remote;
mod tls;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use proxy::crew::Crew;
use proxy::toxiproxy::{Server, Settings};
use tokio_util::sync::CancellationToken;

use super::processes;
use crate::cli::proxy::{ApiArgs, ProxyArgs};
use crate::exit::{Error, Exit};

pub(super) fn proxy(args: ProxyArgs) -> Result<Exit, Error> {
    if let Some(command) = args.command {
        return remote::tell(command);
    }
    if args.worker {
        return processes::worker(&args.config);
    }
    if args.config.config_stdin || args.upstream.is_some() {
        return processes::proxy(
            &args.config,
            args.listen,
            args.upstream,
            args.upstream_authenticates,
        );
    }
    serve(args.api, args.upstream_authenticates)
}

fn serve(args: ApiArgs, upstream_authenticates: bool) -> Result<Exit, Error> {
    let addr = resolve(&args.host, args.port)?;
    let token = args.api_token_file.as_deref().map(token).transpose()?;
    if token.is_none() {
        processes::refuse_off_loopback(
            "--host",
            addr,
            "the API lets anybody do anything",
            "listen on loopback, or give it a token with --api-token-file FILE",
        )?;
    }
    let configuration = args
        .proxies
        .map(|path| {
            let read = fs::read(&path)
                .map_err(|error| Error::usage(format!("--config {}: {error}", path.display())));
            read.map(|configuration| (path, configuration))
        })
        .transpose()?;
    let settings = Settings {
        seed: args.seed,
        token,
        allow_browsers: args.allow_browsers,
        off_loopback: upstream_authenticates,
        decision_log: args.decision_log,
        tls_dir: args.tls_dir,
    };
    let ca_out = args.tls_ca_out;
    if let Err(error) = agent::preflight::raise_descriptor_limit() {
        return Err(Error::could_not_run(error));
    }
    let workers = usize::from(args.workers);
    if workers > 1 && settings.decision_log.is_some() {
        return Err(Error::usage(
            "--decision-log: workers keep no log of what they decide; start the server without --workers"
                .to_owned(),
        ));
    }
    processes::until_signalled(CancellationToken::new(), |shutdown| async move {
        let api = host::net::listen(addr)?;
        let server = if workers > 1 {
            let crew = Crew::start(&std::env::current_exe()?, workers).await?;
            Server::manned(settings, crew)?
        } else {
            Server::new(settings)?
        };
        if let Some(path) = ca_out {
            fs::write(&path, server.authority()?).map_err(|error| {
                io::Error::other(format!("--tls-ca-out {}: {error}", path.display()))
            })?;
        }
        if let Some((path, configuration)) = configuration {
            let populated = server.populate(&configuration).await;
            populated
                .map_err(|reason| io::Error::other(format!("{}: {reason}", path.display())))?;
        }
        host::child::announce("proxy", api.local_addr()?, &[])?;
        server.serve(api, shutdown).await;
        Ok(Exit::Go)
    })
}

/// A host's address, IPv4 before IPv6.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, Error> {
    use std::net::ToSocketAddrs as _;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<_> = (host, port)
        .to_socket_addrs()
        .map_err(|error| Error::usage(format!("--host {host}: {error}")))?
        .collect();
    let first = found.iter().find(|addr| addr.is_ipv4()).or(found.first());
    first
        .copied()
        .ok_or_else(|| Error::usage(format!("--host {host} has no address")))
}

/// The token in a file, without the white space around it.
fn token(path: &Path) -> Result<String, Error> {
    let wrong =
        |reason: String| Error::usage(format!("--api-token-file {}: {reason}", path.display()));
    let token = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(wrong("it is empty, and would let anybody in".to_owned()));
    }
    Ok(token.to_owned())
}
