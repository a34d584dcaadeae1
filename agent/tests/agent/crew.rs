//! Agents of an inventory that are taken together, and what they send each other.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agent::api::AgentStatus;
use agent::client::Agent;
use agent::conductor::crew::Crew;
use agent::ears::{Close, Send};
use agent::reach::reach;
use host::http::{self, Response};
use model::quantity::Span;
use scenarios::Source;
use scenarios::inventory::{self, Inventory, Place};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::operated::Operated;
use crate::support::{lane, refusal};

/// An inventory of agents behind sockets, and one with a token.
fn inventory(folder: &Path, sockets: &[(&str, &str)], other: Option<SocketAddr>) -> Inventory {
    let mut text = "agents:\n".to_owned();
    for (name, socket) in sockets {
        let _ = writeln!(text, "  - {{ name: {name}, socket: {socket} }}");
    }
    if let Some(addr) = other {
        fs::write(folder.join("token"), "t".repeat(32)).unwrap();
        let _ = writeln!(
            text,
            "  - {{ name: other, address: \"{addr}\", token: token }}"
        );
    }
    let source = Source {
        name: "inventory.yaml".to_owned(),
        text,
    };
    inventory::parse(&source, folder).unwrap_or_else(|error| panic!("{error}"))
}

/// What answers as an agent of another version does.
async fn of_another_version(shutdown: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let status = AgentStatus {
        name: "other".to_owned(),
        protocol: 99,
        pid: 1,
        faults: Vec::new(),
        children: Vec::new(),
        halted: false,
        run: None,
        data_dir: PathBuf::new(),
    };
    tokio::spawn(http::serve(listener, shutdown, move |_| {
        let status = status.clone();
        async move { Response::json(&status) }
    }));
    addr
}

#[tokio::test]
async fn all_agents_are_taken_or_none_and_whoever_cannot_be_is_named_with_the_reason() {
    let (first, one) = Operated::on_a_socket("").await;
    let (second, two) = Operated::on_a_socket("policy: { children: [lane] }\n").await;
    let folder = TempDir::new().unwrap();
    let shutdown = CancellationToken::new();
    let sockets = [("a", first.at()), ("b", second.at())];
    let both = inventory(folder.path(), &sockets, None);

    let held = two
        .take_run("yesterday", Span::from_secs(60))
        .await
        .unwrap();
    let error = Crew::take(&both, "today").await.unwrap_err().to_string();
    for words in ["today", "agent `b`", "yesterday"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(!error.contains("`a`"), "{error}");
    assert_eq!(one.status().await.unwrap().run, None, "it was given back");
    held.release_run().await.unwrap();

    let stranger = of_another_version(shutdown.clone()).await;
    let all = inventory(folder.path(), &sockets, Some(stranger));
    let error = Crew::take(&all, "today").await.unwrap_err().to_string();
    assert!(
        error.contains("agent `other`: it speaks protocol 99"),
        "{error}"
    );

    // Somebody has tried it by hand.
    two.start_child("lane", &lane("")).await.unwrap();
    let error = Crew::take(&both, "today").await.unwrap_err().to_string();
    assert!(error.contains("agent `b`: it runs `lane`"), "{error}");
    assert_eq!(two.status().await.unwrap().children, ["lane"], "it is left");
    two.end_child("lane").await.unwrap();

    let crew = Crew::take(&both, "today").await.unwrap();
    for agent in [&one, &two] {
        assert_eq!(agent.status().await.unwrap().run.unwrap().run, "today");
    }
    for (name, clocks) in crew.clocks().await {
        let (offset, same_kernel) = clocks.unwrap();
        assert!(same_kernel, "{name}: {offset:?}");
    }
    crew.release().await;
    for agent in [&one, &two] {
        assert_eq!(agent.status().await.unwrap().run, None);
    }
    shutdown.cancel();
}

#[tokio::test]
async fn agents_hear_each_other_where_the_policy_lets_them_and_the_audit_log_says_who_asked() {
    let (listens, ear_of) = Operated::on_a_socket("").await;
    let (sends, voice) = Operated::on_a_socket("policy: { peers: [127.0.0.0/8] }\n").await;
    let ear = ear_of.open_ear().await.unwrap();
    let send = Send {
        to: ([127, 0, 0, 1], ear.port).into(),
        nonce: ear.nonce.clone(),
        tag: 7,
        count: 10,
    };
    assert_eq!(voice.send(&send).await.unwrap().sent, 10);
    let close = Close {
        expected: [(7, 10)].into(),
        wait: Span::from_secs(5),
    };
    let heard = ear_of.close_ear(ear.port, &close).await.unwrap();
    assert_eq!(heard.by_tag, [(7, 10)].into());

    let beyond = Send {
        to: ([192, 0, 2, 1], 5_000).into(),
        ..send.clone()
    };
    let (status, message) = refusal(voice.send(&beyond).await);
    assert!(
        status == 403 && message.contains("policy rule `peers`"),
        "{message}"
    );
    let lines = sends.audit();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line.what.as_deref(), line.about["to"].as_str()))
        .collect();
    assert!(
        told.contains(&(Some("POST /sends"), Some("192.0.2.1:5000"))),
        "{told:?}"
    );
    assert!(
        listens
            .audit()
            .iter()
            .any(|line| line.what.as_deref() == Some("POST /ears"))
    );

    // A halted agent sends nothing.
    voice.halt().await.unwrap();
    assert_eq!(refusal(voice.send(&send).await).0, 423);
}

#[tokio::test]
async fn who_may_only_look_listens_to_nobody() {
    let node = Operated::by_certificate().await;
    let screen: Agent = node.as_seen_by(&node.pki(), "screen").await;
    let (status, message) = refusal(screen.open_ear().await);
    assert!(status == 403 && message.contains("`inject`"), "{message}");
    let ada = reach(&Place::Socket("/nowhere".into())).await.unwrap();
    assert!(ada.open_ear().await.is_err());
}
