//! `HAProxy`, as fast as it goes: TCP mode, splicing where it sees fit, two threads.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::tls::Certificate;
use super::{HAPROXY, Peer, Process, free_port, reachable, version};

/// With 8,000 it wants more descriptors than one process may have here, and ends without a word.
const MAXCONN: usize = 6_000;

pub(super) async fn start(
    own: &Path,
    program: &Path,
    sink: SocketAddr,
    certificate: &Certificate,
) -> io::Result<Peer> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let tls = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let folder = tempfile::tempdir()?;
    let (file, pem) = (
        folder.path().join("haproxy.cfg"),
        folder.path().join("tls.pem"),
    );
    let identity = &certificate.identity;
    fs::write(&pem, format!("{}{}", identity.chain_pem, identity.key_pem))?;
    fs::write(&file, configuration(addr, tls, &pem, sink))?;
    let args = ["-db".as_ref(), "-f".as_ref(), file.as_os_str()];
    let process = Process::start(own, program, &args, Some(folder))?;
    reachable(addr).await?;
    reachable(tls).await?;
    Ok(Peer {
        name: HAPROXY,
        version: version(program, "-v"),
        addr,
        tls: Some(certificate.shown_at(tls)),
        pid: Some(process.guarded().await?),
        api: None,
        _process: Some(process),
    })
}

fn configuration(addr: SocketAddr, tls: SocketAddr, pem: &Path, sink: SocketAddr) -> String {
    let pem = pem.display();
    format!(
        "global\n  nbthread 2\n  maxconn {MAXCONN}\n\
         defaults\n  mode tcp\n  option splice-auto\n  maxconn {MAXCONN}\n  \
         timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend clients\n  bind {addr} backlog 4096\n  \
         bind {tls} backlog 4096 ssl crt {pem}\n  default_backend sink\n\
         backend sink\n  server sink {sink}\n"
    )
}
