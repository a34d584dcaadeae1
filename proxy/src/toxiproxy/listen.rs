//! Binding, with the words that Go has for what goes wrong: clients' tests compare them.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// What `host:port` means, IPv4 before IPv6. Every address, or no host, is loopback where no more is allowed: that is the
/// most that a client which asks for all of them can have, and it is told so.
///
/// # Errors
/// It means nothing, or something off loopback, which is not allowed.
pub(super) async fn resolve(listen: &str, off_loopback: bool) -> Result<SocketAddr, String> {
    let (host, port) = match listen.rsplit_once(':') {
        Some(parts) => parts,
        None if listen.is_empty() => ("", "0"),
        None => {
            return Err(format!(
                "listen tcp: address {listen}: missing port in address"
            ));
        }
    };
    let addr = if host.is_empty() {
        let port = port
            .parse()
            .map_err(|_| format!("listen tcp: address {listen}: invalid port"))?;
        // As Go: on both families.
        let any = if off_loopback {
            IpAddr::from(Ipv6Addr::UNSPECIFIED)
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        (any, port).into()
    } else {
        let found: Vec<_> = tokio::net::lookup_host(listen)
            .await
            .map_err(|error| format!("listen tcp: lookup {host}: {error}"))?
            .collect();
        let first = found.iter().find(|addr| addr.is_ipv4());
        *first
            .or(found.first())
            .ok_or_else(|| format!("listen tcp: lookup {host}: no such host"))?
    };
    if off_loopback || addr.ip().is_loopback() {
        return Ok(addr);
    }
    if !addr.ip().is_unspecified() {
        return Err(format!(
            "listen tcp {addr}: off loopback, and the proxy asks nobody who they are: listen on loopback, or start the \
             proxy with --upstream-authenticates if its upstreams ask"
        ));
    }
    let loopback = match addr.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    tracing::warn!(
        asked = listen,
        "listening on {loopback} only, as the proxy asks nobody who they are; --upstream-authenticates allows more"
    );
    Ok((loopback, addr.port()).into())
}

/// Listens there.
///
/// # Errors
/// `listen tcp 127.0.0.1:3310: bind: address already in use` and its like.
pub(super) fn bind(addr: SocketAddr) -> Result<TcpListener, String> {
    let listening = host::net::listen(addr).and_then(tokio::net::TcpListener::into_std);
    listening.map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::AddrInUse => "address already in use",
            ErrorKind::AddrNotAvailable => "cannot assign requested address",
            ErrorKind::PermissionDenied => "permission denied",
            _ => return format!("listen tcp {addr}: {error}"),
        };
        format!("listen tcp {addr}: bind: {reason}")
    })
}
