//! Partitions: which way they cut, whom, by which port, and whom never.

use std::io;
use std::net::{Ipv6Addr, TcpListener};

use model::fault::{Action, Fault, Flow, Partition};
use model::net::Cidr;
use model::quantity::Span;

use super::{Ear, HERE, THERE, THIRD, both_ways, connect, partition, port, serve, tables};
use crate::netns::{Lab, skipped, v4};
use crate::support::{Node, order, until};

#[tokio::test]
async fn a_partition_is_seen_in_the_ways_that_it_has_and_no_other_and_heals() {
    if skipped() {
        return;
    }
    let lab = Lab::new(3);
    lab.move_to(HERE);
    let node = Node::start().await;
    node.agent.mark_residue().await.unwrap();
    let (here, there, third) = (
        Ear::on(&lab, HERE),
        Ear::on(&lab, THERE),
        Ear::on(&lab, THIRD),
    );
    assert_eq!(both_ways(&here, &there), (true, true));
    for (direction, seen) in [
        (Flow::In, (false, true)),
        (Flow::Out, (true, false)),
        (Flow::Both, (false, false)),
    ] {
        let id = format!("f-{direction:?}");
        let fault = Partition {
            direction,
            ..partition(&["10.77.0.2"])
        };
        let view = node
            .agent
            .inject(&order(&id, Fault::Partition(fault)))
            .await
            .unwrap();
        assert_eq!(view.observation.bitten, 0, "nobody has spoken yet");
        assert_eq!(both_ways(&here, &there), seen, "{direction:?}");
        assert_eq!(both_ways(&here, &third), (true, true), "{direction:?}");
        let looked = node.agent.look(&id).await.unwrap().observation;
        assert!(
            looked.bitten > 0 && looked.observed.is_some(),
            "{direction:?}: {looked:?}"
        );
        let owned = node.agent.residue().await.unwrap().owned;
        assert!(
            owned.iter().any(|left| left.contains("nft table")),
            "{owned:?}"
        );

        let healed = node.agent.undo(&id).await.unwrap();
        assert_eq!(both_ways(&here, &there), (true, true), "{direction:?}");
        assert!(healed.healed.is_some() && !healed.active);
        assert!(healed.observation.bitten >= looked.bitten);
        assert_eq!(tables(&lab), "");
    }
    let residue = node.agent.residue().await.unwrap();
    assert!(
        residue.owned.is_empty() && residue.foreign.is_empty(),
        "{residue:?}"
    );
    node.end().await;
}

#[tokio::test]
async fn ipv6_is_cut_too_and_heals_at_once() {
    if skipped() {
        return;
    }
    let lab = Lab::new(2);
    lab.move_to(HERE);
    let node = Node::start().await;
    let ear = |machine: u8| {
        let addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, machine.into());
        Ear::at(&lab, machine, (addr, 0).into())
    };
    let (here, there) = (ear(HERE), ear(THERE));
    assert_eq!(both_ways(&here, &there), (true, true));
    let fault = Fault::Partition(partition(&["10.77.0.2", "fd77::/64"]));
    node.agent.inject(&order("f1", fault)).await.unwrap();
    assert_eq!(both_ways(&here, &there), (false, false));
    node.agent.undo("f1").await.unwrap();
    assert_eq!(both_ways(&here, &there), (true, true));
    node.end().await;
}

#[tokio::test]
async fn k_of_n_peers_are_cut_off_and_the_seed_says_which() {
    if skipped() {
        return;
    }
    let lab = Lab::new(5);
    lab.move_to(HERE);
    let node = Node::start().await;
    let here = Ear::on(&lab, HERE);
    let others: Vec<Ear> = (2..=5).map(|machine| Ear::on(&lab, machine)).collect();
    let fault = Partition {
        of: Some(2),
        direction: Flow::In,
        ..partition(&["10.77.0.2", "10.77.0.3", "10.77.0.4", "10.77.0.5"])
    };
    let mut of_seed = order("f1", Fault::Partition(fault.clone()));
    of_seed.seed = 11;
    let view = node.agent.inject(&of_seed).await.unwrap();
    assert_eq!(view.observation.figures["peers"], 2);
    let cut: Vec<Cidr> = others
        .iter()
        .filter(|other| !here.hears(other))
        .map(|other| other.addr.ip().into())
        .collect();
    let mut expected = fault.taken(11, "f1");
    expected.sort();
    assert_eq!(cut, expected);
    node.agent.undo("f1").await.unwrap();
    node.end().await;
}

#[tokio::test]
async fn who_is_rejected_is_told_and_who_is_dropped_hangs_by_port_and_both_ways() {
    if skipped() {
        return;
    }
    let lab = Lab::new(2);
    lab.move_to(HERE);
    let node = Node::start().await;
    let (_here, inwards) = serve(&lab, HERE);
    let (_there, outwards) = serve(&lab, THERE);
    let (_spared, other_port) = serve(&lab, HERE);
    for (action, kind) in [
        (Action::Reject, io::ErrorKind::ConnectionRefused),
        (Action::Drop, io::ErrorKind::TimedOut),
    ] {
        let fault = Partition {
            ports: vec![port(inwards.port()), port(outwards.port())],
            action,
            ..partition(&[])
        };
        let id = format!("f-{action:?}");
        node.agent
            .inject(&order(&id, Fault::Partition(fault)))
            .await
            .unwrap();
        assert_eq!(connect(&lab, THERE, inwards).unwrap_err(), kind);
        assert_eq!(connect(&lab, HERE, outwards).unwrap_err(), kind);
        connect(&lab, THERE, other_port).unwrap();
        let figures = node.agent.undo(&id).await.unwrap().observation.figures;
        assert!(figures["packets_dropped_in"] > 0 && figures["packets_dropped_out"] > 0);
        connect(&lab, THERE, inwards).unwrap();
        connect(&lab, HERE, outwards).unwrap();
    }
    node.end().await;
}

#[tokio::test]
async fn the_channel_and_ssh_are_spared_unless_their_port_is_named() {
    if skipped() {
        return;
    }
    let lab = Lab::new(2);
    lab.move_to(HERE);
    let node = Node::start().await;
    // The agent's own API is on loopback; what stands for it at another address is its port.
    let control = node.agent.addr().port();
    let listen = |port| lab.on(HERE, || TcpListener::bind(v4(HERE, port)).unwrap());
    let (_api, _ssh, _web) = (listen(control), listen(22), listen(8080));
    let reach = |port| connect(&lab, THERE, v4(HERE, port)).is_ok();

    node.agent
        .inject(&order("all", Fault::Partition(partition(&[]))))
        .await
        .unwrap();
    assert!(reach(control) && reach(22) && !reach(8080));
    node.agent.undo("all").await.unwrap();

    // Loopback named: the agent's channel stays, and nothing else.
    let (_lo, own) = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    };
    node.agent
        .inject(&order("lo", Fault::Partition(partition(&["127.0.0.0/8"]))))
        .await
        .unwrap();
    assert!(connect(&lab, HERE, own).is_err());
    assert!(node.agent.status().await.is_ok());
    node.agent.undo("lo").await.unwrap();

    let named = Partition {
        ports: vec![port(22)],
        ..partition(&[])
    };
    node.agent
        .inject(&order("ssh", Fault::Partition(named)))
        .await
        .unwrap();
    assert!(!reach(22) && reach(8080) && reach(control));
    node.agent.undo("ssh").await.unwrap();
    assert!(reach(22));
    node.end().await;
}

#[tokio::test]
async fn a_lease_that_lapses_takes_the_table_with_it() {
    if skipped() {
        return;
    }
    let lab = Lab::new(2);
    lab.move_to(HERE);
    let node = Node::start().await;
    let (here, there) = (Ear::on(&lab, HERE), Ear::on(&lab, THERE));
    let mut short = order("f1", Fault::Partition(partition(&["10.77.0.2"])));
    short.lease = Span::from_millis(700);
    node.agent.inject(&short).await.unwrap();
    assert!(!here.hears(&there));
    until("the lease has lapsed", || async {
        !node.agent.look("f1").await.unwrap().active
    })
    .await;
    let view = node.agent.look("f1").await.unwrap();
    assert!(view.lapsed && view.observation.bitten > 0, "{view:?}");
    assert_eq!(both_ways(&here, &there), (true, true));
    assert_eq!(tables(&lab), "");
    node.end().await;
}
