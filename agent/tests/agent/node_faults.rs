use std::time::Duration;

use agent::procfs;
use host::http::Method;
use model::quantity::Span;
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::{
    Node, SECOND, kill, order, pause, refusal, send, terminate, until, until_gone,
};

#[tokio::test]
async fn a_killed_node_is_gone_and_comes_back_where_it_was() {
    let node = Node::with_lane("").await;
    node.agent.mark_residue().await.unwrap();
    let before = node.child("lane").await;
    let addr = before.listen["data"];

    let view = node.agent.inject(&order("f1", kill())).await.unwrap();
    assert!(view.active && view.observation.bitten == 1 && view.healed.is_none());
    assert!(view.injected.asked < view.injected.observed);
    assert_eq!(
        view.observation.figures["pid_before"],
        u64::from(before.pid)
    );
    assert_eq!(view.observation.figures["exit_signal"], 9);
    assert_eq!(procfs::stat(before.pid), None);
    assert!(TcpStream::connect(addr).await.is_err());
    let owned = node.agent.residue().await.unwrap().owned;
    assert!(owned.iter().any(|left| left.contains("`f1`")), "{owned:?}");
    assert!(
        owned.iter().any(|left| left.contains("`lane`")),
        "{owned:?}"
    );

    let healed = node.agent.undo("f1").await.unwrap();
    let after = node.child("lane").await;
    let bracket = healed.healed.unwrap();
    assert!(bracket.asked > view.injected.observed && bracket.asked < bracket.observed);
    assert_eq!(
        healed.observation.figures["pid_after"],
        u64::from(after.pid)
    );
    assert!(after.pid != before.pid && after.alive && after.restarts == 1);
    assert_eq!(after.listen["data"], addr);
    TcpStream::connect(addr).await.unwrap();
    assert_eq!(node.agent.undo("f1").await.unwrap(), healed);
    assert_eq!(node.child("lane").await.pid, after.pid);
    assert_eq!(node.agent.residue().await.unwrap().owned, [""; 0]);
}

#[tokio::test]
async fn a_lease_that_lapses_is_undone_alone_and_a_renewed_one_is_not() {
    let node = Node::with_lane("").await;
    let mut short = order("f1", kill());
    short.lease = Span::from_millis(300);
    let injected = node.agent.inject(&short).await.unwrap().injected;
    node.agent
        .renew("f1", Span::from_millis(600))
        .await
        .unwrap();
    until("the node is back", || async {
        node.child("lane").await.alive
    })
    .await;
    until("the view says so", || async {
        !node.agent.look("f1").await.unwrap().active
    })
    .await;

    let view = node.agent.look("f1").await.unwrap();
    assert!(view.lapsed);
    let lived = view.healed.unwrap().asked.since(injected.asked);
    assert!(
        lived >= Span::from_millis(600) && lived < Span::from_secs(2),
        "{lived}"
    );
    assert_eq!(
        refusal(node.agent.renew("f1", Span::from_secs(1)).await).0,
        410
    );
}

#[tokio::test]
async fn terminate_kills_only_who_does_not_go() {
    for (behaviour, signal, killed) in [("", 15, 0), ("stubborn", 9, 1)] {
        let node = Node::with_lane(behaviour).await;
        let fault = terminate(Span::from_millis(if killed == 1 { 50 } else { 5_000 }));
        let figures = node
            .agent
            .inject(&order("f1", fault))
            .await
            .unwrap()
            .observation
            .figures;
        assert_eq!(figures["exit_signal"], signal, "{behaviour}");
        assert_eq!(figures["killed_after_grace"], killed, "{behaviour}");
        node.agent.undo("f1").await.unwrap();
        assert!(node.child("lane").await.alive);
        node.end().await;
    }
}

#[tokio::test]
async fn a_paused_node_is_silent_and_goes_on() {
    let node = Node::with_lane("").await;
    let lane = node.child("lane").await;
    let status = |within: Duration| {
        node.agent
            .call_child::<Value>("lane", Method::GET, "/status", &(), within)
    };
    let view = node.agent.inject(&order("f1", pause())).await.unwrap();
    assert_eq!(
        (view.observation.bitten, view.observation.figures["stopped"]),
        (1, 1)
    );
    assert_eq!(procfs::stat(lane.pid).unwrap().state, 'T');
    assert_eq!(refusal(status(SECOND / 10).await).0, 504);

    // Somebody else continues it: the next look says so.
    send(lane.pid, Signal::CONT);
    until("the look tells", || async {
        node.agent.look("f1").await.unwrap().observation.figures["stopped"] == 0
    })
    .await;
    send(lane.pid, Signal::STOP);
    let healed = node.agent.undo("f1").await.unwrap();
    assert!(healed.healed.is_some() && !healed.active);
    status(SECOND).await.unwrap();
    assert_eq!(node.child("lane").await.pid, lane.pid);
}

#[tokio::test]
async fn a_node_that_dies_while_it_is_paused_does_not_block_the_undo() {
    let node = Node::with_lane("").await;
    node.agent.inject(&order("f1", pause())).await.unwrap();
    let pid = node.child("lane").await.pid;
    send(pid, Signal::KILL);
    until_gone(pid).await;
    until("the death is seen", || async {
        !node.child("lane").await.alive
    })
    .await;
    let view = node.agent.undo("f1").await.unwrap();
    assert!(!view.active && view.healed.is_none());
    assert_eq!(view.observation.figures["ended_meanwhile"], 1);
}

#[tokio::test]
async fn orders_that_cannot_be_carried_out_are_refused_with_the_reason() {
    let node = Node::with_lane("").await;
    let mut elsewhere = order("f0", kill());
    elsewhere.node = Some("elsewhere".to_owned());
    let (status, message) = refusal(node.agent.inject(&elsewhere).await);
    assert!(status == 404 && message.contains("elsewhere"), "{message}");

    node.agent.inject(&order("f1", pause())).await.unwrap();
    let (status, message) = refusal(node.agent.inject(&order("f2", kill())).await);
    assert!(status == 409 && message.contains("`f1`"), "{message}");
    assert_eq!(
        refusal(node.agent.inject(&order("f1", kill())).await).0,
        409
    );
    node.agent.undo("f1").await.unwrap();
    // A refused order never was, and its id is free.
    assert_eq!(refusal(node.agent.look("f2").await).0, 404);
    node.agent.inject(&order("f2", kill())).await.unwrap();
    node.agent.end_child("lane").await.unwrap();
    let view = node.agent.undo("f2").await.unwrap();
    assert!(!view.active && view.healed.is_none());
    assert_eq!(refusal(node.agent.undo("f9").await).0, 404);
}
