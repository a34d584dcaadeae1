//! Named proxies that end TLS, and the toxics of the handshake, with clients that verify.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use host::http::Method;
use host::tls::{Authority, Connector, Trouble, server, server_name, trouble};
use model::target::{TlsClient, TlsIdentity};
use proxy::toxiproxy::Settings;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;
use tokio_websockets::{ClientBuilder, Message};

use super::{Api, connect, refused};
use crate::harness::{echo, ending, upstream, websocket_echo, within};

const HOST: &str = "sync.example.com";
const SHORT: Duration = Duration::from_millis(60);
const FLAWS: [(&str, Trouble); 3] = [
    ("tls_expired", Trouble::Time),
    ("tls_wrong_host", Trouble::Name),
    ("tls_unknown_issuer", Trouble::Authority),
];

type Secure = TlsStream<TcpStream>;

/// A lane that shows `identity`, tells whom its clients asked for, and sends back what it gets.
fn secure_lane(identity: &TlsIdentity) -> (SocketAddr, UnboundedReceiver<Option<String>>) {
    let acceptor = TlsAcceptor::from(server(identity, None).unwrap());
    let (names, asked) = unbounded_channel();
    let addr = upstream(move |stream| {
        let (acceptor, names) = (acceptor.clone(), names.clone());
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let name = stream.get_ref().1.server_name().map(str::to_owned);
            let _ = names.send(name);
            let (mut read, mut write) = tokio::io::split(stream);
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        }
    });
    (addr, asked)
}

/// A proxy `p` with these settings of TLS: where it listens.
async fn ending_tls(api: &Api, to: SocketAddr, tls: Value) -> SocketAddr {
    let body = json!({"name": "p", "upstream": to.to_string(), "tls": tls});
    let (status, proxy) = api.post("/proxies", body).await;
    assert_eq!(status, 201, "{proxy}");
    proxy["listen"].as_str().unwrap().parse().unwrap()
}

/// The server's own authority.
async fn authority(api: &Api) -> String {
    let answer = api.raw(Method::GET, "/tls/ca", "").await;
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// A client that trusts these alone: its stream, or why it has none.
async fn secure(addr: SocketAddr, trusted: &str, host: &str) -> Result<Secure, String> {
    let settings = TlsClient {
        ca_pem: Some(trusted.to_owned()),
        identity: None,
    };
    let connector = Connector::new(&settings).unwrap();
    let connecting = connector.connect(server_name(host).unwrap(), connect(addr).await);
    within(connecting).await.map_err(|error| error.to_string())
}

async fn echoed(stream: &mut Secure, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    stream.flush().await.unwrap();
    let mut back = vec![0; text.len()];
    within(stream.read_exact(&mut back)).await.unwrap();
    assert!(back == text);
}

fn pem(identity: &TlsIdentity) -> Value {
    json!({"certificate": identity.chain_pem, "key": identity.key_pem})
}

#[tokio::test]
async fn certificates_are_issued_for_whatever_host_is_asked_for() {
    let api = Api::start();
    let addr = ending_tls(&api, echo(), json!({"self_issued": true})).await;
    let trusted = authority(&api).await;
    for host in [HOST, "Other.example.com", "127.0.0.1"] {
        let mut stream = secure(addr, &trusted, host).await.unwrap();
        echoed(&mut stream, b"in the clear behind the proxy").await;
    }
    let other = Authority::ephemeral("other").unwrap().pem();
    let why = secure(addr, &other, HOST).await.unwrap_err();
    assert_eq!(trouble(&why), Some(Trouble::Authority), "{why}");
    assert_eq!(authority(&api).await, trusted, "there is one for all");
}

#[tokio::test]
async fn an_upstream_is_asked_for_what_the_client_asked_for() {
    let lane = Authority::ephemeral("lane").unwrap();
    let names = ["a.example.com", "b.example.com", "127.0.0.1"];
    let (to, mut asked) = secure_lane(&lane.issue(&names).unwrap());
    let api = Api::start();
    let tls = json!({"self_issued": true, "upstream": "tls", "upstream_ca": lane.pem()});
    let addr = ending_tls(&api, to, tls).await;
    let trusted = authority(&api).await;
    for (name, heard) in names
        .into_iter()
        .zip([Some("a.example.com"), Some("b.example.com"), None])
    {
        let mut stream = secure(addr, &trusted, name).await.unwrap();
        echoed(&mut stream, b"secure on both sides").await;
        assert_eq!(within(asked.recv()).await.unwrap().as_deref(), heard);
    }
    // What the upstream has no certificate for goes no further.
    let mut stream = secure(addr, &trusted, "c.example.com").await.unwrap();
    assert!(within(stream.read_u8()).await.is_err());
    let patch = json!({"tls": {"self_issued": true, "upstream_ca": lane.pem(), "server_name": "b.example.com"}});
    assert_eq!(api.patch("/proxies/p", patch).await.0, 200);
    let mut stream = secure(addr, &trusted, "c.example.com").await.unwrap();
    echoed(&mut stream, b"by another name").await;
    assert_eq!(
        within(asked.recv()).await.unwrap().as_deref(),
        Some("b.example.com")
    );
}

#[tokio::test]
async fn each_flaw_is_refused_for_what_it_is_and_gone_with_its_toxic() {
    let api = Api::start();
    let addr = ending_tls(&api, echo(), json!({"self_issued": true})).await;
    let trusted = authority(&api).await;
    let mut old = secure(addr, &trusted, HOST).await.unwrap();
    for (kind, about) in FLAWS {
        api.toxic(kind, "downstream", json!({})).await;
        for host in [HOST, "127.0.0.1"] {
            let why = secure(addr, &trusted, host).await.unwrap_err();
            assert_eq!(trouble(&why), Some(about), "{kind}: {why}");
        }
        echoed(&mut old, b"those before it are unharmed").await;
        let path = format!("/proxies/p/toxics/{kind}_downstream");
        assert_eq!(api.patch(&path, json!({"toxicity": 0})).await.0, 200);
        echoed(&mut secure(addr, &trusted, HOST).await.unwrap(), b"spared").await;
        assert_eq!(api.patch(&path, json!({"toxicity": 1})).await.0, 200);
        assert!(secure(addr, &trusted, HOST).await.is_err());
        assert_eq!(api.delete(&path).await, 204);
        echoed(&mut secure(addr, &trusted, HOST).await.unwrap(), b"gone").await;
    }
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_shown_and_its_flaws_are_of_the_servers_authority() {
    let own = Authority::ephemeral("own").unwrap();
    let api = Api::start();
    let addr = ending_tls(&api, echo(), pem(&own.issue(&[HOST]).unwrap())).await;
    let both = own.pem() + &authority(&api).await;
    echoed(&mut secure(addr, &own.pem(), HOST).await.unwrap(), b"ours").await;
    let why = secure(addr, &authority(&api).await, HOST)
        .await
        .unwrap_err();
    assert_eq!(trouble(&why), Some(Trouble::Authority), "{why}");
    for (kind, about) in FLAWS {
        api.toxic(kind, "downstream", json!({})).await;
        let why = secure(addr, &both, HOST).await.unwrap_err();
        assert_eq!(trouble(&why), Some(about), "{kind}: {why}");
        // What rustls says first where the issuer is unknown too.
        let first = match about {
            Trouble::Time => Trouble::Time,
            _ => Trouble::Authority,
        };
        let why = secure(addr, &own.pem(), HOST).await.unwrap_err();
        assert_eq!(trouble(&why), Some(first), "{kind}: {why}");
        api.delete(&format!("/proxies/p/toxics/{kind}_downstream"))
            .await;
    }
    echoed(
        &mut secure(addr, &own.pem(), HOST).await.unwrap(),
        b"ours again",
    )
    .await;
}

#[tokio::test]
async fn a_share_of_the_handshakes_goes_by_the_order_of_accepts_though_clients_have_ids() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("decisions");
    let api = Api::with(Settings {
        seed: 3,
        decision_log: Some(log.clone()),
        ..Settings::default()
    });
    let body = json!({
        "name": "p", "upstream": echo().to_string(), "tls": {"self_issued": true},
        "identify_by": {"header": "X-Client"},
    });
    let (_, proxy) = api.post("/proxies", body).await;
    let addr = proxy["listen"].as_str().unwrap().parse().unwrap();
    let trusted = authority(&api).await;
    let body = json!({"name": "half", "type": "tls_expired", "toxicity": 0.5});
    assert_eq!(api.post("/proxies/p/toxics", body).await.0, 200);
    let mut decided = Vec::new();
    for _ in 0..12 {
        let taken = secure(addr, &trusted, HOST).await.is_err();
        decided.push(if taken { "taken" } else { "spared" });
    }
    assert!(decided.contains(&"taken") && decided.contains(&"spared"));
    let expected: Vec<_> = (0..12)
        .map(|n| {
            let unit = model::decide::unit(3, "p/half", &format!("connection-{n}"), 0);
            if unit < 0.5 { "taken" } else { "spared" }
        })
        .collect();
    assert_eq!(decided, expected);
    let lines = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text.lines().count() == 12 {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    for (line, expected) in within(lines).await.lines().zip(expected) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["decided"], expected, "{line}");
    }
}

#[tokio::test]
async fn a_stalled_handshake_is_silent_and_goes_on_when_the_toxic_is_gone() {
    let api = Api::start();
    let addr = ending_tls(&api, echo(), json!({"self_issued": true})).await;
    let trusted = authority(&api).await;
    let mut old = secure(addr, &trusted, HOST).await.unwrap();
    api.toxic("tls_handshake_stall", "downstream", json!({}))
        .await;
    let connecting = secure(addr, &trusted, HOST);
    tokio::pin!(connecting);
    for change in ["none", "latency"] {
        let hung = tokio::time::timeout(SHORT, &mut connecting).await;
        assert!(hung.is_err(), "{change} is no way out");
        if change == "none" {
            api.toxic("latency", "downstream", json!({})).await;
        }
    }
    echoed(&mut old, b"goes on").await;
    // One that gives up is noticed, and one that says too much.
    for more in [0, 64 << 10] {
        let mut gone = connect(addr).await;
        gone.write_all(&hello(HOST)).await.unwrap();
        let _ = gone.write_all(&vec![0; more]).await;
        gone.shutdown().await.unwrap();
        let _ = ending(&mut gone).await;
    }
    let path = "/proxies/p/toxics/tls_handshake_stall_downstream";
    assert_eq!(api.delete(path).await, 204);
    echoed(&mut connecting.await.unwrap(), b"after").await;
}

/// What a client says first.
fn hello(host: &str) -> Vec<u8> {
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = server_name(host).unwrap();
    let mut client = tokio_rustls::rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn what_came_behind_a_hello_that_was_not_answered_is_not_lost() {
    let api = Api::start();
    let addr = ending_tls(&api, echo(), json!({"self_issued": true})).await;
    api.toxic("tls_handshake_stall", "downstream", json!({}))
        .await;
    let mut client = connect(addr).await;
    let hello = hello(HOST);
    let (begin, end) = hello.split_at(9);
    client.write_all(begin).await.unwrap();
    let silent = tokio::time::timeout(SHORT, client.read_u8()).await;
    assert!(silent.is_err());
    client.write_all(end).await.unwrap();
    let silent = tokio::time::timeout(SHORT, client.read_u8()).await;
    assert!(silent.is_err());
    // A fatal alert: user_canceled. It is heard when the handshake goes on, and ends it.
    client.write_all(&[21, 3, 3, 0, 2, 2, 90]).await.unwrap();
    let silent = tokio::time::timeout(SHORT, client.read_u8()).await;
    assert!(silent.is_err());
    api.delete("/proxies/p/toxics/tls_handshake_stall_downstream")
        .await;
    within(ending(&mut client)).await.unwrap();
}

#[tokio::test]
async fn toxics_work_inside_tls() {
    let api = Api::start();
    let addr = ending_tls(&api, websocket_echo(), json!({"self_issued": true})).await;
    let trusted = authority(&api).await;
    let websocket = async || {
        let stream = secure(addr, &trusted, HOST).await.unwrap();
        let uri = format!("ws://{HOST}/sync");
        let builder = ClientBuilder::new().uri(&uri).unwrap();
        within(builder.connect_on(stream)).await
    };
    let (mut old, _) = websocket().await.unwrap();
    let refusing = json!({"status": 429});
    api.toxic("ws_refuse_upgrade", "downstream", refusing).await;
    let why = websocket().await.err().unwrap().to_string();
    assert!(why.contains("429"), "{why}");
    api.toxic("latency", "downstream", json!({"latency": 80}))
        .await;
    let begun = std::time::Instant::now();
    old.send(Message::text("late")).await.unwrap();
    let back = within(old.next()).await.unwrap().unwrap();
    assert_eq!(back.as_text(), Some("late"));
    assert!(begun.elapsed() >= Duration::from_millis(79));
    api.post("/reset", Value::Null).await;
    websocket().await.unwrap();
}

#[tokio::test]
async fn tls_passes_through_where_nothing_is_said() {
    let lane = Authority::ephemeral("lane").unwrap();
    let (to, mut asked) = secure_lane(&lane.issue(&[HOST]).unwrap());
    let api = Api::start();
    let addr = api.proxy(to).await;
    let (_, view) = api.get("/proxies/p").await;
    assert!(view.get("tls").is_none(), "{view}");
    let mut stream = secure(addr, &lane.pem(), HOST).await.unwrap();
    echoed(&mut stream, b"end to end").await;
    assert_eq!(within(asked.recv()).await.unwrap().as_deref(), Some(HOST));
    for kind in [
        "tls_expired",
        "tls_wrong_host",
        "tls_unknown_issuer",
        "tls_handshake_stall",
    ] {
        let (status, answer) = api.post("/proxies/p/toxics", json!({"type": kind})).await;
        let why = answer["error"].as_str().unwrap();
        assert_eq!(status, 400);
        assert!(
            why.contains(kind) && why.contains("\"self_issued\": true"),
            "{why}"
        );
    }
    // From now on it ends there, and what passed through has ended.
    let patch = json!({"tls": {"self_issued": true, "upstream_ca": lane.pem()}});
    assert_eq!(api.patch("/proxies/p", patch.clone()).await.0, 200);
    assert!(within(stream.read_u8()).await.is_err());
    let trusted = authority(&api).await;
    let mut stream = secure(addr, &trusted, HOST).await.unwrap();
    echoed(&mut stream, b"ended").await;
    // The same again changes nothing.
    assert_eq!(api.patch("/proxies/p", patch).await.0, 200);
    echoed(&mut stream, b"still").await;
}

#[tokio::test]
async fn populating_with_the_same_tls_keeps_a_proxy_and_with_another_makes_it_anew() {
    let api = Api::start();
    let addr = ending_tls(&api, echo(), json!({"self_issued": true})).await;
    let trusted = authority(&api).await;
    let mut stream = secure(addr, &trusted, HOST).await.unwrap();
    let (_, before) = api.get("/proxies/p").await;
    let (status, _) = api.post("/populate", json!([before.clone()])).await;
    assert_eq!(status, 201);
    echoed(&mut stream, b"kept").await;
    let mut plain = before;
    plain.as_object_mut().unwrap().remove("tls");
    assert_eq!(api.post("/populate", json!([plain])).await.0, 201);
    assert!(within(stream.read_u8()).await.is_err());
    let mut stream = connect(addr).await;
    crate::harness::round_trip(&mut stream, b"passes through").await;
}

#[tokio::test]
async fn files_are_read_below_their_directory_alone_and_keys_are_never_shown() {
    let own = Authority::ephemeral("own").unwrap();
    let identity = own.issue(&[HOST]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("in"), dir.path().join("out.pem"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("chain.pem"), &identity.chain_pem).unwrap();
    for path in [&inside.join("key.pem"), &outside] {
        std::fs::write(path, &identity.key_pem).unwrap();
    }
    std::os::unix::fs::symlink(&outside, inside.join("link.pem")).unwrap();
    let api = Api::with(Settings {
        tls_dir: Some(inside.clone()),
        ..Settings::default()
    });
    let files = json!({"certificate": "chain.pem", "key": "./key.pem"});
    let addr = ending_tls(&api, echo(), files).await;
    echoed(&mut secure(addr, &own.pem(), HOST).await.unwrap(), b"ours").await;
    let (_, view) = api.get("/proxies/p").await;
    assert_eq!(
        view["tls"],
        json!({"self_issued": false, "certificate": "chain.pem", "upstream": "plain"})
    );
    let key = &identity.key_pem;
    for (key, why) in [
        ("../out.pem", "not a path below"),
        (outside.to_str().unwrap(), "not a path below"),
        ("link.pem", "leads out of the directory"),
        ("none.pem", "No such file"),
        (".", "not a file"),
        // A key without its armour is no name to be shown.
        (key.lines().nth(1).unwrap(), "No such file"),
    ] {
        let tls = json!({"certificate": "chain.pem", "key": key});
        let (status, answer) = api.patch("/proxies/p", json!({"tls": tls})).await;
        let said = answer["error"].as_str().unwrap();
        assert_eq!(status, 400);
        assert!(
            said.contains(why) && !said.contains(&format!("{key:?}")),
            "{said}"
        );
    }
    echoed(
        &mut secure(addr, &own.pem(), HOST).await.unwrap(),
        b"as before",
    )
    .await;
    let both = json!({"tls": {"certificate": identity.chain_pem.clone() + key, "key": key}});
    let (status, answer) = api.patch("/proxies/p", both).await;
    assert_eq!(
        (status, &answer["tls"]["certificate"]),
        (200, &json!("inline"))
    );
    assert!(!answer.to_string().contains("PRIVATE"));
    let named = Api::start();
    let body =
        json!({"name": "p", "upstream": "x:1", "tls": {"certificate": "chain.pem", "key": key}});
    let (status, answer) = named.post("/proxies", body).await;
    let said = answer["error"].as_str().unwrap();
    assert!(status == 400 && said.contains("--tls-dir"), "{said}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_what_would() {
    let own = Authority::ephemeral("own").unwrap();
    let (one, other) = (own.issue(&[HOST]).unwrap(), own.issue(&[HOST]).unwrap());
    let secret = one.key_pem.lines().nth(1).unwrap();
    let api = Api::start();
    for (tls, why) in [
        (json!(true), "tls: not an object"),
        (json!(one.key_pem), "tls: not an object"),
        (json!({}), "no certificate; give certificate and key"),
        (json!({"self_issued": false}), "no certificate"),
        (json!({"self_issued": "yes"}), "self_issued is neither"),
        (
            json!({"self_issued": true, "key": one.key_pem}),
            "exclude each other",
        ),
        (
            json!({"certificate": one.chain_pem}),
            "certificate without key",
        ),
        (json!({"key": one.key_pem}), "key without certificate"),
        (
            json!({"certificate": 1, "key": one.key_pem}),
            "certificate is not a string",
        ),
        (
            json!({"certificate": one.chain_pem, "key": other.key_pem}),
            "the server's certificate and key: ",
        ),
        (
            json!({"certificate": one.key_pem, "key": one.key_pem}),
            "no certificate in it",
        ),
        (
            json!({"certificate": one.chain_pem, "key": one.chain_pem}),
            "no private key in it",
        ),
        (
            json!({"self_issued": true, "upstream": "wss"}),
            "upstream is neither",
        ),
        (
            json!({"self_issued": true, "upstream": "plain", "server_name": "x"}),
            "say \"upstream\": \"tls\"",
        ),
        (
            json!({"self_issued": true, "server_name": "no host"}),
            "`no host` is not a host name",
        ),
        (
            json!({"self_issued": true, "upstream_ca": "-----BEGIN"}),
            "no certificate in it",
        ),
        (json!({"selfissued": true}), "no field \"selfissued\""),
    ] {
        let body = json!({"name": "p", "upstream": "127.0.0.1:1", "tls": tls});
        let (status, answer) = api.post("/proxies", body).await;
        let said = answer["error"].as_str().unwrap();
        assert!(status == 400 && said.contains(why), "{status} {said}");
        assert!(said.starts_with("bad request body: tls: "), "{said}");
        assert!(!said.contains(secret), "{said}");
    }
    assert_eq!(api.get("/proxies/p").await, refused(404, "proxy not found"));
    let body = json!({"name": "p", "upstream": "127.0.0.1:1", "tls": null});
    let (status, view) = api.post("/proxies", body).await;
    assert!(status == 201 && view.get("tls").is_none(), "{view}");
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_so_and_the_rest_is_unharmed() {
    let api = Api::start();
    let addr = ending_tls(&api, echo(), json!({"self_issued": true})).await;
    let mut plain = connect(addr).await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // An alert, of TLS.
    let said = ending(&mut plain).await;
    assert!(said.is_err() || said.unwrap().first() == Some(&21));
    let trusted = authority(&api).await;
    echoed(&mut secure(addr, &trusted, HOST).await.unwrap(), b"secure").await;
}
