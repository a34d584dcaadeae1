//! Faults in the kernel, on machines of a test's own: real packets, seen by probes both ways.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use model::fault::{Action, DropSockets, Fault, Flow, PacketLoss, Partition, Throttle};
use model::net::Cidr;
use model::quantity::{ByteSize, Share, Span};

use crate::netns::{Lab, said, skipped, v4};
use crate::support::{Node, order, refusal};

mod partitions;

/// The machine with the agent, and another.
const HERE: u8 = 1;
const THERE: u8 = 2;
const THIRD: u8 = 3;
/// Longer than a packet needs on a busy host, and than a first look for the neighbour.
const PATIENCE: Duration = Duration::from_millis(700);

fn partition(peers: &[&str]) -> Partition {
    Partition {
        peers: cidrs(peers),
        ports: Vec::new(),
        direction: Flow::Both,
        action: Action::Drop,
        of: None,
    }
}

fn cidrs(peers: &[&str]) -> Vec<Cidr> {
    peers.iter().map(|peer| peer.parse().unwrap()).collect()
}

fn port(port: u16) -> NonZeroU16 {
    port.try_into().unwrap()
}

/// A UDP socket on a machine, and what it hears: nothing that is sent to it is ever answered, so that each way is seen by
/// itself.
struct Ear {
    socket: UdpSocket,
    addr: SocketAddr,
}

impl Ear {
    fn on(lab: &Lab, machine: u8) -> Self {
        Self::at(lab, machine, v4(machine, 0))
    }

    fn at(lab: &Lab, machine: u8, addr: SocketAddr) -> Self {
        let socket = lab.on(machine, || UdpSocket::bind(addr).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let addr = socket.local_addr().unwrap();
        Self { socket, addr }
    }

    /// Whether it hears what the other says.
    fn hears(&self, from: &Self) -> bool {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let word = NEXT
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            .to_le_bytes();
        // A sender whose own kernel drops it is told so: EPERM.
        if from.socket.send_to(&word, self.addr).is_err() {
            return false;
        }
        let mut heard = [0; 16];
        while let Ok((size, _)) = self.socket.recv_from(&mut heard) {
            if heard[..size] == word {
                return true;
            }
        }
        false
    }
}

/// Both ways between two.
fn both_ways(here: &Ear, there: &Ear) -> (bool, bool) {
    (here.hears(there), there.hears(here))
}

fn tables(lab: &Lab) -> String {
    lab.run(HERE, "nft", &["-s", "list", "ruleset"])
}

fn serve(lab: &Lab, machine: u8) -> (TcpListener, SocketAddr) {
    let listener = lab.on(machine, || TcpListener::bind(v4(machine, 0)).unwrap());
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn connect(lab: &Lab, machine: u8, addr: SocketAddr) -> Result<TcpStream, io::ErrorKind> {
    lab.on(machine, || TcpStream::connect_timeout(&addr, PATIENCE))
        .map_err(|error| error.kind())
}

#[tokio::test]
async fn about_as_many_packets_are_lost_as_were_ordered() {
    const SENT: u32 = 4_000;
    if skipped() {
        return;
    }
    let lab = Lab::new(2);
    lab.move_to(HERE);
    let node = Node::start().await;
    let (here, there) = (Ear::on(&lab, HERE), Ear::on(&lab, THERE));
    assert!(here.hears(&there));
    let fault = Fault::PacketLoss(PacketLoss {
        peers: cidrs(&["10.77.0.2"]),
        ports: Vec::new(),
        direction: Flow::In,
        rate: Share::ratio(0.25),
    });
    node.agent.inject(&order("f1", fault)).await.unwrap();
    let mut heard = 0_u32;
    let mut packet = [0; 8];
    for _ in 0..SENT / 40 {
        // In small lots, so that no buffer overflows.
        for _ in 0..40 {
            there.socket.send_to(b"x", here.addr).unwrap();
        }
        here.socket.set_nonblocking(true).unwrap();
        while here.socket.recv_from(&mut packet).is_ok() {
            heard += 1;
        }
    }
    let figures = node.agent.undo("f1").await.unwrap().observation.figures;
    let lost = figures["packets_dropped"];
    // Five standard deviations of a binomial are 137 here.
    eprintln!("packet loss of 25%: {lost} of {SENT} lost");
    assert!((850..1_150).contains(&lost), "{lost} of {SENT}");
    assert_eq!(lost, u64::from(SENT - heard));
    node.end().await;
}

#[tokio::test]
async fn a_throttled_interface_sends_as_much_as_it_may() {
    const RATE: u64 = 2 * 1024 * 1024;
    if skipped() {
        return;
    }
    let lab = Lab::new(2);
    lab.move_to(HERE);
    let node = Node::start().await;
    node.agent.mark_residue().await.unwrap();
    let qdiscs = || lab.run(HERE, "tc", &["qdisc", "show"]);
    let before = qdiscs();
    let fault = Fault::Throttle(Throttle {
        interface: "eth0".parse().unwrap(),
        per_second: ByteSize::new(RATE),
        burst: None,
        latency: Span::from_millis(50),
    });
    node.agent
        .inject(&order("f1", fault.clone()))
        .await
        .unwrap();
    let (status, message) = refusal(node.agent.inject(&order("f2", fault)).await);
    assert!(status == 409 && message.contains("eth0"), "{message}");

    let (listener, addr) = serve(&lab, THERE);
    let received = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut total, mut chunk) = (0, vec![0; 64 * 1024]);
        let mut began = None;
        while let Ok(size @ 1..) = stream.read(&mut chunk) {
            began.get_or_insert_with(Instant::now);
            total += size;
        }
        (total, began.unwrap().elapsed())
    });
    let mut stream = connect(&lab, HERE, addr).unwrap();
    let until = Instant::now() + Duration::from_secs(3);
    let chunk = vec![7; 16 * 1024];
    while Instant::now() < until {
        stream.write_all(&chunk).unwrap();
    }
    drop(stream);
    let (total, took) = received.join().unwrap();
    let healed = node.agent.undo("f1").await.unwrap();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let share = total as f64 / took.as_secs_f64() / RATE as f64;
    eprintln!(
        "throttled: {total} bytes in {took:?}: {:.1} % of the rate",
        share * 100.0
    );
    // The rate counts headers, some 4 % of a full packet.
    assert!((0.9..1.1).contains(&share), "{share}");
    assert!(healed.observation.bitten > 0, "{healed:?}");
    assert_eq!(qdiscs(), before);
    assert_eq!(node.agent.residue().await.unwrap().owned, [""; 0]);
    node.end().await;
}

#[tokio::test]
async fn established_sockets_are_ended_at_both_ends_and_others_are_not() {
    if skipped() {
        return;
    }
    let lab = Lab::new(3);
    lab.move_to(HERE);
    let node = Node::start().await;
    let (listener, addr) = serve(&lab, HERE);
    let ends = |machine| {
        let client = connect(&lab, machine, addr).unwrap();
        let (server, _) = listener.accept().unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        [client, server]
    };
    let mut cut: Vec<TcpStream> = (0..3).flat_map(|_| ends(THERE)).collect();
    let mut kept = ends(THIRD);
    let fault = Fault::DropSockets(DropSockets {
        peers: cidrs(&["10.77.0.2"]),
        ports: vec![port(addr.port())],
    });
    let view = node
        .agent
        .inject(&order("f1", fault.clone()))
        .await
        .unwrap();
    assert!(!view.active && view.healed == Some(view.injected));
    assert_eq!(view.observation.bitten, 3);
    assert_eq!(view.observation.figures["sockets_killed"], 3);
    for socket in &mut cut {
        let kind = socket.read(&mut [0]).unwrap_err().kind();
        let ended = [
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
        ];
        assert!(ended.contains(&kind), "{kind:?}");
    }
    kept[0].write_all(b"x").unwrap();
    assert_eq!(kept[1].read(&mut [0]).unwrap(), 1);
    assert!(node.agent.status().await.unwrap().faults.is_empty());
    let again = node.agent.inject(&order("f2", fault)).await.unwrap();
    assert_eq!(again.observation.bitten, 0);
    node.end().await;
}

#[tokio::test]
async fn what_others_have_set_up_is_the_same_afterwards_and_a_change_of_theirs_is_told() {
    if skipped() {
        return;
    }
    let lab = Lab::new(2);
    lab.run(HERE, "nft", &["add table inet mine"]);
    lab.run(
        HERE,
        "nft",
        &["add chain inet mine input { type filter hook input priority 0; }"],
    );
    lab.run(
        HERE,
        "nft",
        &["add rule inet mine input tcp dport 9 counter drop"],
    );
    lab.run(
        HERE,
        "ip",
        &[
            "link", "add", "other", "type", "veth", "peer", "name", "far",
        ],
    );
    lab.run(HERE, "ip", &["link", "set", "other", "up"]);
    let htb = "qdisc add dev other root handle 1: htb default 1";
    lab.run(HERE, "tc", &htb.split(' ').collect::<Vec<_>>());
    let shown = || {
        let tc = lab.run(HERE, "tc", &["qdisc", "show"]);
        (lab.run(HERE, "nft", &["list", "ruleset"]), tc)
    };
    lab.move_to(HERE);
    let node = Node::start().await;
    node.agent.mark_residue().await.unwrap();
    let before = shown();

    let throttle = |interface: &str| {
        Fault::Throttle(Throttle {
            interface: interface.parse().unwrap(),
            per_second: ByteSize::new(1 << 20),
            burst: None,
            latency: Span::from_millis(50),
        })
    };
    node.agent
        .inject(&order("f1", Fault::Partition(partition(&[]))))
        .await
        .unwrap();
    node.agent
        .inject(&order("f2", throttle("eth0")))
        .await
        .unwrap();
    let (status, message) = refusal(node.agent.inject(&order("f3", throttle("other"))).await);
    assert!(status == 409 && message.contains("htb 1:"), "{message}");
    let (status, message) = refusal(node.agent.inject(&order("f4", throttle("absent0"))).await);
    assert!(status == 422 && message.contains("absent0"), "{message}");
    node.agent.undo("f1").await.unwrap();
    node.agent.undo("f2").await.unwrap();
    assert_eq!(shown(), before);
    let residue = node.agent.residue().await.unwrap();
    assert!(
        residue.owned.is_empty() && residue.foreign.is_empty(),
        "{residue:?}"
    );

    lab.run(HERE, "nft", &["add rule inet mine input tcp dport 10 drop"]);
    lab.run(HERE, "tc", &["qdisc", "del", "dev", "other", "root"]);
    let residue = node.agent.residue().await.unwrap();
    assert!(residue.owned.is_empty(), "{residue:?}");
    for word in ["inet mine", "`other`"] {
        assert!(
            residue.foreign.iter().any(|told| told.contains(word)),
            "{word}: {residue:?}"
        );
    }
    node.end().await;
}

#[tokio::test]
async fn an_agent_that_was_killed_heals_when_it_starts_again() {
    if skipped() {
        return;
    }
    let lab = Lab::new(2);
    lab.move_to(HERE);
    let node = Node::start().await;
    let (here, there) = (Ear::on(&lab, HERE), Ear::on(&lab, THERE));
    let before = lab.run(HERE, "tc", &["qdisc", "show"]);
    node.agent
        .inject(&order("f1", Fault::Partition(partition(&["10.77.0.2"]))))
        .await
        .unwrap();
    let throttle = Fault::Throttle(Throttle {
        interface: "eth0".parse().unwrap(),
        per_second: ByteSize::new(1 << 20),
        burst: None,
        latency: Span::from_millis(50),
    });
    node.agent.inject(&order("f2", throttle)).await.unwrap();
    assert!(!here.hears(&there));
    let node = node.kill_and_start_again().await;
    assert_eq!(both_ways(&here, &there), (true, true));
    assert_eq!(tables(&lab), "");
    assert_eq!(lab.run(HERE, "tc", &["qdisc", "show"]), before);
    node.end().await;
}

#[tokio::test]
async fn preflight_says_what_is_possible_and_an_order_for_anything_else_is_refused_with_that() {
    if skipped() {
        return;
    }
    let lab = Lab::new(1);
    lab.move_to(HERE);
    let node = Node::start().await;
    let kernel = node.agent.preflight().await.unwrap();
    for (what, capability) in [
        ("net_admin", &kernel.net_admin),
        ("nft", &kernel.nft),
        ("tbf", &kernel.tbf),
        ("sock_destroy", &kernel.sock_destroy),
    ] {
        assert!(capability.possible, "{what}: {}", capability.reason);
    }
    assert!(kernel.ssh_ports.contains(&22));
    // Nothing of the trial is left on the machine.
    assert_eq!(tables(&lab), "");
    let netem: Fault =
        serde_json::from_value(serde_json::json!({"netem": {"interface": "eth0", "delay": "1ms"}}))
            .unwrap();
    let answer = node.agent.inject(&order("f1", netem)).await;
    if kernel.netem.possible {
        answer.unwrap();
        assert!(said("tc", &["qdisc", "show"]).contains("netem"));
        node.agent.undo("f1").await.unwrap();
    } else {
        let (status, message) = refusal(answer);
        assert!(
            status == 422 && message.contains(&kernel.netem.reason),
            "{message}"
        );
        let journal = std::fs::read_to_string(node.state_dir().join("journal.jsonl")).unwrap();
        assert_eq!(journal, "", "refused before the intent");
    }
    node.end().await;
}

#[tokio::test]
async fn without_the_right_to_it_orders_are_refused_and_everything_else_goes_on() {
    if skipped() {
        return;
    }
    let lab = Lab::new(1);
    lab.move_to(HERE);
    let node = Node::without_net_admin().await;
    node.agent.mark_residue().await.unwrap();
    let kernel = node.agent.preflight().await.unwrap();
    assert!(!kernel.nft.possible && kernel.nft.reason.contains("CAP_NET_ADMIN"));
    let fault = Fault::Partition(partition(&[]));
    let (status, message) = refusal(node.agent.inject(&order("f1", fault)).await);
    assert!(
        status == 422 && message.contains("`partition`") && message.contains("CAP_NET_ADMIN"),
        "{message}"
    );
    assert_eq!(
        node.agent.residue().await.unwrap(),
        model::trial::Residue::default()
    );
    node.end().await;
}
