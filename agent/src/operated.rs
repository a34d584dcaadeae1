//! An agent that an operator runs: from a file, at a door that does not let everybody in, with rules.

use std::io::{self, Write as _};
use std::path::PathBuf;

use host::door::Door;
use host::net;
use model::role::AgentConfig;
use model::target::TlsIdentity;
use scenarios::agent_config::{Listen, Operating, TlsFiles};
use tokio_util::sync::CancellationToken;

use crate::reach::read;
use crate::service::{Service, Terms};

/// Runs an agent until `shutdown`. Its folder stays, with what it has to remember.
///
/// # Errors
/// Its folder cannot be opened, its journal not be healed, a certificate not be used, or it cannot listen.
pub async fn main(config: Operating, shutdown: CancellationToken) -> io::Result<()> {
    let Operating {
        name,
        state_dir,
        log_dir,
        audit,
        listen,
        tls,
        commands,
        nodes,
        policy,
    } = config;
    let by_token = tls.is_none() && matches!(listen, Listen::Address(_));
    let terms = Terms {
        policy,
        audit: Some(audit),
        by_token,
        keep: true,
    };
    let agent = AgentConfig {
        name,
        state_dir: state_dir.clone(),
        log_dir,
        spacetimedb: None,
        commands,
        nodes,
    };
    let service = Service::on_terms(agent, std::env::current_exe()?, terms)?;
    let (door, place) = open(listen, tls)?;
    let who = if by_token {
        format!("for those who know {}", state_dir.join("token").display())
    } else {
        match door {
            Door::Certified(..) => "for those with a certificate".to_owned(),
            _ => "for this user".to_owned(),
        }
    };
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on {place} {who}")?;
    stdout.flush()?;
    drop(stdout);
    service.run_at(door, shutdown).await;
    Ok(())
}

fn open(listen: Listen, tls: Option<TlsFiles>) -> io::Result<(Door, String)> {
    match (listen, tls) {
        (Listen::Socket(path), _) => {
            let place = path.display().to_string();
            Ok((Door::socket(&path)?, place))
        }
        (Listen::Address(addr), None) if !addr.ip().is_loopback() => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("listen on {addr}: it is off loopback, where `tls` with a client_ca is needed"),
        )),
        (Listen::Address(addr), tls) => {
            let certified = tls.map(|files| identity(&files)).transpose()?;
            let listener = net::listen(addr)?;
            let place = listener.local_addr()?.to_string();
            let door = match certified {
                None => Door::Open(listener),
                Some((identity, client_ca)) => Door::certified(listener, &identity, &client_ca)?,
            };
            Ok((door, place))
        }
    }
}

fn identity(files: &TlsFiles) -> io::Result<(TlsIdentity, String)> {
    let text = |path: &PathBuf| read(path).map_err(io::Error::other);
    let identity = TlsIdentity {
        chain_pem: text(&files.certificate)?,
        key_pem: text(&files.key)?,
    };
    Ok((identity, text(&files.client_ca)?))
}
