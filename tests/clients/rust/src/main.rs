//! The crates `toxiproxy_rust` and `noxious-client` against the server whose address is the first argument.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use noxious::toxic::{StreamDirection, Toxic, ToxicKind};

/// Sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    addr
}

/// How long a word takes to the echo and back.
fn round_trip(addr: &str) -> std::io::Result<Duration> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let begun = Instant::now();
    stream.write_all(b"hello")?;
    let mut back = [0; 5];
    stream.read_exact(&mut back)?;
    assert_eq!(&back, b"hello");
    Ok(begun.elapsed())
}

fn toxiproxy_rust(api: &str, upstream: &str) {
    use toxiproxy_rust::client::Client;
    use toxiproxy_rust::proxy::ProxyPack;

    let client = Client::new(api);
    assert!(client.is_running());
    assert_eq!(client.version().unwrap(), r#"{"version": "2.12.0"}"#);
    let pack = |name: &str| ProxyPack::new(name.into(), "127.0.0.1:0".into(), upstream.into());
    let made = client.populate(vec![pack("one"), pack("two")]).unwrap();
    assert_eq!(made.len(), 2);
    assert_eq!(client.all().unwrap().len(), 2);
    let one = client.find_proxy("one").unwrap();
    let listen = one.proxy_pack.listen.clone();
    assert!(
        one.proxy_pack.enabled && !listen.ends_with(":0"),
        "{listen}"
    );
    round_trip(&listen).unwrap();

    one.with_down(|| assert!(TcpStream::connect(&listen).is_err()))
        .unwrap();
    one.disable().unwrap();
    assert!(TcpStream::connect(&listen).is_err());
    one.enable().unwrap();
    round_trip(&listen).unwrap();

    one.with_latency("downstream".into(), 60, 5, 1.0)
        .apply(|| assert!(round_trip(&listen).unwrap() >= Duration::from_millis(54)))
        .unwrap();
    assert!(one.toxics().unwrap().is_empty());
    one.with_bandwidth("downstream".into(), 500, 1.0)
        .with_slow_close("downstream".into(), 10, 1.0)
        .with_timeout("upstream".into(), 50, 0.0)
        .with_slicer("downstream".into(), 100, 10, 5, 1.0)
        .with_limit_data("downstream".into(), 1_000, 1.0);
    let toxics = one.toxics().unwrap();
    let names: Vec<_> = toxics.iter().map(|toxic| toxic.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "timeout_upstream",
            "bandwidth_downstream",
            "slow_close_downstream",
            "slicer_downstream",
            "limit_data_downstream"
        ]
    );
    assert_eq!(toxics[3].attributes["average_size"], 100);
    round_trip(&listen).unwrap();
    one.delete_all_toxics().unwrap();
    one.with_timeout("downstream".into(), 30, 1.0);
    assert!(round_trip(&listen).is_err());
    let reset = client.find_and_reset_proxy("one").unwrap();
    assert!(reset.toxics().unwrap().is_empty());
    client.reset().unwrap();
    for proxy in client.all().unwrap().into_values() {
        proxy.delete().unwrap();
    }
    assert!(client.all().unwrap().is_empty() && client.find_proxy("one").is_err());
}

async fn noxious_client(api: &str, upstream: &str) {
    let client = noxious_client::Client::new(api);
    let proxy = client
        .create_proxy("nox", "127.0.0.1:0", upstream)
        .await
        .unwrap();
    assert!(
        client
            .create_proxy("nox", "127.0.0.1:0", upstream)
            .await
            .is_err()
    );
    assert_eq!(client.proxies().await.unwrap().len(), 1);
    let mut proxy = {
        drop(proxy);
        client.proxy("nox").await.unwrap()
    };
    let listen = proxy.config.listen.clone();
    round_trip(&listen).unwrap();
    proxy.disable().await.unwrap();
    assert!(!client.proxy("nox").await.unwrap().is_enabled());
    assert!(TcpStream::connect(&listen).is_err());
    proxy.enable().await.unwrap();
    round_trip(&listen).unwrap();

    let kinds = [
        ToxicKind::Latency {
            latency: 60,
            jitter: 5,
        },
        ToxicKind::Timeout { timeout: 50 },
        ToxicKind::Bandwidth { rate: 500 },
        ToxicKind::SlowClose { delay: 10 },
        ToxicKind::Slicer {
            average_size: 100,
            size_variation: 10,
            delay: 5,
        },
        ToxicKind::LimitData { bytes: 1_000 },
    ];
    for (at, kind) in kinds.iter().enumerate() {
        // It calls the stream `direction`, which Toxiproxy does not know: its toxics are downstream ones.
        let toxic = Toxic {
            kind: kind.clone(),
            name: format!("t{at}"),
            toxicity: 0.5,
            direction: StreamDirection::Downstream,
        };
        assert_eq!(proxy.add_toxic(&toxic).await.unwrap(), toxic);
        assert!(proxy.add_toxic(&toxic).await.is_err(), "its name is taken");
    }
    assert_eq!(proxy.toxics().await.unwrap().len(), kinds.len());
    let slower = ToxicKind::Latency {
        latency: 80,
        jitter: 0,
    };
    let updated = proxy
        .update_toxic("t0", 1.0, slower.clone(), StreamDirection::Downstream)
        .await
        .unwrap();
    assert!(updated.kind == slower && updated.toxicity == 1.0);
    for at in 1..kinds.len() {
        proxy.remove_toxic(&format!("t{at}")).await.unwrap();
    }
    assert!(round_trip(&listen).unwrap() >= Duration::from_millis(79));
    assert!(proxy.remove_toxic("t1").await.is_err());
    client.reset_state().await.unwrap();
    assert!(proxy.toxics().await.unwrap().is_empty());
    // Its `populate` reads an answer that only noxious gives, and its `change_name` a change that Toxiproxy ignores.
    proxy.change_name("other").await.unwrap();
    client.proxy("nox").await.unwrap().delete().await.unwrap();
    assert!(client.proxy("nox").await.is_err());
}

#[tokio::main]
async fn main() {
    let api = std::env::args().nth(1).expect("the address of the API");
    let upstream = echo().to_string();
    let (blocking_api, blocking_upstream) = (api.clone(), upstream.clone());
    // Its calls block, and may not do so on the runtime.
    tokio::task::spawn_blocking(move || toxiproxy_rust(&blocking_api, &blocking_upstream))
        .await
        .unwrap();
    println!("toxiproxy_rust: every call and every toxic");
    noxious_client(&api, &upstream).await;
    println!("noxious-client: every call and every toxic");
}
