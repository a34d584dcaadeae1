use agent::client::Agent;
use host::http::{CallError, Method};
use serde_json::{Value, json};

use crate::support::{Node, SECOND, lane, refusal, until};

async fn call(agent: &Agent, method: Method, path: &str, body: &Value) -> Result<Value, CallError> {
    agent.call_child("lane", method, path, body, SECOND).await
}

#[tokio::test]
async fn calls_are_forwarded_and_answers_pass_unchanged() {
    let node = Node::with_lane("").await;
    let body = json!({"a": [1, 2]});
    assert_eq!(
        call(&node.agent, Method::POST, "/echo", &body)
            .await
            .unwrap(),
        body
    );

    let refused = call(&node.agent, Method::GET, "/teapot", &Value::Null)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().starts_with("GET lane/teapot"),
        "{refused}"
    );
    assert_eq!(
        refusal::<Value>(Err(refused)),
        (418, "short and stout".to_owned())
    );
    let silent = node
        .agent
        .call_child::<Value>("lane", Method::POST, "/never", &(), SECOND / 10)
        .await;
    assert_eq!(refusal(silent).0, 504);
    let unknown = node
        .agent
        .call_child::<Value>("nobody", Method::GET, "/status", &(), SECOND)
        .await;
    assert_eq!(refusal(unknown).0, 404);
}

#[tokio::test]
async fn names_are_checked_and_taken_once() {
    let node = Node::with_lane("").await;
    let first = node.child("lane").await;
    assert!(first.alive && first.role == "lane" && first.restarts == 0);
    let (status, message) = refusal(node.agent.start_child("lane", &lane("")).await);
    assert!(status == 409 && message.contains("`lane`"), "{message}");
    assert_eq!(
        refusal(node.agent.start_child("../lane", &lane("")).await).0,
        422
    );

    node.agent.end_child("lane").await.unwrap();
    assert!(node.agent.children().await.unwrap().is_empty());
    assert_eq!(refusal(node.agent.end_child("lane").await).0, 404);
    node.agent.start_child("lane", &lane("")).await.unwrap();
}

#[tokio::test]
async fn a_child_that_does_not_become_ready_is_named_with_its_log_and_its_name_is_free() {
    let node = Node::start().await;
    let (status, message) = refusal(node.agent.start_child("lane", &lane("dies")).await);
    assert_eq!(status, 500);
    assert!(
        message.contains("`lane`") && message.contains("lane.log"),
        "{message}"
    );
    node.agent.start_child("lane", &lane("")).await.unwrap();
}

#[tokio::test]
async fn a_death_that_nobody_asked_for_is_reported() {
    let node = Node::with_lane("").await;
    node.agent.mark_residue().await.unwrap();
    let cut_off = call(&node.agent, Method::POST, "/die", &Value::Null).await;
    assert_eq!(refusal(cut_off).0, 502);
    until("the death is seen", || async {
        !node.child("lane").await.alive
    })
    .await;

    let exit = node.child("lane").await.exit.unwrap();
    assert!(exit.contains("exit status: 7"), "{exit}");
    let (status, message) = refusal(call(&node.agent, Method::GET, "/status", &Value::Null).await);
    assert!(
        status == 502 && message.contains("`lane`") && message.contains(&exit),
        "{message}"
    );
    assert!(!node.child("lane").await.end_expected);
    let residue = node.agent.residue().await.unwrap();
    assert_eq!(residue.owned, [""; 0]);
    assert_eq!(
        residue.crashed,
        [format!("`lane` ended by itself ({exit})")]
    );
}
