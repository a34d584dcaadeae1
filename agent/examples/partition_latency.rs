//! How long a partition takes to be effective, and to be healed, as a probe sees it: a packet every 200 µs from another
//! network namespace, 200 partitions ordered from an agent by its API. As root, with nft and ip:
//!
//! ```sh
//! cargo run --release -p agent --example partition_latency
//! ```

use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agent::client::Agent;
use agent::service::Service;
use host::{clock, net};
use model::fault::{Action, Fault, FaultOrder, Flow, Partition};
use model::instant::Mono;
use model::quantity::{Share, Span};
use model::role::AgentConfig;
use tokio_util::sync::CancellationToken;

#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../tests/agent/netns.rs"]
mod netns;

use netns::{Lab, skipped, v4};

const TIMES: usize = 200;
const EVERY: Duration = Duration::from_micros(200);
/// Every packet that was sent before it has arrived.
const SETTLED: Duration = Duration::from_millis(5);

fn main() -> io::Result<()> {
    // What the agent here starts of its own program.
    let args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|role| role == "watchdog") {
        return agent::watchdog::main(Path::new(&args[3]));
    }
    if skipped() {
        return Ok(());
    }
    let lab = Lab::new(2);
    // Before there is a runtime: its threads are where this one is.
    lab.move_to(1);
    let ear = UdpSocket::bind(v4(1, 0))?;
    let mouth = lab.on(2, || UdpSocket::bind(v4(2, 0)))?;
    let heard = Arc::new(Heard::default());
    let over = Arc::new(AtomicBool::new(false));
    mouth.connect(ear.local_addr()?)?;
    let said_all = Arc::clone(&over);
    let speaking = std::thread::spawn(move || {
        while !said_all.load(Ordering::Relaxed) {
            let _ = mouth.send(b"x");
            std::thread::sleep(EVERY);
        }
    });
    let hearing = Arc::clone(&heard);
    std::thread::spawn(move || {
        while ear.recv(&mut [0; 8]).is_ok() {
            let now = clock::now().0;
            hearing.last.store(now, Ordering::SeqCst);
            // Only the first since it was last asked for.
            let _ = hearing
                .first
                .compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
        }
    });
    let runtime = tokio::runtime::Runtime::new()?;
    let measured = runtime.block_on(measure(&heard));
    over.store(true, Ordering::Relaxed);
    let _ = speaking.join();
    let [mut effective, mut healed] = measured?;
    for (what, spans) in [("effective", &mut effective), ("healed", &mut healed)] {
        spans.sort_unstable();
        let at = |share: usize| Span::from_micros(spans[(TIMES - 1) * share / 100]);
        println!(
            "{what:<9} of {TIMES}: p50 {}, p90 {}, p99 {}, max {}",
            at(50),
            at(90),
            at(99),
            at(100)
        );
    }
    Ok(())
}

/// When packets have arrived.
#[derive(Default)]
struct Heard {
    last: AtomicU64,
    first: AtomicU64,
}

fn order(n: usize) -> FaultOrder {
    FaultOrder {
        id: format!("f{n}"),
        fault: Fault::Partition(Partition {
            peers: vec![v4(2, 0).ip().into()],
            ports: Vec::new(),
            direction: Flow::Both,
            action: Action::Drop,
            of: None,
        }),
        node: None,
        share: Share::ALL,
        seed: 7,
        lease: Span::from_secs(10),
    }
}

async fn measure(heard: &Heard) -> io::Result<[Vec<u64>; 2]> {
    let folder = tempfile::tempdir()?;
    let config = AgentConfig {
        name: "latency".to_owned(),
        state_dir: folder.path().join("agent"),
        log_dir: folder.path().join("logs"),
        spacetimedb: None,
        commands: [].into(),
        nodes: [].into(),
    };
    let service = Service::open(config, std::env::current_exe()?)?;
    let listener = net::listen(([127, 0, 0, 1], 0).into())?;
    let agent = Agent::new(listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(service.run(listener, shutdown.clone()));
    let (mut effective, mut healed) = (Vec::new(), Vec::new());
    agent.preflight().await.map_err(io::Error::other)?;
    for n in 0..TIMES {
        let order = order(n);
        let called = clock::now();
        agent.inject(&order).await.map_err(io::Error::other)?;
        tokio::time::sleep(SETTLED).await;
        let last = Mono(heard.last.load(Ordering::SeqCst));
        effective.push(last.since(called).as_micros());
        heard.first.store(0, Ordering::SeqCst);
        let called = clock::now();
        agent.undo(&order.id).await.map_err(io::Error::other)?;
        tokio::time::sleep(SETTLED).await;
        let first = Mono(heard.first.load(Ordering::SeqCst));
        healed.push(first.since(called).as_micros());
    }
    shutdown.cancel();
    running.await.map_err(io::Error::other)?;
    Ok([effective, healed])
}
