//! Agents that an operator runs, as processes: at each kind of door, with rules, and what they write down.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use agent::audit::{Line, Step};
use agent::client::Agent;
use agent::pki::{self, Holder, Wanted};
use agent::reach::reach;
use host::http::CallError;
use host::jsonl;
use host::peer::Peer;
use host::tls::Connector;
use model::command::CommandOrder;
use model::fault::{Amount, DiskFill, Fault, FaultOrder};
use model::quantity::{ByteSize, Span};
use model::target::{TlsClient, TlsIdentity};
use rustix::process::Signal;
use scenarios::inventory::{ClientFiles, Place};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::machine::{cpu_burn, memory_fill};
use crate::support::{
    Node, SECOND, hold, kill, lane, order, pause, program, proxy, refusal, send, terminate, until,
    workers,
};

/// An agent that runs from a file in a folder of its own.
pub(crate) struct Operated {
    process: Child,
    folder: TempDir,
    /// Where it says that it listens.
    pub(crate) at: String,
}

impl Operated {
    pub(crate) async fn start(folder: TempDir, config: &str) -> Self {
        let file = folder.path().join("agent.yaml");
        let common = "name: db-1\nstate_dir: state\nlog_dir: logs\n";
        fs::write(&file, format!("{common}{config}")).unwrap();
        let log = fs::File::create(folder.path().join("agent.log")).unwrap();
        let mut process = Command::new(program())
            .arg("operated")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        tokio::time::timeout(10 * SECOND, stdout.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        let log = || fs::read_to_string(folder.path().join("agent.log")).unwrap();
        let at = line
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("{line}{}", log()));
        let at = at.split(' ').next().unwrap().to_owned();
        Self {
            process,
            folder,
            at,
        }
    }

    /// One that listens on a unix socket, and how it is called.
    pub(crate) async fn on_a_socket(config: &str) -> (Self, Agent) {
        let node = Self::start(tempfile::tempdir().unwrap(), config).await;
        let agent = reach(&Place::Socket(node.at.clone().into())).await.unwrap();
        (node, agent)
    }

    /// One that asks for certificates; they are in `pki` in its folder.
    pub(crate) async fn by_certificate() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(&folder.path().join("pki"));
        let tls = "tls: { certificate: pki/db-1.pem, key: pki/db-1.key, client_ca: pki/ca.pem }";
        let policy = "policy: { children: [lane] }";
        Self::start(folder, &format!("listen: 127.0.0.1:0\n{tls}\n{policy}\n")).await
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.folder.path().join("pki")
    }

    /// It, as somebody with a certificate of that folder calls it.
    pub(crate) async fn as_seen_by(&self, pki: &Path, name: &str) -> Agent {
        let files = ClientFiles {
            ca: self.pki().join("ca.pem"),
            certificate: pki.join(format!("{name}.pem")),
            key: pki.join(format!("{name}.key")),
            server_name: None,
        };
        let address = self.at.clone();
        reach(&Place::Tls { address, files }).await.unwrap()
    }

    /// Where it says that it listens.
    pub(crate) fn at(&self) -> &str {
        &self.at
    }

    pub(crate) fn audit(&self) -> Vec<Line> {
        let path = self.folder.path().join("state/audit.jsonl");
        jsonl::read(&path).unwrap().values
    }

    async fn end(mut self) -> TempDir {
        send(self.process.id().unwrap(), Signal::TERM);
        let ended = tokio::time::timeout(10 * SECOND, self.process.wait()).await;
        assert!(ended.unwrap().unwrap().success());
        self.folder
    }
}

fn certificates(dir: &Path) {
    let wanted = |name: &str, holder| Wanted {
        name: name.to_owned(),
        hosts: vec!["127.0.0.1".to_owned()],
        holder,
    };
    let all = [
        wanted("db-1", Holder::Agent),
        wanted("night-drill", Holder::Conductor),
        wanted("screen", Holder::Observer),
        wanted("ada", Holder::Operator),
    ];
    pki::init(dir, &all, 30).unwrap();
}

/// Why there was no answer at all: the connection did not come about.
fn unanswered<T: std::fmt::Debug>(answer: Result<T, CallError>) -> String {
    match answer {
        Err(CallError::Broken { reason, .. }) => reason,
        other => panic!("it was answered: {other:?}"),
    }
}

#[tokio::test]
async fn whoever_has_no_certificate_of_the_authority_is_turned_away_and_written_down() {
    let node = Operated::by_certificate().await;
    let pem = |path: PathBuf| fs::read_to_string(path).unwrap();
    let addr: SocketAddr = node.at.parse().unwrap();
    let secured = |identity: Option<TlsIdentity>| {
        let settings = TlsClient {
            ca_pem: Some(pem(node.pki().join("ca.pem"))),
            identity,
        };
        Agent::of(Peer::secured(addr, "127.0.0.1", Connector::new(&settings).unwrap()).unwrap())
    };

    unanswered(secured(None).status().await);
    // Of another authority, with the same names and roles.
    let other = tempfile::tempdir().unwrap();
    certificates(&other.path().join("pki"));
    let stranger = node
        .as_seen_by(&other.path().join("pki"), "night-drill")
        .await;
    unanswered(stranger.status().await);
    // The agent's own certificate opens its door to nobody.
    unanswered(node.as_seen_by(&node.pki(), "db-1").await.status().await);
    // Nobody hears it in the clear.
    unanswered(Agent::new(addr).status().await);

    let conductor = node.as_seen_by(&node.pki(), "night-drill").await;
    assert_eq!(conductor.status().await.unwrap().name, "db-1");
    let turned_away = || {
        let lines = node.audit();
        lines
            .iter()
            .filter(|line| line.request == 0 && line.step == Step::Refused)
            .count()
    };
    until("four are written down", || async { turned_away() == 4 }).await;
    let lines = node.audit();
    let says = |line: &Line, words: &str| {
        line.error
            .as_ref()
            .is_some_and(|error| error.contains(words))
    };
    assert!(
        lines
            .iter()
            .any(|line| says(line, "no certificate was presented")),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .all(|line| line.from.as_ref().unwrap().starts_with("127.0.0.1:"))
    );
}

#[tokio::test]
async fn five_agents_under_fault_are_halted_within_two_seconds_and_stay_so() {
    let starting = (0..5).map(|_| Operated::on_a_socket("policy: { children: [lane, proxy] }\n"));
    let mut nodes = futures_util::future::join_all(starting).await;
    for (at, (_, agent)) in nodes.iter().enumerate() {
        agent.start_child("lane", &lane("")).await.unwrap();
        agent.start_child("proxy", &proxy(0)).await.unwrap();
        // To undo a kill is to start a process.
        let fault = if at % 2 == 0 { kill() } else { pause() };
        agent.inject(&order("f1", fault)).await.unwrap();
        agent.inject(&order("f2", hold())).await.unwrap();
    }
    let began = Instant::now();
    let halting = nodes.iter().map(|(_, agent)| agent.halt());
    let halted = futures_util::future::join_all(halting).await;
    let took = began.elapsed();
    for halted in halted {
        let halted = halted.unwrap();
        assert_eq!(halted.undone, ["f1", "f2"]);
        assert!(halted.status.halted && halted.status.faults.is_empty());
    }
    assert!(took < 2 * SECOND, "{took:?}");
    eprintln!("five agents were halted within {took:?}");

    let (mut node, _) = nodes.pop().unwrap();
    node.process.kill().await.unwrap();
    let node = Operated::start(node.folder, "policy: { children: [lane] }\n").await;
    let agent = reach(&Place::Socket(node.at.clone().into())).await.unwrap();
    let (status, message) = refusal(agent.start_child("lane", &lane("")).await);
    assert!(
        status == 423 && message.contains("/halt/clear"),
        "{message}"
    );
}

#[tokio::test]
async fn a_role_opens_its_own_routes_and_refusals_name_role_and_route() {
    let node = Operated::by_certificate().await;
    let conductor = node.as_seen_by(&node.pki(), "night-drill").await;
    let screen = node.as_seen_by(&node.pki(), "screen").await;
    let ada = node.as_seen_by(&node.pki(), "ada").await;

    conductor.start_child("lane", &lane("")).await.unwrap();
    conductor.inject(&order("f1", pause())).await.unwrap();
    assert_eq!(screen.status().await.unwrap().faults, ["f1"]);
    for (who, refused) in [
        ("screen", refusal(screen.inject(&order("f2", kill())).await)),
        ("screen", refusal(screen.undo("f1").await)),
        ("screen", refusal(screen.halt().await)),
        ("ada", refusal(ada.inject(&order("f2", kill())).await)),
        ("night-drill", refusal(conductor.halt().await)),
        ("night-drill", refusal(conductor.clear_halt().await)),
    ] {
        let (status, message) = refused;
        assert_eq!(status, 403, "{message}");
        let role = if message.contains("/halt") {
            "`halt`"
        } else {
            "`inject`"
        };
        assert!(message.contains(role) && message.contains(who), "{message}");
    }
    assert_eq!(ada.halt().await.unwrap().undone, ["f1"]);

    let lines = node.audit();
    let refused: Vec<&Line> = lines
        .iter()
        .filter(|line| line.step == Step::Refused)
        .collect();
    assert_eq!(refused.len(), 6);
    let first = refused[0];
    assert_eq!(first.who.as_ref().unwrap().name, "screen");
    assert_eq!(
        (first.what.as_deref(), first.status),
        (Some("POST /faults"), Some(403))
    );
    assert_eq!(first.about["fault"], "kill");
    let done: Vec<_> = lines
        .iter()
        .filter(|line| line.step == Step::Answered)
        .map(|line| {
            (
                line.who.as_ref().unwrap().name.as_str(),
                line.what.as_deref().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("night-drill", "POST /children"),
        ("night-drill", "POST /faults"),
        ("ada", "POST /halt"),
    ];
    assert_eq!(done, expected);
    let asked: Vec<_> = lines
        .iter()
        .filter(|line| line.step == Step::Asked)
        .collect();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[1].about["id"], "f1");
    assert!(
        asked
            .iter()
            .all(|line| line.who.as_ref().unwrap().fingerprint.is_some())
    );
}

#[tokio::test]
async fn a_unix_socket_is_its_users_own_and_secrets_are_not_written_down() {
    let (node, agent) = Operated::on_a_socket("policy: { children: [lane] }\n").await;
    let mode = fs::metadata(&node.at).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut role = lane("");
    if let model::role::Role::Lane(config) = &mut role {
        config.publish_secret = "s3cr3t".to_owned();
    }
    agent.start_child("lane", &role).await.unwrap();
    let variables = [("FAULTLANE_IDENTITY".to_owned(), "s3cr3t".to_owned())].into();
    refusal(
        agent
            .run_command("mint", &CommandOrder { variables }, SECOND)
            .await,
    );
    let log = node.folder.path().join("state/audit.jsonl");
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(log).unwrap();
    assert!(
        text.contains("POST /commands/mint") && !text.contains("s3cr3t"),
        "{text}"
    );
    let who = node.audit()[0].who.clone().unwrap();
    let user = rustix::process::getuid().as_raw();
    assert_eq!(
        (who.name, who.from),
        ("local".to_owned(), Some(format!("user {user}")))
    );
}

#[tokio::test]
async fn what_was_asked_of_an_agent_that_died_over_it_is_in_its_log() {
    let policy = "policy: { children: [lane] }\n";
    let (mut node, agent) = Operated::on_a_socket(policy).await;
    agent.start_child("lane", &lane("stubborn")).await.unwrap();
    let stubborn = agent.children().await.unwrap()[0].pid;
    let terminate = order("f1", terminate(Span::from_secs(10)));
    let asking = tokio::spawn(async move { agent.inject(&terminate).await.is_ok() });
    let about_it = |node: &Operated| {
        let lines = node
            .audit()
            .into_iter()
            .filter(|line| line.about["id"] == "f1");
        lines.map(|line| line.step).collect::<Vec<_>>()
    };
    until("it is written down", || async {
        !about_it(&node).is_empty()
    })
    .await;
    node.process.kill().await.unwrap();
    send(stubborn, Signal::KILL);
    assert!(!asking.await.unwrap());
    let node = Operated::start(node.folder, policy).await;
    assert_eq!(about_it(&node), [Step::Asked]);
}

#[tokio::test]
async fn loopback_without_tls_asks_for_the_token_that_only_this_user_can_read() {
    let node = Operated::start(tempfile::tempdir().unwrap(), "listen: 127.0.0.1:0\n").await;
    let token = node.folder.path().join("state/token");
    assert_eq!(
        token.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let without = Agent::new(node.at.parse().unwrap());
    let (status, message) = refusal(without.halt().await);
    assert!(status == 401 && message.contains("token"), "{message}");
    let address = node.at.clone();
    let with = reach(&Place::Loopback { address, token }).await.unwrap();
    assert!(!with.status().await.unwrap().halted);
    assert_eq!(node.audit()[0].status, Some(401));
}

#[tokio::test]
async fn each_rule_of_the_policy_is_named_by_its_refusal() {
    let (node, agent) = Operated::on_a_socket(
        "policy:
  faults: [hold, pause]
  targets: [lane]
  children: [lane, proxy]
  longest_lease: 60s
  longest_fault: 61s
  faults_at_once: 2
",
    )
    .await;
    let broken = |answer, rule: &str| {
        let (status, message) = refusal::<()>(answer);
        assert_eq!(status, 403, "{message}");
        assert!(
            message.contains(&format!("policy rule `{rule}`")),
            "{message}"
        );
    };
    let on = |id: &str, node: &str| FaultOrder {
        node: Some(node.to_owned()),
        ..order(id, pause())
    };
    let drop_view = |answer: Result<model::fault::FaultView, CallError>| answer.map(drop);

    broken(
        agent
            .start_child("shard-0", &crate::support::shard(false))
            .await
            .map(drop),
        "children",
    );
    agent.start_child("lane", &lane("")).await.unwrap();
    agent.start_child("proxy", &proxy(0)).await.unwrap();
    broken(drop_view(agent.inject(&order("f", kill())).await), "faults");
    broken(drop_view(agent.inject(&on("f", "proxy")).await), "targets");
    broken(
        drop_view(agent.inject(&order("f", pause())).await),
        "targets",
    );
    let long = FaultOrder {
        lease: Span::from_secs(61),
        ..order("f", hold())
    };
    broken(drop_view(agent.inject(&long).await), "longest_lease");
    assert!(agent.status().await.unwrap().faults.is_empty());

    agent.inject(&on("f1", "lane")).await.unwrap();
    agent.inject(&order("f2", hold())).await.unwrap();
    broken(
        drop_view(agent.inject(&order("f3", hold())).await),
        "faults_at_once",
    );
    broken(
        agent.renew("f2", Span::from_secs(62)).await,
        "longest_lease",
    );
    agent.renew("f2", Span::from_secs(1)).await.unwrap();
    // Another second, and a lease of a minute would be longer than 61 s in all.
    until("the longest fault is reached", || async {
        agent.renew("f1", Span::from_secs(60)).await.is_err()
    })
    .await;
    broken(
        agent.renew("f1", Span::from_secs(60)).await,
        "longest_fault",
    );
    agent.undo("f1").await.unwrap();
    // The lease that it was left with is over too, at the latest: there is room again.
    until("f2 has lapsed", || async {
        agent.status().await.unwrap().faults.is_empty()
    })
    .await;
    agent.inject(&order("f4", hold())).await.unwrap();
    let refused = node
        .audit()
        .into_iter()
        .filter(|line| line.step == Step::Refused);
    let rules = refused.filter(|line| {
        line.error
            .as_ref()
            .is_some_and(|error| error.contains("policy rule"))
    });
    assert!(rules.count() >= 8);
}

#[tokio::test]
async fn nothing_that_crosses_the_wire_makes_the_agent_run_what_its_configuration_does_not_name() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("ran");
    let named = "named: { run: [/bin/sh, -c, 'echo \"$0 $FAULTLANE_X\"', named] }";
    let node = Operated::start(folder, &format!("commands:\n  {named}\n")).await;
    let agent = reach(&Place::Socket(node.at.clone().into())).await.unwrap();
    let touch = format!("touch {}", mark.display());
    let ran = |name: &str, order: CommandOrder| {
        let (agent, name) = (agent.clone(), name.to_owned());
        async move { agent.run_command(&name, &order, 5 * SECOND).await }
    };
    let empty = CommandOrder::default();
    for name in ["other", "%2fbin%2fsh", "named%20-c", ".."] {
        assert_eq!(refusal(ran(name, empty.clone()).await).0, 404, "{name}");
    }
    let raw = host::http::Client::of(Peer::socket_at(Path::new(&node.at)).into());
    for body in [
        serde_json::json!({"run": ["/bin/sh", "-c", touch]}),
        serde_json::json!({"variables": {}, "run": ["/bin/sh", "-c", touch], "args": [touch]}),
        serde_json::json!({"variables": {"FAULTLANE_X": format!("$({touch})")}}),
    ] {
        let answer = raw
            .post::<serde_json::Value>("/commands/named", &body, 5 * SECOND)
            .await;
        if let Ok(answer) = answer {
            assert!(
                answer["stdout"].as_str().unwrap().starts_with("named "),
                "{answer}"
            );
        }
    }
    for role in ["exec", "command", "guard"] {
        let child =
            serde_json::json!({"name": "x", "role": {role: {"run": ["/bin/sh", "-c", touch]}}});
        let (status, _) = refusal(raw.post::<()>("/children", &child, SECOND).await);
        assert_eq!(status, 400, "{role}");
    }
    assert!(!mark.exists());
}

#[tokio::test]
async fn an_operated_agent_keeps_what_it_has_to_remember_and_nothing_of_its_children() {
    let (node, agent) = Operated::on_a_socket("policy: { children: [lane] }\n").await;
    let held = agent.take_run("one", Span::from_secs(60)).await.unwrap();
    held.start_child("lane", &lane("")).await.unwrap();
    held.inject(&order("f1", pause())).await.unwrap();
    agent.halt().await.unwrap();
    let folder = node.end().await;
    let state = folder.path().join("state");
    assert!(!state.join("data").exists());
    let node = Operated::start(folder, "").await;
    let agent = reach(&Place::Socket(node.at.clone().into())).await.unwrap();
    assert!(agent.status().await.unwrap().halted);
    assert_eq!(
        refusal(agent.take_run("two", Span::from_secs(60)).await).0,
        423
    );
    agent.clear_halt().await.unwrap();
    // What the run of an earlier life still believes in is stale.
    let (status, message) = refusal(agent.with_fence(1).undo("f1").await);
    assert!(status == 409 && message.contains("stale"), "{message}");
    let lines = node.audit();
    assert!(
        lines
            .iter()
            .filter(|line| line.what.as_deref() == Some("POST /halt"))
            .count()
            >= 2
    );
}

#[tokio::test]
async fn a_folder_that_the_policy_names_is_filled_and_none_that_a_link_leads_to() {
    let disk = tempfile::tempdir().unwrap();
    let real = disk.path().canonicalize().unwrap();
    let (allowed, other) = (real.join("allowed"), real.join("other"));
    for folder in [&allowed, &other] {
        fs::create_dir(folder).unwrap();
    }
    std::os::unix::fs::symlink(&other, allowed.join("link")).unwrap();
    let config = format!("policy: {{ disk_folders: [{}] }}\n", allowed.display());
    let (node, agent) = Operated::on_a_socket(&config).await;
    let fill = |id: &str, folder: &Path| {
        let fault = DiskFill {
            size: Amount::Bytes(ByteSize::new(1 << 20)),
            reserve: ByteSize::new(0),
            folder: Some(folder.to_owned()),
        };
        order(id, Fault::DiskFill(fault))
    };
    let there = |folder: &Path| fs::read_dir(folder).unwrap().count();

    let view = agent.inject(&fill("f1", &allowed)).await.unwrap();
    assert_eq!(view.observation.figures["bytes_held"], 1 << 20);
    assert_eq!(there(&allowed), 2);
    let (status, text) = refusal(agent.inject(&fill("f2", &other)).await);
    assert!(status == 403 && text.contains("disk_folders"), "{text}");
    let link = allowed.join("link");
    let (status, text) = refusal(agent.inject(&fill("f3", &link)).await);
    assert!(status == 422 && text.contains("is really"), "{text}");
    let (status, text) = refusal(agent.inject(&fill("f4", &allowed.join("none"))).await);
    assert!(status == 404 && text.contains("none"), "{text}");
    assert_eq!(there(&other), 0);
    // It goes when the agent ends, although nobody asked for that.
    node.end().await;
    assert_eq!(there(&allowed), 1);
}

#[tokio::test]
async fn a_fault_whose_id_nobody_could_call_it_by_is_refused() {
    let (node, agent) = Operated::on_a_socket("").await;
    for id in ["", "../f1", "a/b", "a b", "a\n", &"x".repeat(100_000)] {
        let (status, message) = refusal(agent.inject(&order(id, kill())).await);
        assert!(
            status == 400 && message.contains("not a fault's id") && message.len() < 200,
            "{message}"
        );
    }
    node.end().await;
}

/// This file of the agent's is on a disk of its own, which is full; root alone can have that.
async fn with_full(file: &str) -> Option<Node> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can mount a small file system");
        return None;
    }
    let script = format!(
        r#"mkdir -p "$0/full" "$0/agent" && mount -t tmpfs -o size=4k full "$0/full" &&
        touch "$0/full/file" "$0/agent/{file}" && head -c 4096 /dev/zero > "$0/full/fill" &&
        mount --bind "$0/full/file" "$0/agent/{file}" && exec "$@""#
    );
    Some(Node::with_small_disk(&script, "").await)
}

#[tokio::test]
async fn what_the_journal_cannot_be_told_of_is_not_done_and_what_was_made_ready_for_it_goes() {
    let Some(node) = with_full("journal.jsonl").await else {
        return;
    };
    for (id, fault) in [("f1", cpu_burn()), ("f2", memory_fill(1 << 20))] {
        let (status, message) = refusal(node.agent.inject(&order(id, fault)).await);
        assert!(
            status == 500 && message.contains("journal.jsonl"),
            "{message}"
        );
        until("no worker is left", || async {
            workers(node.folder()).is_empty()
        })
        .await;
    }
    node.end().await;
}

#[tokio::test]
async fn what_the_audit_log_cannot_be_told_of_is_not_begun_and_a_halt_is_done_all_the_same() {
    let Some(node) = with_full("audit.jsonl").await else {
        return;
    };
    let (status, message) = refusal(node.agent.start_child("lane", &lane("")).await);
    assert!(status == 503 && message.contains("audit log"), "{message}");
    let (status, _) = refusal(node.agent.inject(&order("f1", kill())).await);
    assert_eq!(status, 503);
    let (status, _) = refusal(node.agent.open_ear().await);
    assert_eq!(status, 503);
    assert!(node.agent.halt().await.unwrap().status.halted);
    node.agent.clear_halt().await.unwrap();
    node.end().await;
}
