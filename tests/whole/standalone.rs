//! The standalone proxy, driven by the commands that speak to it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::processes::ready;
use crate::support::{Finished, echo, faultlane, output};

/// How long a word takes through a proxy and back.
fn round_trip(addr: &str) -> Duration {
    let mut stream = TcpStream::connect(addr).expect("the proxy accepts");
    let begun = Instant::now();
    stream.write_all(b"hello").expect("written");
    let mut back = [0; 5];
    stream.read_exact(&mut back).expect("it comes back");
    begun.elapsed()
}

/// The URL of a server that has just begun.
fn url(ready: &Value) -> String {
    format!("http://{}", ready["control"].as_str().expect("its API"))
}

#[test]
fn proxies_and_toxics_are_made_changed_and_removed_from_the_command_line() {
    let (_server, ready) = ready(faultlane(&["proxy", "--port", "0"]));
    let url = url(&ready);
    let tell = |args: &[&str]| output(&[&["proxy"], args, &["--host", &url]].concat());
    let done = |args: &[&str]| -> Finished { tell(args).expect_code(0) };
    let upstream = echo().to_string();
    done(&["create", "a b", "--upstream", &upstream]).says("enabled  0 toxics");
    let all = done(&["list", "--json"]);
    let all: Value = serde_json::from_str(&all.stdout).expect("JSON");
    let listen = all["a b"]["listen"].as_str().expect("where it listens");
    round_trip(listen);

    let latency = [
        "toxic",
        "add",
        "a b",
        "-t",
        "latency",
        "-n",
        "slow",
        "-a",
        "latency=50",
    ];
    done(&latency).says("slow  latency  downstream  toxicity 1  jitter=0  latency=50");
    assert!(round_trip(listen) >= Duration::from_millis(50));
    done(&[
        "toxic",
        "update",
        "a b",
        "slow",
        "-a",
        "latency=90",
        "--toxicity",
        "1",
        "--for",
        "1h",
    ])
    .says("latency=90  for 3600000ms");
    assert!(round_trip(listen) >= Duration::from_millis(90));
    let limit = [
        "toxic",
        "add",
        "a b",
        "--type",
        "accept_limit",
        "-a",
        "rate=9",
        "-a",
        "overflow=queue",
    ];
    done(&limit).says("overflow=queue");
    done(&["inspect", "a b"])
        .says("2 toxics")
        .says("slow  latency");
    done(&["toxic", "remove", "a b", "slow"]).says("removed slow");
    done(&["toggle", "a b"]).says("disabled  1 toxic\n");
    assert!(TcpStream::connect(listen).is_err());
    done(&["toggle", "a b"]).says("enabled  1 toxic\n");
    done(&["reset"]);
    done(&["list"]).says("enabled  0 toxics");
    round_trip(listen);

    tell(&["create", "a b", "--upstream", &upstream])
        .expect_code(2)
        .says("proxy already exists");
    tell(&["toxic", "add", "a b", "-t", "nothing"])
        .expect_code(2)
        .says("invalid toxic type");
    tell(&["toxic", "add", "a b", "-t", "latency", "-a", "latency"])
        .expect_code(2)
        .says("KEY=VALUE");
    tell(&["create", "b", "--listen", listen, "--upstream", &upstream])
        .expect_code(4)
        .says("bind: address already in use");
    done(&["delete", "a b"]);
    tell(&["inspect", "a b"])
        .expect_code(2)
        .says("proxy not found");
}

#[test]
fn decisions_are_logged_by_the_names_that_clients_give_themselves() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("decisions.jsonl");
    let path = file.to_str().expect("UTF-8");
    let (_server, ready) = ready(faultlane(&["proxy", "--port", "0", "--decision-log", path]));
    let url = url(&ready);
    let done = |args: &[&str]| {
        output(&[&["proxy"], args, &["--host", &url, "--json"]].concat()).expect_code(0)
    };
    let upstream = echo().to_string();
    let create = ["create", "p", "--upstream", &upstream, "--identify-by"];
    let created = done(&[create.as_slice(), &["header=X-Client"]].concat());
    let created: Value = serde_json::from_str(&created.stdout).expect("JSON");
    assert_eq!(created["identify_by"]["header"], "X-Client");
    done(&["toxic", "add", "p", "-t", "refuse", "--toxicity", "0.5"]);
    let listen = created["listen"].as_str().expect("where it listens");
    let mut stream = TcpStream::connect(listen).expect("the proxy accepts");
    let request = b"GET / HTTP/1.1\r\nX-Client: device-7\r\n\r\n";
    stream.write_all(request).expect("written");
    let begun = Instant::now();
    let line = loop {
        let log = fs::read_to_string(&file).expect("the log");
        if let Some((line, _)) = log.split_once('\n') {
            break serde_json::from_str::<Value>(line).expect("JSON");
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "a line in time");
        std::thread::yield_now();
    };
    assert_eq!(line["connection"], "device-7");
    assert_eq!(line["toxic"], "refuse_downstream");

    output(&[
        "proxy",
        "create",
        "q",
        "--upstream",
        &upstream,
        "--identify-by",
        "X-Client",
    ])
    .expect_code(2)
    .says("write header=NAME or query=NAME");
    output(&["proxy", "--port", "0", "--decision-log", "/nowhere/log"])
        .expect_code(4)
        .says("/nowhere/log");
}

#[test]
fn it_begins_with_the_proxies_of_a_file_and_takes_toxiproxys_flags() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("toxiproxy.json");
    let path = file.to_str().expect("UTF-8");
    let upstream = echo();
    let proxy = format!(r#"[{{"name": "p", "listen": "127.0.0.1:0", "upstream": "{upstream}"}}]"#);
    fs::write(&file, proxy).expect("written");
    let flags = [
        "proxy",
        "-host=localhost",
        "-port",
        "0",
        "-config",
        path,
        "-seed",
        "7",
    ];
    let (_server, ready) = ready(faultlane(&flags));
    let url = url(&ready);
    output(&["proxy", "list", "--host", &url])
        .expect_code(0)
        .says("p  127.0.0.1:");

    fs::write(&file, r#"[{"name": "p"}]"#).expect("written");
    output(&["proxy", "--port", "0", "--config", path])
        .expect_code(4)
        .says("missing required field: upstream at proxy 1");
    output(&["proxy", "--port", "0", "--config", "/nowhere.json"])
        .expect_code(2)
        .says("--config /nowhere.json");
}

#[test]
fn tls_ends_at_a_proxy_with_files_of_the_caller_or_the_servers_own_authority() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (ca, cert, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
    let identity = host::tls::Authority::ephemeral("own")
        .and_then(|own| own.issue(&["sync.example.com"]))
        .expect("a certificate");
    fs::write(&cert, &identity.chain_pem).expect("written");
    fs::write(&key, &identity.key_pem).expect("written");
    let (_server, ready) = ready(faultlane(&["proxy", "--port", "0", "--tls-ca-out", &ca]));
    let trusted = fs::read_to_string(&ca).expect("the authority's certificate");
    assert!(trusted.starts_with("-----BEGIN CERTIFICATE-----"));
    let url = url(&ready);
    let create = |args: &[&str]| {
        let proxy = ["proxy", "create", "p", "--upstream", "127.0.0.1:1"];
        let server = ["--host", &url, "--json"];
        output(&[&proxy, args, &server].concat())
    };
    create(&["--tls-cert", &cert])
        .expect_code(2)
        .says("--tls-key");
    create(&["--tls-upstream-ca", &cert])
        .expect_code(2)
        .says("add --tls-self-issued");
    create(&["--tls-cert", &path("none"), "--tls-key", &key])
        .expect_code(2)
        .says("--tls-cert");
    fs::write(path("empty"), "").expect("written");
    create(&["--tls-cert", &cert, "--tls-key", &path("empty")])
        .expect_code(2)
        .says("not PEM");
    let made = create(&[
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-upstream-ca",
        &cert,
        "--tls-server-name",
        "sync.example.com",
    ])
    .expect_code(0);
    made.says(r#""certificate":"inline""#)
        .says(r#""upstream":"tls","upstream_ca":"inline""#)
        .says(r#""server_name":"sync.example.com""#);
    assert!(!made.stdout.contains("PRIVATE"));
    output(&["proxy", "delete", "p", "--host", &url]).expect_code(0);
    create(&["--tls-self-issued", "--tls-upstream"])
        .expect_code(0)
        .says(r#""self_issued":true"#);
    output(&[
        "proxy",
        "toxic",
        "add",
        "p",
        "-t",
        "tls_expired",
        "--host",
        &url,
    ])
    .expect_code(0);
    output(&["proxy", "--port", "0", "--tls-dir", &path("none")])
        .expect_code(4)
        .says("--tls-dir");
}

#[test]
fn off_loopback_its_api_asks_for_a_token() {
    output(&["proxy", "--host", "0.0.0.0", "--port", "0"])
        .expect_code(2)
        .says("--host 0.0.0.0:0 is off loopback")
        .says("--api-token-file");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("token");
    let path = file.to_str().expect("UTF-8");
    fs::write(&file, "\n").expect("written");
    let guarded = [
        "proxy",
        "--host",
        "0.0.0.0",
        "--port",
        "0",
        "--api-token-file",
        path,
    ];
    output(&guarded).expect_code(2).says("it is empty");
    fs::write(&file, "s3cret\n").expect("written");
    let (_server, ready) = ready(faultlane(&guarded));
    let url = url(&ready);
    let list = ["proxy", "list", "--host", &url];
    output(&list).expect_code(2).says("Authorization: Bearer");
    output(&[list.as_slice(), &["--api-token-file", path]].concat()).expect_code(0);
}

#[test]
fn flags_of_the_one_form_are_no_flags_of_the_other() {
    let upstream = ["proxy", "--upstream", "127.0.0.1:9"];
    for flags in [["--seed", "1"], ["--port", "0"], ["--config", "x"]] {
        output(&[upstream.as_slice(), &flags].concat())
            .expect_code(2)
            .says("--upstream");
    }
    output(&["proxy", "--listen", "127.0.0.1:0"])
        .expect_code(2)
        .says("--upstream");
}

#[test]
fn a_server_that_is_not_there_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    drop(listener);
    output(&["proxy", "list", "--host", &url])
        .expect_code(4)
        .says("is `faultlane proxy` running there?");
    output(&["proxy", "list", "--host", "https://localhost:1"])
        .expect_code(2)
        .says("http:// only");
}
