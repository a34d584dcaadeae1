//! TLS: passed through as bytes, or ended here and begun anew.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use host::tls::{Authority, Connector, server, server_name};
use model::ids::CLIENT_HEADER;
use model::role::{ProxyConfig, ProxyTls};
use model::target::TlsClient;
use proxy::Upstream;
use proxy::tap::{FrameTap, Way};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_websockets::{ClientBuilder, Message, ServerBuilder, WebSocketStream};

use crate::harness::{Proxy, fault, figure, loopback, order, pattern, upstream, within};
use crate::websocket::Recorder;

const HOST: &str = "sync.example.com";

type Secure = TlsStream<TcpStream>;
type Front = tokio_rustls::server::TlsStream<TcpStream>;

/// The lane's authority, and the one that the proxy's certificate is of.
struct World {
    lane: Authority,
    proxy: Authority,
}

impl World {
    fn new() -> Self {
        Self {
            lane: Authority::ephemeral("lane").unwrap(),
            proxy: Authority::ephemeral("proxy").unwrap(),
        }
    }

    /// A lane that is `HOST` behind TLS.
    fn lane<F>(
        &self,
        client_ca: Option<&Authority>,
        serve: impl Fn(Front) -> F + Clone + Send + 'static,
    ) -> SocketAddr
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let identity = self.lane.issue(&[HOST]).unwrap();
        let client_ca = client_ca.map(Authority::pem);
        let acceptor = TlsAcceptor::from(server(&identity, client_ca.as_deref()).unwrap());
        upstream(move |stream| {
            let (acceptor, serve) = (acceptor.clone(), serve.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream).await;
                }
            }
        })
    }

    fn websocket_lane(&self) -> SocketAddr {
        self.lane(None, |stream| async move {
            let Ok((_, mut socket)) = ServerBuilder::new().accept(stream).await else {
                return;
            };
            while let Some(Ok(message)) = socket.next().await {
                if !message.is_close() && socket.send(message).await.is_err() {
                    return;
                }
            }
        })
    }

    fn echo_lane(&self) -> SocketAddr {
        self.lane(None, |stream| async move {
            let (mut read, mut write) = tokio::io::split(stream);
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        })
    }

    fn settings(&self) -> ProxyTls {
        ProxyTls {
            identity: self.proxy.issue(&[HOST]).unwrap(),
            client_ca_pem: None,
            upstream: Some(trusting(&self.lane)),
            server_name: None,
        }
    }

    fn terminating(&self, lane: SocketAddr) -> Proxy {
        Proxy::before(terminating(lane, self.settings()))
    }

    /// A client that trusts the proxy.
    async fn secure(&self, proxy: &Proxy) -> Secure {
        secure(proxy, &self.proxy).await.unwrap()
    }
}

fn trusting(authority: &Authority) -> TlsClient {
    TlsClient {
        ca_pem: Some(authority.pem()),
        identity: None,
    }
}

fn terminating(lane: SocketAddr, tls: ProxyTls) -> Upstream {
    Upstream::of(&ProxyConfig {
        listen: lane,
        upstream: lane,
        tls: Some(tls),
    })
    .unwrap()
}

async fn secure(proxy: &Proxy, trusted: &Authority) -> std::io::Result<Secure> {
    let connector = Connector::new(&trusting(trusted)).unwrap();
    within(connector.connect(server_name(HOST).unwrap(), proxy.tcp().await)).await
}

async fn websocket(stream: Secure, client: u32) -> WebSocketStream<Secure> {
    let uri = format!("ws://{HOST}/sync");
    let builder = ClientBuilder::new()
        .uri(&uri)
        .unwrap()
        .add_header(
            CLIENT_HEADER.parse().unwrap(),
            format!("c{client:04}").parse().unwrap(),
        )
        .unwrap();
    within(builder.connect_on(stream)).await.unwrap().0
}

async fn converse(socket: &mut WebSocketStream<Secure>, text: &str) {
    socket.send(Message::text(text.to_owned())).await.unwrap();
    let back = within(socket.next()).await.unwrap().unwrap();
    assert_eq!(back.as_text(), Some(text));
}

async fn echoed(stream: &mut Secure, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    stream.flush().await.unwrap();
    let mut back = vec![0; text.len()];
    within(stream.read_exact(&mut back)).await.unwrap();
    assert!(back == text);
}

#[tokio::test]
async fn tls_that_passes_through_is_a_stream_of_bytes_to_every_fault() {
    let world = World::new();
    let proxy = Proxy::before(world.websocket_lane());
    let refuse = json!({"refuse_upgrade": {"status": 503}});
    proxy.inject("f1", fault(refuse.clone())).await;
    // The lane's certificate, not the proxy's, is what the client sees.
    let mut socket = websocket(secure(&proxy, &world.lane).await.unwrap(), 1).await;
    converse(&mut socket, "unseen").await;
    let status = proxy.status().await;
    assert_eq!(
        (status.opaque, status.upgraded, status.frames),
        (1, 0, (0, 0))
    );
    let view = proxy.undo("f1").await;
    assert_eq!(
        (view.observation.bitten, figure(&view, "connections_opaque")),
        (0, 1)
    );

    for websocket_fault in [refuse, json!({"ws_close": {"code": 1012}})] {
        let refused = proxy.try_inject(&order("f2", fault(websocket_fault))).await;
        let why = refused.unwrap_err();
        assert!(
            why.contains("have the proxy terminate TLS, or use a fault of TCP"),
            "{why}"
        );
    }

    proxy
        .inject("f3", fault(json!({"latency": {"delay": "60ms"}})))
        .await;
    let begun = Instant::now();
    converse(&mut socket, "late").await;
    assert!(begun.elapsed() >= Duration::from_millis(120));
    assert_eq!(proxy.undo("f3").await.observation.bitten, 1);

    let view = proxy.inject("f4", fault(json!({"reset": {}}))).await;
    assert_eq!(view.observation.bitten, 1);
    assert!(within(socket.next()).await.is_none_or(|end| end.is_err()));
}

#[tokio::test]
async fn a_close_tells_of_the_connections_that_it_could_not_see_into() {
    let world = World::new();
    let (tls, plain) = (world.websocket_lane(), crate::harness::websocket_echo());
    let lane = upstream(move |mut stream| async move {
        let mut first = [0];
        let _ = stream.peek(&mut first).await;
        let lane = if first[0] == 0x16 { tls } else { plain };
        let mut lane = TcpStream::connect(lane).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut lane).await;
    });
    let proxy = Proxy::before(lane);
    let mut hidden = websocket(secure(&proxy, &world.lane).await.unwrap(), 1).await;
    let mut open = proxy.websocket(2).await;
    open.send(Message::text("seen")).await.unwrap();
    within(open.next()).await.unwrap().unwrap();
    let close = json!({"ws_close": {"code": 1012}});
    let view = proxy.inject("f1", fault(close)).await;
    assert_eq!(
        (view.observation.bitten, figure(&view, "connections_opaque")),
        (1, 1)
    );
    assert!(within(open.next()).await.unwrap().unwrap().is_close());
    converse(&mut hidden, "unharmed").await;
}

#[tokio::test]
async fn a_websocket_inside_tls_is_seen_counted_and_asked_for_by_its_host() {
    let world = World::new();
    // The lane's certificate is good for HOST alone: the client's SNI went on, for the proxy was told of no name.
    let proxy = world.terminating(world.websocket_lane());
    let mut socket = websocket(world.secure(&proxy).await, 1).await;
    for n in 0..5 {
        converse(&mut socket, &format!("m{n}")).await;
    }
    let status = proxy.until(|status| status.frames == (5, 5)).await;
    assert_eq!((status.upgraded, status.opaque, status.open), (1, 0, 1));
    assert_eq!(status.tls_failed, (0, 0));
}

#[tokio::test]
async fn a_close_frame_reaches_a_client_behind_tls() {
    let world = World::new();
    let proxy = world.terminating(world.websocket_lane());
    let mut sockets = Vec::new();
    for client in 0..5 {
        let mut socket = websocket(world.secure(&proxy).await, client).await;
        converse(&mut socket, "before").await;
        sockets.push(socket);
    }
    let close = json!({"ws_close": {"code": 4001, "reason": "drill"}});
    let view = proxy.inject("f1", fault(close)).await;
    assert_eq!(
        (view.observation.bitten, figure(&view, "close_frames_sent")),
        (5, 5)
    );
    for mut socket in sockets {
        let close = within(socket.next()).await.unwrap().unwrap();
        let (code, reason) = close.as_close().expect("a Close frame");
        assert_eq!((u16::from(code), reason), (4001, "drill"));
        // FIN after close_notify: a torn stream would be an error.
        assert!(within(socket.next()).await.is_none());
    }
    let mut socket = websocket(world.secure(&proxy).await, 9).await;
    converse(&mut socket, "after").await;
}

#[tokio::test]
async fn an_upgrade_inside_tls_is_refused_with_an_answer() {
    let world = World::new();
    let proxy = world.terminating(world.websocket_lane());
    let refuse = json!({"refuse_upgrade": {"status": 503, "retry_after": "2s"}});
    let view = proxy.inject("f1", fault(refuse)).await;
    assert_eq!(view.observation.bitten, 0);
    let mut stream = world.secure(&proxy).await;
    let head = crate::harness::upgrade_head(Some(1));
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 2\r\n"),
        "{answer}"
    );
    assert_eq!(proxy.undo("f1").await.observation.bitten, 1);
}

#[tokio::test]
async fn a_share_of_the_clients_behind_tls_is_chosen_by_their_names() {
    let world = World::new();
    let proxy = world.terminating(world.websocket_lane());
    let mut half = order("f1", fault(json!({"latency": {"delay": "50ms"}})));
    half.share = "50%".parse().unwrap();
    proxy.try_inject(&half).await.unwrap();
    for client in 0..6 {
        let mut socket = websocket(world.secure(&proxy).await, client).await;
        let begun = Instant::now();
        converse(&mut socket, "m").await;
        let slow = begun.elapsed() >= Duration::from_millis(100);
        let taken = model::decide::selected(
            half.seed,
            &half.id,
            model::ids::ClientId(client),
            half.share,
        );
        assert!(slow || !taken, "c{client:04} was to be slowed down");
    }
    let taken = (0..6).filter(|client| {
        let client = model::ids::ClientId(*client);
        model::decide::selected(half.seed, &half.id, client, half.share)
    });
    assert_eq!(
        proxy.look("f1").await.observation.bitten,
        taken.count() as u64
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_stream_passes_whole_and_a_hold_stops_it() {
    let world = World::new();
    let proxy = world.terminating(world.echo_lane());
    let (mut read, mut write) = tokio::io::split(world.secure(&proxy).await);
    let sent = pattern(6 << 20);
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = vec![0; 1 << 20];
    within(read.read_exact(&mut got)).await.unwrap();
    let view = proxy.inject("f1", fault(json!({"hold": {}}))).await;
    assert_eq!(figure(&view, "connections_held"), 1);
    let before = proxy.status().await;
    let held = tokio::time::sleep(Duration::from_millis(150));
    held.await;
    let after = proxy.status().await;
    assert_eq!(
        (before.upstream_bytes, before.downstream_bytes),
        (after.upstream_bytes, after.downstream_bytes)
    );
    let view = proxy.undo("f1").await;
    assert_eq!(figure(&view, "bytes_forwarded_while_held"), 0);
    within(read.read_to_end(&mut got)).await.unwrap();
    writing.await.unwrap();
    assert!(got == expected);
    let status = proxy.until(|status| status.open == 0).await;
    assert_eq!(
        (status.upstream_bytes, status.downstream_bytes),
        (6 << 20, 6 << 20)
    );
}

#[tokio::test]
async fn a_handshake_under_a_hold_waits_for_its_end() {
    let world = World::new();
    let proxy = world.terminating(world.echo_lane());
    proxy.inject("f1", fault(json!({"hold": {}}))).await;
    let connecting = secure(&proxy, &world.proxy);
    tokio::pin!(connecting);
    let hung = tokio::time::timeout(Duration::from_millis(100), &mut connecting).await;
    assert!(hung.is_err(), "nothing answers under a hold");
    proxy.undo("f1").await;
    echoed(&mut connecting.await.unwrap(), b"after").await;
}

#[tokio::test]
async fn a_reset_is_one_on_both_sides_of_terminated_tls() {
    let world = World::new();
    let (sender, told) = oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    let lane = world.lane(None, move |mut stream| {
        let sender = sender.lock().unwrap().take().unwrap();
        async move {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            let ended = stream.read_exact(&mut byte).await;
            let _ = sender.send(ended.map_err(|error| error.kind()));
        }
    });
    let proxy = world.terminating(lane);
    let mut client = world.secure(&proxy).await;
    client.write_all(b"x").await.unwrap();
    client.flush().await.unwrap();
    proxy.until(|status| status.upstream_bytes == 1).await;
    let view = proxy.inject("f1", fault(json!({"reset": {}}))).await;
    assert_eq!(view.observation.bitten, 1);
    let ended = within(client.read_u8()).await.map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    let ended = within(told).await.unwrap();
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn an_end_goes_on_as_it_was_meant() {
    let world = World::new();
    // A half-closed stream still answers, and both ends are said.
    let proxy = world.terminating(world.lane(None, |mut stream| async move {
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).await.unwrap();
        let answer = format!("{} bytes", asked.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }));
    let mut client = world.secure(&proxy).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    within(client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "8 bytes");
    proxy.until(|status| status.open == 0).await;

    // A lane that dies says no goodbye, and none is made up for it.
    let proxy = world.terminating(world.lane(None, |mut stream| async move {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        let (tcp, _) = stream.into_inner();
        drop(tcp);
    }));
    let mut client = world.secure(&proxy).await;
    client.write_all(b"x").await.unwrap();
    client.flush().await.unwrap();
    let ended = within(client.read_u8()).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::UnexpectedEof);
    let closed = within(client.read(&mut [0])).await;
    assert!(closed.is_err(), "a torn stream is no clean end: {closed:?}");
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides_and_failures_are_counted() {
    let world = World::new();
    // A client that does not trust the proxy never reaches the lane.
    let proxy = world.terminating(world.echo_lane());
    let why = secure(&proxy, &world.lane).await.unwrap_err().to_string();
    assert!(
        why.contains("is of an authority that is not trusted"),
        "{why}"
    );
    proxy.until(|status| status.tls_failed == (1, 0)).await;

    // A lane that the proxy does not trust is none.
    let mut settings = world.settings();
    settings.upstream = Some(trusting(&world.proxy));
    let proxy = Proxy::before(terminating(world.echo_lane(), settings));
    let mut client = world.secure(&proxy).await;
    let ended = within(client.read_u8()).await.map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    proxy.until(|status| status.tls_failed == (0, 1)).await;

    // A lane for another host is none either.
    let mut settings = world.settings();
    settings.server_name = Some("other.example.com".to_owned());
    let proxy = Proxy::before(terminating(world.echo_lane(), settings));
    world.secure(&proxy).await;
    proxy.until(|status| status.tls_failed == (0, 1)).await;

    // What is required of clients is required, and what the lane requires is shown to it.
    let fleet = Authority::ephemeral("fleet").unwrap();
    let lane = world.lane(Some(&fleet), |mut stream| async move {
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    let proxy = world.terminating(lane);
    world.secure(&proxy).await;
    proxy.until(|status| status.tls_failed == (0, 1)).await;
    let mut settings = world.settings();
    settings.client_ca_pem = Some(fleet.pem());
    let upstream = settings.upstream.as_mut().unwrap();
    upstream.identity = Some(fleet.issue(&["proxy"]).unwrap());
    let proxy = Proxy::before(terminating(lane, settings));
    let mut nobody = world.secure(&proxy).await;
    let error = within(nobody.read_u8()).await.unwrap_err();
    let why = host::tls::reason(&error);
    assert!(why.contains("it requires a client certificate"), "{why}");
    proxy.until(|status| status.tls_failed == (1, 0)).await;
    let known = TlsClient {
        identity: Some(fleet.issue(&["c0001"]).unwrap()),
        ..trusting(&world.proxy)
    };
    let connector = Connector::new(&known).unwrap();
    let connecting = connector.connect(server_name(HOST).unwrap(), proxy.tcp().await);
    echoed(&mut within(connecting).await.unwrap(), b"x").await;
}

#[tokio::test]
async fn plain_text_is_not_taken_for_tls() {
    let world = World::new();
    let proxy = world.terminating(world.websocket_lane());
    let mut client = proxy.ask_upgrade(Some(1)).await;
    let mut said = Vec::new();
    let _ = within(client.read_to_end(&mut said)).await;
    // At most an alert: record type 21.
    assert!(said.is_empty() || said[0] == 21, "{said:?}");
    proxy
        .until(|status| status.tls_failed == (1, 0) && status.open == 0)
        .await;
}

#[tokio::test]
async fn a_tap_hears_the_frames_inside_tls() {
    let world = World::new();
    let (data, control) = (loopback(), loopback());
    let at = data.local_addr().unwrap();
    let (tap, shutdown) = (Arc::new(Recorder::default()), CancellationToken::new());
    let listening: Arc<dyn FrameTap> = tap.clone();
    let lane = terminating(world.websocket_lane(), world.settings());
    let served = proxy::serve_tapped(data, control, lane, listening, shutdown.clone());
    let served = tokio::spawn(served);
    let connector = Connector::new(&trusting(&world.proxy)).unwrap();
    let tcp = TcpStream::connect(at).await.unwrap();
    let stream = within(connector.connect(server_name(HOST).unwrap(), tcp))
        .await
        .unwrap();
    let mut socket = websocket(stream, 1).await;
    converse(&mut socket, "heard").await;
    // It hears what has been passed on, so a little later than the client.
    let heard = (Way::Downstream, 5, b"heard".to_vec());
    let arrives = async {
        while !tap.0.lock().unwrap().contains(&heard) {
            tokio::task::yield_now().await;
        }
    };
    within(arrives).await;
    assert_eq!(tap.0.lock().unwrap().len(), 2);
    shutdown.cancel();
    within(served).await.unwrap().unwrap();
}
