//! Agents that an operator runs, from the command line: certificates, refusals at the start, the lever.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{Running, faultlane, output, signal};

const COMMON: &str = "log_dir: logs\n";

/// An agent of that name in a folder, and where it says that it listens.
fn start(folder: &Path, name: &str, config: &str) -> (Running, String) {
    let file = write(folder, name, config);
    let log = fs::File::create(folder.join(format!("{name}.log"))).expect("its log");
    let mut running = Running(
        faultlane(&["agent", "--config", &file])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("it starts"),
    );
    let mut line = String::new();
    let stdout = running.0.stdout.take().expect("its stdout");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let at = line.strip_prefix("listening on ").unwrap_or_else(|| {
        let log = fs::read_to_string(folder.join(format!("{name}.log")));
        panic!("{line}{log:?}")
    });
    let at = at.split(' ').next().expect("an address").to_owned();
    (running, at)
}

fn write(folder: &Path, name: &str, config: &str) -> String {
    let file = folder.join(format!("{name}.yaml"));
    let text = format!("name: {name}\nstate_dir: state/{name}\n{COMMON}{config}");
    fs::write(&file, text).expect("its configuration");
    file.to_str().expect("the path is UTF-8").to_owned()
}

fn inventory(folder: &Path, text: &str) -> String {
    let file = folder.join("inventory.yaml");
    fs::write(&file, text).expect("the inventory");
    file.to_str().expect("the path is UTF-8").to_owned()
}

#[test]
fn no_agent_listens_off_loopback_without_certificates() {
    let folder = TempDir::new().expect("a folder");
    for listen in ["0.0.0.0:0", "\"[::]:0\"", "192.0.2.7:7400"] {
        let file = write(folder.path(), "db-1", &format!("listen: {listen}\n"));
        output(&["agent", "--config", &file])
            .expect_code(2)
            .says("off loopback")
            .says("faultlane pki init")
            .says("db-1.yaml:4:9");
    }
    let file = write(
        folder.path(),
        "db-1",
        "listen: 127.0.0.1\npolicy: { faults: [kil] }\n",
    );
    output(&["agent", "--config", &file])
        .expect_code(2)
        .says("`127.0.0.1` is neither an address nor a unix socket")
        .says("did you mean `kill`?")
        .says("db-1.yaml:5:");
    assert!(
        !folder.path().join("state").exists(),
        "it began all the same"
    );
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().expect("a folder");
    let pki = folder.path().join("pki");
    output(&[
        "pki",
        "init",
        pki.to_str().expect("UTF-8"),
        "--agent",
        "db-1",
    ])
    .expect_code(0);
    let key = pki.join("db-1.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let tls = "tls: { certificate: pki/db-1.pem, key: pki/db-1.key, client_ca: pki/ca.pem }\n";
    let file = write(
        folder.path(),
        "db-1",
        &format!("listen: 127.0.0.1:0\n{tls}"),
    );
    output(&["agent", "--config", &file])
        .expect_code(2)
        .says("can be read by others")
        .says("chmod 600");
}

#[test]
fn the_lever_reaches_every_agent_at_once_and_says_which_it_did_not() {
    let folder = TempDir::new().expect("a folder");
    let root = folder.path();
    let pki = root.join("pki");
    let pki = pki.to_str().expect("UTF-8");
    let names = ["a-1", "a-2", "a-3", "a-4", "a-5"];
    let agents: Vec<String> = names
        .iter()
        .map(|name| format!("--agent={name}=127.0.0.1"))
        .collect();
    let mut init = vec![
        "pki",
        "init",
        pki,
        "--operator",
        "ada",
        "--observer",
        "screen",
    ];
    init.extend(agents.iter().map(String::as_str));
    output(&init).expect_code(0).says("a-5.key");
    output(&init).expect_code(2).says("is not written over");

    let config = |name: &str| {
        format!(
            "listen: 127.0.0.1:0\ntls: {{ certificate: pki/{name}.pem, key: pki/{name}.key, client_ca: pki/ca.pem }}\n"
        )
    };
    let mut running: Vec<_> = names
        .iter()
        .map(|name| start(root, name, &config(name)))
        .collect();
    let listed = |holder: &str| {
        let files = format!("ca: pki/ca.pem, certificate: pki/{holder}.pem, key: pki/{holder}.key");
        let agents = names.iter().zip(&running);
        let agents: Vec<_> = agents
            .map(|(name, (_, at))| format!("  - {{ name: {name}, address: \"{at}\" }}\n"))
            .collect();
        format!("tls: {{ {files} }}\nagents:\n{}", agents.concat())
    };
    let by_screen = inventory(root, &listed("screen"));
    let seen = output(&["agents", "--inventory", &by_screen]).expect_code(0);
    seen.says("a-1: ready; `a-1`")
        .says("protocol 1")
        .says(" ms ahead ± ");
    output(&["halt", "--inventory", &by_screen])
        .expect_code(4)
        .says("a-3: NOT halted")
        .says("needs the role `halt`");

    let by_ada = inventory(root, &listed("ada"));
    let began = Instant::now();
    let halted = output(&["halt", "--inventory", &by_ada]).expect_code(0);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    for name in names {
        halted.says(&format!("{name}: halted; no fault was in force"));
    }
    output(&["agents", "--inventory", &by_ada])
        .expect_code(0)
        .says("a-2: HALTED");

    // One that is gone is named, and the others are asked all the same.
    let (gone, _) = running.pop().expect("five");
    signal(gone.0.id(), nix::sys::signal::Signal::SIGTERM);
    drop(gone);
    output(&["halt", "--inventory", &by_ada, "--clear"])
        .expect_code(4)
        .says("a-4: the halt is cleared")
        .says("a-5: NOT cleared");
    output(&["agents", "--inventory", &by_ada])
        .expect_code(4)
        .says("a-2: ready");
}

#[test]
fn an_agent_is_called_by_its_socket_or_with_its_token() {
    let folder = TempDir::new().expect("a folder");
    let (_first, socket) = start(folder.path(), "db-1", "");
    output(&["halt", "--agent", &socket])
        .expect_code(0)
        .says("halted");
    let (_second, at) = start(folder.path(), "db-2", "listen: 127.0.0.1:0\n");
    output(&["agents", "--agent", &at])
        .expect_code(2)
        .says("--token");
    let token = folder.path().join("state/db-2/token");
    let token = token.to_str().expect("UTF-8");
    output(&["agents", "--agent", &at, "--token", token])
        .expect_code(0)
        .says("ready; `db-2`");
    output(&["agents", "--agent", "192.0.2.1:7400", "--token", token])
        .expect_code(2)
        .says("on loopback only");
}

#[test]
fn a_second_agent_does_not_take_the_place_of_one_that_runs() {
    let folder = TempDir::new().expect("a folder");
    let (_running, _) = start(folder.path(), "db-1", "");
    let file = folder.path().join("db-1.yaml");
    output(&["agent", "--config", file.to_str().expect("UTF-8")])
        .expect_code(4)
        .says("another agent uses it");
}
