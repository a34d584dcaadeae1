//! Target files: every mistake with its place and a remedy, what they resolve to, and scenarios against them.

use std::path::{Path, PathBuf};

use model::ids::Lane;
use model::quantity::Span;
use model::target::{Argument, Durability, Names, Removal, TokenSupply, Wire};
use proptest::prelude::*;
use scenarios::target::{self, Checked, Surroundings, Target, Template};
use scenarios::{Diagnostics, Settings};

use crate::support::{GOOD as SCENARIO, changed, docs, source};

const GOOD: &str = r#"name: staging
lanes:
  spacetime:
    url: wss://sync.example.com/staging/
    dial: 127.0.0.1:8443
    tls: { ca: ca.pem, certificate: client.pem, key: client.key }
    headers: { x-gateway: "key ${GATEWAY}" }
    events:
      table: sync_event
      columns:
        - { name: stream, holds: stream_id, type: string }
        - { name: at, holds: seq, type: u64 }
        - { name: key, holds: idempotency_key, type: string }
        - { name: hash, holds: payload_hash, type: string }
        - { name: body, holds: payload_json, type: string }
    publish: { arguments: [stream_id, idempotency_key, payload_json, seq], secret: "${PUBLISH}" }
    clean_up: sql
tokens:
  http:
    url: https://sync.example.com/token
    body: "{\"who\": \"{identity}\", \"org\": \"{tenant}\", \"ttl\": {ttl_seconds}}"
    token_field: data.token
  identities: 100
streams: { pattern: "run.{n}.events", count: 6 }
tenants:
  - { name: acme, stream: canary.acme }
  - { name: rival, stream: canary.rival }
nodes:
  - { name: sync-1, agent: "https://10.0.0.7:7700" }
  - { name: sync-2, agent: "http://127.0.0.1:7700" }
promise:
  expiry_enforcement: live
  skew: 30s
  acknowledged: within 500ms
  world: open
  authorization: enforced
  profile: { heartbeat: 1s, read_idle: 3s, backoff_cap: 2s }
limits:
  migration_buffer: 100ms
  storm_target: 30s
  fallback_threshold: 1%
  rollback_slo: 5m
"#;

/// Relative, as a target file's folder mostly is; tests run in the crate's folder.
fn fixtures() -> PathBuf {
    PathBuf::from("tests/fixtures")
}

fn variable(name: &str) -> Option<String> {
    match name {
        "GATEWAY"
        | "PUBLISH"
        | "GATEWAY_KEY"
        | "PUBLISH_TOKEN"
        | "PUBLISH_SECRET"
        | "SESSION"
        | "FAULTLANE_SESSION_SECRET" => Some(format!("hush-{name}")),
        "BROKEN" => Some("hush\n".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Checked, Diagnostics> {
    let around = Surroundings {
        folder: &fixtures(),
        variable: &variable,
    };
    target::parse(&source(text), &around)
}

#[track_caller]
fn good(text: &str) -> Target {
    let checked = parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    checked.target
}

#[track_caller]
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the good target has no `{from}`");
    GOOD.replacen(from, to, 1)
}

#[test]
fn a_target_resolves_to_how_it_is_reached_and_what_it_promises() {
    let target = good(GOOD);
    let endpoint = &target.lanes[&Lane::Spacetime];
    assert_eq!(endpoint.dial, "127.0.0.1:8443");
    let (proxy, lane) = (
        "127.0.0.1:1".parse().expect("an address"),
        "127.0.0.1:2".parse().expect("an address"),
    );
    let access = endpoint.access(proxy, lane);
    assert_eq!((access.endpoint, access.direct), (proxy, lane));
    assert_eq!(access.authority.as_deref(), Some("sync.example.com"));
    assert_eq!(access.path_prefix, "/staging");
    assert_eq!(
        access.headers,
        [
            ("x-gateway".to_owned(), "key hush-GATEWAY".to_owned()),
            ("origin".to_owned(), "https://sync.example.com".to_owned()),
        ]
    );
    assert_eq!(access.wire, Wire::Json);
    assert_eq!(access.names.events.columns[1].name, "at");
    assert_eq!(access.names.heads, Names::default().heads);
    assert_eq!(access.names.arguments[3], Argument::Seq);
    let tls = access.tls.expect("wss");
    assert!(tls.ca_pem.is_some() && tls.identity.is_some());
    assert_eq!(
        target.promise.acknowledged,
        Durability::Within(Span::from_millis(500))
    );
    assert_eq!(target.profile.token_skew, Span::from_secs(30));
    assert_eq!(target.streams[5], "run.6.events");
    assert_eq!(target.default_node(), None);
    let TokenSupply::Http(http) = &target.tokens else {
        panic!("{:?}", target.tokens)
    };
    assert_eq!(
        (http.dial.as_str(), http.path.as_str()),
        ("sync.example.com:443", "/token")
    );
    assert!(http.tls.is_some());
}

#[test]
fn a_promise_about_acknowledged_events_is_written_in_three_ways() {
    for (text, promise) in [
        ("durable", Durability::Durable),
        ("within 2s", Durability::Within(Span::from_secs(2))),
        ("{ within: 2s }", Durability::Within(Span::from_secs(2))),
    ] {
        let target = good(&with("within 500ms", text));
        assert_eq!(target.promise.acknowledged, promise, "{text}");
    }
}

#[test]
fn system_roots_need_no_tls_settings_and_no_file() {
    let tls = "    tls: { ca: ca.pem, certificate: client.pem, key: client.key }\n";
    let access = &good(&with(tls, "")).lanes[&Lane::Spacetime];
    assert_eq!(access.tls, Some(model::target::TlsClient::default()));
}

#[test]
fn tokens_come_from_files_each_an_identity() {
    let from = GOOD.find("tokens:").expect("tokens");
    let to = GOOD.find("streams:").expect("streams");
    let tokens = |tokens: &str| format!("{}tokens: {tokens}\n{}", &GOOD[..from], &GOOD[to..]);
    for text in [
        "{ files: [tokens/a.jwt, tokens/b.jwt] }",
        "{ files: tokens }",
    ] {
        let target = good(&tokens(text));
        assert_eq!(target.identities, Some(2), "{text}");
        assert!(
            matches!(&target.tokens, TokenSupply::Files(files) if files[1].reveal() == "token-b")
        );
    }
    assert_eq!(
        good(&tokens("{ service: {} }")).tokens,
        TokenSupply::Service(None)
    );
    let named = good(&tokens("{ command: mint }")).tokens;
    assert_eq!(named, TokenSupply::Command("mint".to_owned()));
}

/// One change, the column of the mistake on its line, and words of the message and the remedy.
const MISTAKES: &[(&str, &str, usize, &[&str])] = &[
    (
        "name: staging",
        "name: Sta ging",
        7,
        &["not a target's name"],
    ),
    ("    dial:", "    dail:", 5, &["`dail`", "`dial`"]),
    (
        "wss://sync.example.com/staging/",
        "ftp://sync",
        10,
        &["`ftp`", "wss://"],
    ),
    (
        "wss://sync.example.com/staging/",
        "sync.example.com",
        10,
        &["no scheme"],
    ),
    (
        "wss://sync.example.com/staging/",
        "\"wss://a/?x=1\"",
        10,
        &["query"],
    ),
    (
        "wss://sync.example.com/staging/",
        "wss://joe:hush@a",
        10,
        &["password"],
    ),
    (
        "127.0.0.1:8443",
        "127.0.0.1",
        11,
        &["lacks its port", "127.0.0.1:443"],
    ),
    ("127.0.0.1:8443", "\"wss://a:1\"", 11, &["is a URL"]),
    (
        "127.0.0.1:8443",
        "127.0.0.1:99999",
        11,
        &["`99999` is not a port"],
    ),
    ("127.0.0.1:8443", "\"::1:80\"", 11, &["in brackets"]),
    (
        "ca: ca.pem",
        "ca: none.pem",
        16,
        &["`none.pem` cannot be read"],
    ),
    (
        "ca: ca.pem",
        "ca: client.key",
        16,
        &["holds no certificate"],
    ),
    (
        "certificate: client.pem, ",
        "",
        29,
        &["`key` is given without `certificate`"],
    ),
    (
        "x-gateway:",
        "\"x gateway\":",
        16,
        &["`x gateway` is not a header's name"],
    ),
    (
        "x-gateway:",
        "Host:",
        16,
        &["`Host` is set by faultlane itself"],
    ),
    (
        "${GATEWAY}",
        "${NO_SUCH}",
        27,
        &["`NO_SUCH` is not set", "export NO_SUCH"],
    ),
    ("${GATEWAY}", "${BROKEN}", 27, &["control character"]),
    ("${GATEWAY}", "${GATEWAY", 27, &["not closed"]),
    (
        "holds: seq, type: u64",
        "holds: seq, type: string",
        41,
        &["another type", "u64"],
    ),
    ("holds: seq", "holds: sqe", 30, &["`sqe`", "`seq`"]),
    (
        "name: at,",
        "name: stream,",
        19,
        &["another column is called `stream`"],
    ),
    (
        "[stream_id, idem",
        "[stream_id, stream_id, idem",
        39,
        &["given twice"],
    ),
    (
        "https://sync.example.com/token",
        "wss://a",
        10,
        &["`wss`", "https://"],
    ),
    (
        "{ttl_seconds}",
        "{ttl_secs}",
        11,
        &["`{ttl_secs}` is not a placeholder", "`ttl_seconds`"],
    ),
    (
        r#"\"org\": \"{tenant}\", "#,
        "",
        11,
        &["does not say {tenant}"],
    ),
    ("clean_up: sql", "clean_up: sqll", 15, &["`sqll`", "`sql`"]),
    (
        "clean_up: sql",
        "clean_up: { reducer: \"drop table\" }",
        26,
        &["`drop table` is not a name in a database"],
    ),
    ("data.token", "data..token", 18, &["joined by dots"]),
    ("identities: 100", "identities: 0", 15, &["0 identities"]),
    (
        "identities: 100",
        "command: mint",
        3,
        &["`command` is one too many"],
    ),
    (
        "run.{n}.events",
        "run.events",
        21,
        &["the same name", "{n}"],
    ),
    ("count: 6", "count: 0", 46, &["`count` is 0"]),
    ("count: 6", "cuont: 6", 39, &["`cuont`", "`count`"]),
    (
        "rival, stream: canary.rival",
        "rival, stream: canary.acme",
        28,
        &["`canary.acme`"],
    ),
    (
        "name: sync-2",
        "name: sync-1",
        13,
        &["another node is called `sync-1`"],
    ),
    (
        "https://10.0.0.7:7700",
        "http://10.0.0.7:7700",
        28,
        &["not on loopback", "https://"],
    ),
    ("skew: 30s", "skew: 30", 9, &["bare number"]),
    ("skew: 30s", "skew: 2h", 9, &["a skew of 2h"]),
    ("within 500ms", "maybe", 17, &["`maybe`", "within 500ms"]),
    ("within 500ms", "within 500", 17, &["not a duration"]),
    ("world: open", "world: opne", 10, &["`opne`", "`open`"]),
    (
        "read_idle: 3s",
        "read_idle: 900ms",
        40,
        &["longer than `heartbeat`"],
    ),
    (
        "storm_target: 30s",
        "storm_target: 0s",
        17,
        &["no service can keep it"],
    ),
];

#[test]
fn every_mistake_is_refused_at_its_place_with_a_remedy() {
    let mut wrong = Vec::new();
    for (from, to, column, words) in MISTAKES {
        let text = with(from, to);
        let at = GOOD.find(from).expect("it is there");
        let line = GOOD[..at].matches('\n').count() + 1;
        let shown = match parse(&text) {
            Ok(_) => "nothing".to_owned(),
            Err(found) => found.to_string(),
        };
        let right = shown.contains(&format!("test.yaml:{line}:{column}\n"))
            && words.iter().all(|word| shown.contains(word))
            && shown.contains("hint: ")
            && !shown.contains("hush");
        if !right {
            wrong.push(format!("{line}:{column}, {words:?} for `{to}` in\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn what_has_no_default_is_named_with_its_purpose_all_at_once() {
    let sections = GOOD.find("promise:").expect("promise");
    let shown = parse(&GOOD[..sections])
        .expect_err("it is incomplete")
        .to_string();
    for (field, purpose) in [
        ("promise.expiry_enforcement", "at_connect"),
        ("promise.skew", "leak"),
        ("promise.acknowledged", "durable"),
        ("promise.world", "closed"),
        ("promise.authorization", "enforced"),
        ("limits.migration_buffer", "p95 delivery"),
        ("limits.storm_target", "reconnect storm"),
        ("limits.fallback_threshold", "legacy lane"),
        ("limits.rollback_slo", "rollback rehearsal"),
    ] {
        assert!(
            shown.contains(&format!("`{field}` is missing")) && shown.contains(purpose),
            "{field} in\n{shown}"
        );
    }
    assert_eq!(shown.matches("there is no default").count(), 9, "{shown}");
    let shown = parse(&with("  storm_target: 30s\n", "  storm_target:\n"))
        .expect_err("it is blank")
        .to_string();
    assert!(shown.contains("test.yaml:40:3"), "{shown}");
}

#[test]
fn where_others_publish_too_each_lane_says_how_events_are_removed() {
    for (text, removal) in [
        ("sql", Removal::Sql),
        ("none", Removal::Nothing),
        (
            "{ reducer: remove_events }",
            Removal::Reducer("remove_events".to_owned()),
        ),
    ] {
        let target = good(&with("clean_up: sql", &format!("clean_up: {text}")));
        assert_eq!(target.lanes[&Lane::Spacetime].removal, removal);
    }
    let shown = parse(&with("    clean_up: sql\n", ""))
        .expect_err("it is not said")
        .to_string();
    assert!(
        shown.contains("`lanes.spacetime.clean_up` is missing")
            && shown.contains("test.yaml:3:3")
            && shown.contains("none (they stay)"),
        "{shown}"
    );

    let khala = |clean_up: &str| {
        let from = GOOD.find("  spacetime:").expect("the lane");
        let to = GOOD.find("tokens:").expect("tokens");
        let lane = format!("  khala:\n    url: wss://a\n{clean_up}");
        let text = format!("{}{lane}{}", &GOOD[..from], &GOOD[to..]);
        parse(&with_topics(&text))
    };
    let path = "/internal/sync/remove".to_owned();
    let told = khala(&format!("    clean_up: {{ path: {path} }}\n")).expect("it is said");
    assert_eq!(told.target.lanes[&Lane::Khala].removal, Removal::Path(path));
    for (clean_up, words) in [
        ("", "`lanes.khala.clean_up` is missing"),
        ("    clean_up: { path: remove }\n", "`remove` is not a path"),
        ("    clean_up: sql\n", "`sql`"),
    ] {
        let shown = khala(clean_up).expect_err(words).to_string();
        assert!(shown.contains(words) && shown.contains("hint: "), "{shown}");
    }
}

#[test]
fn what_a_clean_up_cannot_do_is_said_before_a_drill() {
    let warned = |text: &str, line: &str, words: &str| {
        let found = parse(text).expect("no mistake").warnings;
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(
            shown[0].contains(words) && shown[0].contains(line),
            "{shown:?}"
        );
    };
    warned(
        &with("world: open", "world: closed"),
        "test.yaml:17:15",
        "`clean_up` has no use",
    );
    let nobody = with(", secret: \"${PUBLISH}\"", "");
    warned(&nobody, "test.yaml:17:15", "there is no `publish.secret`");

    let blind = with(
        "idempotency_key, payload_json, seq]",
        "idempotency_key, payload_json]",
    );
    let shown = parse(&blind).expect_err("two writers").to_string();
    assert!(
        shown.contains("nobody could tell which seq") && shown.contains("test.yaml:16:"),
        "{shown}"
    );
    assert!(parse(&blind.replacen("world: open", "world: closed", 1)).is_ok());
}

#[test]
fn tls_settings_of_a_lane_in_plain_text_are_refused() {
    let shown = parse(&with("wss://sync", "ws://sync"))
        .expect_err("ws with tls")
        .to_string();
    assert!(
        shown.contains("`tls` has no use") && shown.contains("test.yaml:6:5"),
        "{shown}"
    );
}

#[test]
fn a_lane_and_a_source_of_tokens_have_to_be_there() {
    let tail = "tokens: {}\nstreams: [a]\n";
    let shown = parse(&format!("name: a\nlanes: {{}}\n{tail}"))
        .expect_err("nothing is there")
        .to_string();
    for words in ["the target has no lane", "no source of tokens is chosen"] {
        assert!(shown.contains(words), "`{words}` in\n{shown}");
    }
}

#[test]
fn a_target_knows_what_is_not_to_be_repeated() {
    let secrets = |text: &str| -> Vec<String> {
        let target = parse(text).expect("it is valid").target;
        assert!(!format!("{target:?}").contains("hush"), "{target:?}");
        target.secrets().map(str::to_owned).collect()
    };
    assert_eq!(secrets(GOOD), ["hush-GATEWAY", "hush-PUBLISH"]);
    let clear = with("x-gateway: \"key ${GATEWAY}\"", "cookie: \"sid=abcd; n=1\"")
        .replace("com/token", "com/token?code=s3cr3t&v=2");
    assert_eq!(
        secrets(&clear),
        [
            "abcd",
            "code=s3cr3t&v=2",
            "hush-PUBLISH",
            "s3cr3t",
            "sid=abcd;",
            "sid=abcd; n=1"
        ]
    );
}

#[test]
fn a_secret_in_clear_text_is_warned_of_and_never_shown() {
    let text = with(
        "x-gateway: \"key ${GATEWAY}\"",
        "authorization: \"Bearer abc.def\"",
    );
    let warnings = parse(&text).expect("it is valid").warnings;
    let shown = warnings[0].to_string();
    assert!(
        shown.starts_with("warning: ")
            && shown.contains("test.yaml:7:31")
            && shown.contains("${NAME}"),
        "{shown}"
    );
    assert!(!shown.contains("abc.def"), "{shown}");
    let broken = text
        .replace("x-gateway", "x")
        .replace("headers: {", "headers: { \"a b\": c,");
    let shown = parse(&broken).expect_err("a bad name").to_string();
    assert!(
        shown.contains("`a b`") && !shown.contains("abc.def"),
        "{shown}"
    );
}

#[test]
fn plain_text_off_loopback_is_a_warning() {
    let text = GOOD.replacen(
        "https://sync.example.com/token",
        "http://sync.example.com/token",
        1,
    );
    let warnings = parse(&text).expect("it is valid").warnings;
    assert!(
        warnings[0].message.contains("in plain text"),
        "{warnings:?}"
    );
}

#[test]
fn nothing_of_a_target_prints_its_secrets() {
    let target = good(GOOD);
    assert!(!format!("{target:?}").contains("hush"));
    let address = "127.0.0.1:1".parse().expect("an address");
    let access = target.lanes[&Lane::Spacetime].access(address, address);
    assert!(!format!("{access:?}").contains("hush"));
}

fn against(scenario: &str, target: &str) -> Result<Vec<String>, String> {
    let target = good(target);
    scenarios::parse_for(&source(scenario), Some(&target))
        .map(|checked| checked.warnings.iter().map(ToString::to_string).collect())
        .map_err(|error| error.to_string())
}

#[test]
fn a_scenario_is_checked_against_its_target() {
    assert_eq!(against(SCENARIO, GOOD), Ok(Vec::new()));
    let kill = changed("hold: {}", "kill: {}");
    let on = |node: &str| kill.replace("share: 100%", &format!("node: {node}"));
    let refused = against(&on("sync-2"), GOOD).expect("the node is there");
    assert!(
        refused.len() == 1
            && refused[0].contains("a drill refuses `kill` on `staging`")
            && refused[0].contains("test.yaml:8:14"),
        "{refused:?}"
    );
    let nodes = GOOD.find("nodes:").expect("nodes");
    let promise = GOOD.find("promise:").expect("promise");
    let bare = format!("{}{}", &GOOD[..nodes], &GOOD[promise..]);
    let expiry = SCENARIO
        .replace(
            "{ hold: {} }",
            "{ token_expiry: { after: 60s, spread: 4s } }",
        )
        .replace("    for: 5s\n", "");
    let fixed = GOOD.replace(r#", \"ttl\": {ttl_seconds}"#, "");
    for (scenario, target, place, words) in [
        (kill.clone(), bare.as_str(), "8:14", "`staging` has none"),
        (kill.clone(), GOOD, "8:14", "does not say to which node"),
        (on("sync-3"), GOOD, "10:11", "has no node `sync-3`"),
        (
            changed("streams: 6", "streams: 7"),
            GOOD,
            "4:12",
            "7 streams are asked for",
        ),
        (
            expiry.clone(),
            fixed.as_str(),
            "8:14",
            "lifetime that can be asked for",
        ),
    ] {
        let shown = against(&scenario, target).expect_err(words);
        assert!(
            shown.contains(words) && shown.contains(&format!("test.yaml:{place}")),
            "{place}, {words} in\n{shown}"
        );
    }
    let at_connect = with("expiry_enforcement: live", "expiry_enforcement: at_connect");
    for (scenario, target, words) in [
        (expiry, at_connect.as_str(), "no connection will be cut off"),
        (
            changed("clients: 50", "clients: 101"),
            GOOD,
            "101 clients share 100 identities",
        ),
        (
            SCENARIO.to_owned(),
            &with("storm_target: 30s", "storm_target: 5s"),
            "above the target's storm_target (5s)",
        ),
        (
            changed("affected", "target: { accept_rate: 9/s }\naffected"),
            GOOD,
            "keeps none of these settings",
        ),
    ] {
        let warnings = against(&scenario, target).unwrap_or_else(|error| panic!("{error}"));
        assert!(
            warnings.iter().any(|shown| shown.contains(words)),
            "{words} in {warnings:?}"
        );
    }
}

#[test]
fn a_plan_for_a_target_has_its_streams_promise_and_clocks_and_no_lane_that_it_lacks() {
    let target = good(GOOD);
    let text = source(SCENARIO);
    let scenario = scenarios::parse_for(&text, Some(&target))
        .expect("it is valid")
        .scenario;
    let settings = |lane| Settings {
        target: Some(target.clone().into()),
        ..Settings::new(lane, 1)
    };
    let plan = scenarios::plan(&scenario, &text, &settings(Lane::Spacetime)).expect("a plan");
    assert_eq!(plan.workload.streams, target.streams);
    assert_eq!(plan.target.promise, target.promise);
    assert_eq!(plan.target.profile, target.profile);
    let shown = scenarios::plan(&scenario, &text, &settings(Lane::Khala))
        .expect_err("there is no such lane")
        .to_string();
    assert!(
        shown.contains("no lane `khala`") && shown.contains("it has spacetime"),
        "{shown}"
    );
}

#[test]
fn what_init_writes_is_complete_but_for_what_only_its_owner_knows() {
    for (lane, ca, token_url) in [
        (Lane::Spacetime, None, None),
        (
            Lane::Khala,
            Some("ca.pem"),
            Some("https://a/api/sync/token"),
        ),
        (Lane::Khala, None, None),
    ] {
        let open = Template {
            name: "staging".to_owned(),
            url: "wss://sync.example.com".to_owned(),
            lane: Some(lane),
            ca: ca.map(str::to_owned),
            token_url: token_url.map(str::to_owned),
            ..Template::default()
        };
        let found = parse(&open.text()).expect_err("limits are blank");
        assert_eq!(found.iter().count(), 4, "{found}");
        let whole = Template {
            migration_buffer: Some("100ms".to_owned()),
            storm_target: Some("30s".to_owned()),
            fallback_threshold: Some("1%".to_owned()),
            rollback_slo: Some("5m".to_owned()),
            dial: Some("127.0.0.1:1".to_owned()),
            token_authorization: token_url.map(|_| "Bearer ${SESSION}".to_owned()),
            ..open
        };
        let target = good(&whole.text());
        assert_eq!(target.lanes[&lane].dial, "127.0.0.1:1");
        if let TokenSupply::Http(endpoint) = &target.tokens {
            let named: Vec<_> = endpoint.headers.iter().map(|(name, _)| name).collect();
            assert_eq!(named, ["authorization", "content-type"]);
            let trusted = endpoint.tls.as_ref().map(|tls| tls.ca_pem.is_some());
            assert_eq!(trusted, Some(true), "the lane's authority");
        }
    }
}

#[test]
fn a_target_file_is_told_by_its_lanes() {
    assert!(target::is_target(&source(GOOD)));
    assert!(!target::is_target(&source(SCENARIO)));
    assert!(!target::is_target(&source("lanes: [")));
}

#[test]
fn the_schema_file_of_targets_is_current_and_agrees_with_the_parser() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target-schema.json");
    crate::library::current(&path, &target::schema());
    let validator = jsonschema::validator_for(&target::schema()).expect("a schema");
    let instance = |text: &str| serde_yaml::from_str::<serde_json::Value>(text).expect("YAML");
    let errors: Vec<_> = validator
        .iter_errors(&instance(GOOD))
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    for (from, to) in [
        ("    dial:", "    dail:"),
        ("skew: 30s", "skew: 30"),
        ("  world: open\n", ""),
        ("  storm_target: 30s\n", ""),
        ("within 500ms", "maybe"),
        ("count: 6", "count: six"),
    ] {
        let text = with(from, to);
        assert!(
            parse(&text).is_err() && !validator.is_valid(&instance(&text)),
            "{to}"
        );
    }
}

#[test]
fn the_page_about_targets_has_examples_that_are_valid_and_explains_every_field() {
    let page = docs("targets.md");
    let examples: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("its end").0)
        .collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        good(example);
    }
    let schema = target::schema();
    let types = schema["$defs"].as_object().expect("types").iter();
    let known = types.filter(|(name, _)| name.as_str() != "ProfileChanges");
    for (name, definition) in known.chain([(&"TargetFile".to_owned(), &schema)]) {
        for field in definition["properties"].as_object().into_iter().flatten() {
            let field = field.0;
            let said = [
                format!("`{field}`"),
                format!("`{field}:"),
                format!("{field}:"),
            ];
            assert!(
                said.iter().any(|said| page.contains(said)),
                "{name}.{field}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn no_damaged_target_panics(
        at in any::<prop::sample::Index>(),
        cut in 0_usize..12,
        piece in prop::sample::select(vec![
            "", " ", "\n", ":", "- ", "{", "}", "[", "]", "&a ", "*a", "\"", "'", "|", "0", "-1", "5s", "%", "null", "~",
            "${", "${GATEWAY}", "{identity", "://", "@", "é", "\t", "[::1]:", "files: [",
        ]),
    ) {
        let chars: Vec<char> = GOOD.chars().collect();
        let at = at.index(chars.len());
        let text: String = chars[..at].iter().copied()
            .chain(piece.chars())
            .chain(chars.iter().skip(at + cut).copied())
            .collect();
        if let Err(found) = parse(&text) {
            let shown = found.to_string();
            prop_assert!(shown.contains("test.yaml:") && !shown.contains("hush"), "{}", shown);
        }
    }

    #[test]
    fn no_text_in_a_field_panics(text in "\\PC{0,40}") {
        let quoted = serde_json::Value::from(text.as_str()).to_string();
        for from in ["wss://sync.example.com/staging/", "127.0.0.1:8443", "ca.pem", "\"${PUBLISH}\"", "within 500ms"] {
            let _ = parse(&with(from, &quoted));
        }
    }
}

/// With streams that a khala lane can carry.
fn with_topics(text: &str) -> String {
    text.replace("run.{n}.events", "runtime.run.{n}.events")
        .replace("canary.acme", "runtime.run.acme.events")
        .replace("canary.rival", "runtime.run.rival.events")
}

#[test]
fn a_stream_that_no_topic_leads_to_is_refused_where_there_is_a_khala_lane() {
    let khala = "lanes:\n  khala: { url: wss://a, clean_up: none }\n";
    let both = with_topics(&GOOD.replacen("lanes:\n", khala, 1));
    parse(&both).expect("all have topics");
    let told = |from: &str, to: &str, place: &str| {
        assert!(both.contains(from), "{from}");
        let text = both.replacen(from, to, 1);
        let shown = parse(&text).expect_err(to).to_string();
        assert!(
            shown.contains("no topic of the khala lane leads to the stream")
                && shown.contains(place)
                && shown.contains("runtime.worker.ID.lifecycle"),
            "{shown}"
        );
        assert_eq!(shown.matches("error: ").count(), 1, "{shown}");
    };
    told(
        "\"runtime.run.{n}.events\"",
        "\"run.{n}.events\"",
        "`run.1.events`",
    );
    told(
        "runtime.run.{n}.events",
        "runtime.run. {n}.events",
        "`runtime.run. 1.events`",
    );
    told(
        "runtime.run.{n}.events",
        "runtime.run.a:{n}.events",
        "`runtime.run.a:1.events`",
    );
    told(
        "runtime.run.rival.events",
        "runtime.run.ca",
        "`runtime.run.ca`",
    );
    told(
        "promise:\n",
        "probes: { stale: { stream: old, retention: 20, replay_budget: 10 } }\npromise:\n",
        "`old`",
    );
    let list = "[runtime.run.1.events, elsewhere]";
    told(
        "{ pattern: \"runtime.run.{n}.events\", count: 6 }",
        list,
        "`elsewhere`",
    );
}
