//! Two conductors do not drive one agent, and one that has died does not keep it.

use agent::conductor::hold::Hold;
use model::quantity::Span;

use crate::support::{Node, kill, lane, order, pause, refusal, until, until_gone};

const MINUTE: Span = Span::from_secs(60);

#[tokio::test]
async fn an_agent_that_a_run_has_obeys_nobody_else() {
    let node = Node::start().await;
    let first = node.agent.take_run("one", MINUTE).await.unwrap();
    first.start_child("lane", &lane("")).await.unwrap();
    first.inject(&order("f1", pause())).await.unwrap();

    let (status, message) = refusal(node.agent.take_run("two", MINUTE).await);
    assert!(status == 409 && message.contains("run `one`"), "{message}");
    for refused in [
        refusal(node.agent.inject(&order("f2", kill())).await).1,
        refusal(node.agent.undo("f1").await).1,
        refusal(node.agent.renew("f1", MINUTE).await).1,
        refusal(node.agent.end_child("lane").await).1,
        refusal(node.agent.start_child("other", &lane("")).await).1,
        refusal(node.agent.mark_residue().await).1,
        refusal(node.agent.release_run().await).1,
    ] {
        assert!(refused.contains("run `one`"), "{refused}");
    }
    // To look is everybody's, and so is the lever.
    let status = node.agent.status().await.unwrap();
    assert_eq!(status.faults, ["f1"]);
    assert_eq!(status.run.unwrap().run, "one");
    let (status, message) = refusal(first.mark_residue().await);
    assert!(
        status == 409 && message.starts_with("f1 in force"),
        "{message}"
    );
    // What its conductor has left ends with the run.
    first.release_run().await.unwrap();
    let status = node.agent.status().await.unwrap();
    assert!(
        status.faults.is_empty() && status.children.is_empty(),
        "{status:?}"
    );

    let second = node.agent.take_run("two", MINUTE).await.unwrap();
    second.start_child("lane", &lane("")).await.unwrap();
    let (status, message) = refusal(first.inject(&order("f3", kill())).await);
    assert!(status == 409 && message.contains("run `two`"), "{message}");
    second.inject(&order("f3", kill())).await.unwrap();
    node.agent.halt().await.unwrap();
}

#[tokio::test]
async fn what_a_dead_conductors_run_has_ends_with_its_lease() {
    let node = Node::start().await;
    let dead = node.agent.take_run("dead", MINUTE).await.unwrap();
    dead.start_child("lane", &lane("")).await.unwrap();
    let pid = node.child("lane").await.pid;
    // Its own lease would last for a minute.
    dead.inject(&order("f1", pause())).await.unwrap();
    dead.renew_run(Span::from_millis(200)).await.unwrap();
    until_gone(pid).await;
    until("the agent is free", || async {
        node.agent.take_run("next", MINUTE).await.is_ok()
    })
    .await;
    let status = node.agent.status().await.unwrap();
    assert!(
        status.faults.is_empty() && status.children.is_empty(),
        "{status:?}"
    );
    let (status, message) = refusal(dead.inject(&order("f2", pause())).await);
    assert!(status == 409 && message.contains("run `next`"), "{message}");
}

#[tokio::test]
async fn a_conductor_that_lives_keeps_its_hold() {
    let node = Node::start().await;
    let hold = Hold::take(&node.agent, "one").await.unwrap();
    let left = || async { node.agent.status().await.unwrap().run.unwrap().left };
    let second = Span::from_secs(1);
    let first = left().await;
    until("some of it is over", || async {
        left().await.plus(second) < first
    })
    .await;
    until("it is renewed", || async {
        left().await.plus(second) > first
    })
    .await;
    hold.release().await.unwrap();
    assert!(node.agent.status().await.unwrap().run.is_none());
}

#[tokio::test]
async fn fences_rise_over_the_lives_of_an_agent() {
    let node = Node::start().await;
    let before = node.agent.take_run("one", MINUTE).await.unwrap();
    before.start_child("lane", &lane("")).await.unwrap();
    let node = node.kill_and_start_again().await;
    let after = node.agent.take_run("two", MINUTE).await.unwrap();
    after.start_child("lane", &lane("")).await.unwrap();
    assert_eq!(node.agent.status().await.unwrap().run.unwrap().fence, 2);
}
