//! Who hears of a storm of resets, when, and what is left of it.

use std::time::Duration;

use host::clock;
use model::fault::{Fault, FaultOrder, FaultView};
use model::instant::Mono;
use model::quantity::{Share, Span};
use serde_json::json;

use crate::peers::{Peers, Seen};
use crate::proxy::{PATIENCE, Proxy};
use crate::{Outcome, ProxyArgs};

/// By when every peer has to have seen it.
const WITHIN: Span = Span::from_millis(250);
/// What is left is looked at again until there is nothing: sockets are closed once all are reset.
const LOOKS: usize = 100;
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) async fn run(args: &ProxyArgs, connections: usize, rounds: usize) -> Outcome {
    let mut holds = true;
    for _ in 0..rounds {
        holds &= toxic(args, connections).await?;
        if args.workers == 1 {
            holds &= leased(args, connections).await?;
        }
    }
    Ok(holds)
}

/// Connections that hang, with a byte in each, under `reset_peer`: they go on, and are reset.
async fn toxic(args: &ProxyArgs, connections: usize) -> Outcome {
    let (upstream, addr) = Peers::upstream("read").await?;
    let proxy = Proxy::standalone(args).await?;
    let listen = proxy.api.create(addr).await?;
    proxy.api.metric("faultlane_tasks").await?;
    let before = (
        proxy.descriptors(),
        proxy.api.metric("faultlane_tasks").await?,
    );
    let (mut clients, mut upstream) = connect(listen, upstream, connections).await?;
    proxy.api.toxic(&json!({"type": "down"})).await?;
    proxy
        .api
        .toxic(&json!({"type": "reset_peer", "stream": "upstream"}))
        .await?;
    clients.click().await?;
    // Until the bytes are at the proxy.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = clock::now();
    proxy.api.remove("down_downstream").await?;
    let holds = heard(
        "reset_peer",
        asked,
        &mut clients,
        &mut upstream,
        connections,
    )
    .await?;
    proxy.api.remove("reset_peer_upstream").await?;
    let left = async || -> Result<(usize, u64), std::io::Error> {
        Ok((
            proxy.descriptors(),
            proxy.api.metric("faultlane_tasks").await?,
        ))
    };
    let mut after = left().await?;
    for _ in 0..LOOKS {
        if after.0 <= before.0 && after.1 <= before.1 {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        after = left().await?;
    }
    let open = proxy.api.metric("faultlane_proxy_connections").await?;
    println!(
        "  left: {open} connections, {} descriptors (before: {}), {} tasks (before: {})",
        after.0, before.0, after.1, before.1
    );
    clients.end().await?;
    upstream.end().await?;
    Ok(holds && open == 0 && after.0 <= before.0 && after.1 <= before.1)
}

/// A drill's fault.
async fn leased(args: &ProxyArgs, connections: usize) -> Outcome {
    let (upstream, addr) = Peers::upstream("read").await?;
    let proxy = Proxy::leased(args, addr).await?;
    let listen = proxy.data.ok_or("no address")?;
    let status = async || -> Result<u64, Box<dyn std::error::Error>> {
        let status: serde_json::Value = proxy.api.client.get("/status", PATIENCE).await?;
        Ok(status["open"].as_u64().unwrap_or(u64::MAX))
    };
    status().await?;
    let before = proxy.descriptors();
    let (mut clients, mut upstream) = connect(listen, upstream, connections).await?;
    let fault: Fault = serde_json::from_value(json!({"reset": {}}))?;
    let order = FaultOrder {
        id: "storm".to_owned(),
        fault,
        node: None,
        share: Share::ALL,
        seed: 1,
        lease: Span::from_secs(10),
    };
    let asked = clock::now();
    let view: FaultView = proxy.api.client.post("/faults", &order, PATIENCE).await?;
    let answered = clock::now().since(asked);
    let holds = heard(
        "leased reset",
        asked,
        &mut clients,
        &mut upstream,
        connections,
    )
    .await?;
    let (open, mut after) = (status().await?, proxy.descriptors());
    for _ in 0..LOOKS {
        if after <= before {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        after = proxy.descriptors();
    }
    println!(
        "  left: {open} connections, {after} descriptors (before: {before}); bitten {} of {connections}, answered after {answered}",
        view.observation.bitten
    );
    clients.end().await?;
    upstream.end().await?;
    Ok(holds && open == 0 && after <= before && view.observation.bitten == connections as u64)
}

async fn connect(
    listen: std::net::SocketAddr,
    mut upstream: Peers,
    connections: usize,
) -> Result<(Peers, Peers), Box<dyn std::error::Error>> {
    let clients = Peers::clients("click", listen, connections).await?;
    upstream
        .until("all are through", |seen| seen.begun == connections as u64)
        .await?;
    Ok((clients, upstream))
}

/// Whether both sides of all connections heard it in time.
async fn heard(
    what: &str,
    asked: Mono,
    clients: &mut Peers,
    upstream: &mut Peers,
    connections: usize,
) -> Outcome {
    let many = connections as u64;
    let all = |seen: &Seen| seen.reset + seen.closed == many;
    let clients = clients.until("every client ends", all).await?;
    let upstreams = upstream.until("every upstream ends", all).await?;
    let last = |seen: Seen| seen.last_reset.since(asked);
    println!(
        "{what}: {} clients saw RST within {}, {} upstreams within {}",
        clients.reset,
        last(clients),
        upstreams.reset,
        last(upstreams)
    );
    let in_time = last(clients) <= WITHIN && last(upstreams) <= WITHIN;
    Ok(in_time && clients.reset == many && upstreams.reset == many)
}
