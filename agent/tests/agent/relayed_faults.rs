use host::http::Method;
use model::fault::{Fault, FaultView, Reset, TokenExpiry};
use model::quantity::Span;
use model::role::ProxyStatus;

use crate::support::{Node, SECOND, hold, order, proxy, refusal, shard, until};

const OBEDIENT: u16 = 0;
const REFUSES: u16 = 1;
const STUCK: u16 = 2;

async fn with_proxies(behaviours: [u16; 2]) -> Node {
    let node = Node::start().await;
    for (number, behaviour) in behaviours.into_iter().enumerate() {
        let name = format!("proxy-{number}");
        node.agent
            .start_child(&name, &proxy(behaviour))
            .await
            .unwrap();
    }
    node
}

async fn held_by(node: &Node, child: &str) -> Vec<String> {
    let status: ProxyStatus = node
        .agent
        .call_child(child, Method::GET, "/status", &(), SECOND)
        .await
        .unwrap();
    status.faults
}

#[tokio::test]
async fn every_proxy_holds_a_link_fault_and_one_view_is_made_of_theirs() {
    let node = with_proxies([OBEDIENT, OBEDIENT]).await;
    node.agent.mark_residue().await.unwrap();
    let view = node.agent.inject(&order("f1", hold())).await.unwrap();
    assert!(view.active && view.injected.asked <= view.injected.observed);
    assert_eq!(view.observation.bitten, 6);
    for child in ["proxy-0", "proxy-1"] {
        assert_eq!(held_by(&node, child).await, ["f1"]);
    }
    let owned = node.agent.residue().await.unwrap().owned;
    assert_eq!(
        owned.len(),
        3,
        "the agent and both proxies hold it: {owned:?}"
    );

    node.agent.renew("f1", Span::from_secs(60)).await.unwrap();
    let looked = node.agent.look("f1").await.unwrap();
    assert_eq!(looked.observation.figures["renewals"], 2);
    let healed = node.agent.undo("f1").await.unwrap();
    assert!(!healed.active && !healed.lapsed && healed.healed.is_some());
    assert!(held_by(&node, "proxy-0").await.is_empty());
    assert_eq!(node.agent.residue().await.unwrap().owned, [""; 0]);
}

#[tokio::test]
async fn a_fault_that_one_proxy_refuses_is_taken_back_from_the_other() {
    let node = with_proxies([OBEDIENT, REFUSES]).await;
    node.agent.mark_residue().await.unwrap();
    let (status, message) = refusal(node.agent.inject(&order("f1", hold())).await);
    assert!(status == 422 && message.contains("`proxy-1`"), "{message}");
    assert!(held_by(&node, "proxy-0").await.is_empty());
    assert_eq!(refusal(node.agent.look("f1").await).0, 404);
    assert_eq!(node.agent.residue().await.unwrap().owned, [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_undone_stays_in_force_and_is_said() {
    let node = with_proxies([OBEDIENT, STUCK]).await;
    node.agent.inject(&order("f1", hold())).await.unwrap();
    let (status, message) = refusal(node.agent.undo("f1").await);
    assert!(status == 500 && message.contains("`proxy-1`"), "{message}");
    assert_eq!(node.agent.status().await.unwrap().faults, ["f1"]);
    // The one that is stuck goes away, and with it its part of the fault.
    node.agent.end_child("proxy-1").await.unwrap();
    assert!(!node.agent.undo("f1").await.unwrap().active);
    assert!(node.agent.status().await.unwrap().faults.is_empty());
}

#[tokio::test]
async fn a_proxy_that_dies_takes_its_part_of_the_fault_with_it() {
    let node = with_proxies([OBEDIENT, OBEDIENT]).await;
    node.agent.inject(&order("f1", hold())).await.unwrap();
    let _ = node
        .agent
        .call_child::<()>("proxy-1", Method::POST, "/die", &(), SECOND)
        .await;
    until("the death is seen", || async {
        !node.child("proxy-1").await.alive
    })
    .await;
    assert!(node.agent.look("f1").await.unwrap().active);
    assert!(!node.agent.undo("f1").await.unwrap().active);
    let (status, message) = refusal(node.agent.inject(&order("f2", hold())).await);
    assert!(status == 409 && message.contains("`proxy-1`"), "{message}");
}

#[tokio::test]
async fn momentary_faults_are_over_at_once_and_shards_without_clients_hold_none() {
    let node = with_proxies([OBEDIENT, OBEDIENT]).await;
    let reset = node
        .agent
        .inject(&order("f1", Fault::Reset(Reset {})))
        .await
        .unwrap();
    assert!(!reset.active && reset.healed.is_some());
    assert!(!node.agent.undo("f1").await.unwrap().active);
    assert!(node.agent.status().await.unwrap().faults.is_empty());

    let expiry = Fault::TokenExpiry(TokenExpiry {
        after: Span::from_secs(1),
        spread: Span::from_millis(100),
    });
    node.agent
        .start_child("shard-0", &shard(false))
        .await
        .unwrap();
    let (status, message) = refusal(node.agent.inject(&order("f2", expiry.clone())).await);
    assert!(
        status == 409 && message.contains("shard with clients"),
        "{message}"
    );
    node.agent
        .start_child("shard-1", &shard(true))
        .await
        .unwrap();
    let view: FaultView = node.agent.inject(&order("f2", expiry)).await.unwrap();
    assert_eq!(view.observation.bitten, 3);
}
