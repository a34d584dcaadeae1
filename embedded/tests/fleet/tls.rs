//! The fleet against a lane behind TLS, through the proxy: passed through, and terminated so that frames can be hit.

use std::time::Duration;

use host::clock;
use host::http::Client;
use host::net::listen;
use host::tls::{Authority, server};
use model::fault::{FaultOrder, FaultView};
use model::ids::Lane;
use model::quantity::{Share, Span};
use model::role::{ProxyConfig, ProxyStatus, ProxyTls};
use model::shard::{Episode, EpisodeFault};
use model::target::{Access, TlsClient, TlsIdentity};
use proxy::Upstream;
use serde_json::json;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{ANY_PORT, CLIENTS, Target, live, rig};

const HOST: &str = "sync.example.com";
const CALL: Duration = Duration::from_secs(5);

/// TLS before a lane in plain text. It wants to know its clients.
fn front(identity: &TlsIdentity, clients: &Authority, lane: SocketAddr) -> SocketAddr {
    let acceptor = TlsAcceptor::from(server(identity, Some(&clients.pem())).unwrap());
    let listener = listen(ANY_PORT).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (Ok(mut stream), Ok(mut lane)) =
                    tokio::join!(acceptor.accept(stream), TcpStream::connect(lane))
                else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut lane).await;
            });
        }
    });
    addr
}

/// A proxy within the test: where clients connect, its API, and what ends it.
struct Proxy {
    data: SocketAddr,
    api: Client,
    stop: CancellationToken,
}

impl Proxy {
    fn before(upstream: SocketAddr, tls: Option<ProxyTls>) -> Self {
        let (data, control) = (listen(ANY_PORT).unwrap(), listen(ANY_PORT).unwrap());
        let addr = data.local_addr().unwrap();
        let api = Client::new(control.local_addr().unwrap());
        let stop = CancellationToken::new();
        let config = ProxyConfig {
            listen: addr,
            upstream,
            tls,
        };
        let upstream = Upstream::of(&config).unwrap();
        tokio::spawn(proxy::serve(data, control, upstream, stop.clone()));
        Self {
            data: addr,
            api,
            stop,
        }
    }

    async fn inject(&self, fault: serde_json::Value) -> FaultView {
        let order = FaultOrder {
            id: "f1".to_owned(),
            fault: serde_json::from_value(fault).unwrap(),
            node: None,
            share: Share::ALL,
            seed: 7,
            lease: Span::from_secs(20),
        };
        self.api.post("/faults", &order, CALL).await.unwrap()
    }

    async fn look(&self) -> FaultView {
        self.api.get("/faults/f1", CALL).await.unwrap()
    }

    async fn status(&self) -> ProxyStatus {
        self.api.get("/status", CALL).await.unwrap()
    }
}

/// A fleet through a proxy to a lane behind TLS; a fault on it; all whole again, and nothing wrong to be found. The
/// fault as it was last seen, and the proxy's status.
async fn through_a_fault(
    lane: Lane,
    terminated: bool,
    fault: serde_json::Value,
) -> (FaultView, ProxyStatus) {
    let mut target = Target::new(lane, None, None);
    let (ca, fleet, own) = (
        Authority::ephemeral("target").unwrap(),
        Authority::ephemeral("fleet").unwrap(),
        Authority::ephemeral("faultlane").unwrap(),
    );
    let front = front(&ca.issue(&[HOST]).unwrap(), &fleet, target.lane.data);
    let towards_lane = TlsClient {
        ca_pem: Some(ca.pem()),
        identity: Some(fleet.issue(&["drill"]).unwrap()),
    };
    let tls = terminated.then(|| ProxyTls {
        identity: own.issue(&[HOST]).unwrap(),
        client_ca_pem: None,
        upstream: Some(towards_lane.clone()),
        server_name: None,
    });
    let proxy = Proxy::before(front, tls);
    target.base.access = Access {
        authority: Some(HOST.to_owned()),
        tls: Some(towards_lane),
        endpoint_tls: terminated.then(|| TlsClient {
            ca_pem: Some(own.pem()),
            identity: None,
        }),
        ..Access::plain(proxy.data, front)
    };
    target.base.probes = None;

    let mut rig = target.rig();
    rig.start().await;
    live(&mut rig).await;
    let view = proxy.inject(fault.clone()).await;
    let episode = Episode {
        t0: view.injected.asked,
        th: Some(view.injected.observed),
        faults: vec![EpisodeFault {
            id: view.id.clone(),
            fault: serde_json::from_value(fault).unwrap(),
            share: Share::ALL,
        }],
    };
    rig.tell_episode(&episode).await;
    let over = clock::now() + Span::from_millis(300);
    rig.until("all whole", |_, clients| {
        clock::now() > over && clients.recovered == clients.affected && clients.live == CLIENTS
    })
    .await;
    let view = proxy.look().await;
    let status = proxy.status().await;
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(3)).await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    rig.end().await;
    proxy.stop.cancel();
    target.end().await;
    (view, status)
}

#[tokio::test(flavor = "multi_thread")]
async fn close_frames_reach_a_fleet_behind_tls_that_the_proxy_terminates() {
    for lane in Lane::ALL {
        let close = json!({"ws_close": {"code": 1012, "reason": "restart"}});
        let (view, status) = through_a_fault(lane, true, close).await;
        assert_eq!(view.observation.bitten, u64::from(CLIENTS), "{lane}");
        assert_eq!(
            view.observation.figures["close_frames_sent"],
            u64::from(CLIENTS)
        );
        assert_eq!(status.upgraded, u64::from(2 * CLIENTS), "{lane}");
        assert!(status.frames.0 > 0 && status.frames.1 > 0, "{status:?}");
        assert_eq!((status.opaque, status.tls_failed), (0, (0, 0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_bites_a_fleet_behind_tls_that_the_proxy_terminates() {
    let latency = json!({"latency": {"delay": "30ms", "jitter": "10ms"}});
    let (view, status) = through_a_fault(Lane::Spacetime, true, latency).await;
    assert_eq!(view.observation.bitten, u64::from(CLIENTS));
    assert_eq!(status.upgraded, u64::from(CLIENTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_whose_tls_passes_through_is_reset_and_comes_back() {
    let (view, status) = through_a_fault(Lane::Khala, false, json!({"reset": {}})).await;
    assert_eq!(view.observation.bitten, u64::from(CLIENTS));
    assert_eq!(status.opaque, u64::from(2 * CLIENTS));
    assert_eq!((status.upgraded, status.frames), (0, (0, 0)));
}
