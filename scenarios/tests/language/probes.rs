//! External probes: what is refused and where, and what becomes of them in a plan.

use std::fs;

use model::quantity::Span;
use scenarios::plan::{Ask, Rule};
use scenarios::{Settings, Severity, Source};

use crate::support::{GOOD, parse, plan, points_at, settings};

/// The good scenario with a probe of steady state; its first line is line 19, its first column 7.
fn steady(probe: &str) -> String {
    format!("{GOOD}steady:\n  probes:\n    - {probe}\n")
}

/// The good scenario with a probe that aborts; its first line is line 19, its first column 7.
fn abort(probe: &str) -> String {
    format!("{GOOD}abort:\n  probes:\n    - {probe}\n")
}

/// A probe's line is refused at the column of a piece of it, with all the given words.
#[track_caller]
fn wrong(text: &str, at: &str, words: &[&str]) {
    let (place, line) = (1..).zip(text.lines()).last().expect("lines");
    let column = line.find(at).expect("the piece is in the last line");
    let column = line[..column].chars().count() + 1;
    let shown = parse(text).expect_err("it is wrong").to_string();
    points_at(&shown, place, column, words);
}

const HEALTH: &str = r#"{ name: healthz, http: { url: "http://127.0.0.1:9000/healthz", status: 200, contains: ok } }"#;

#[test]
fn probes_of_every_kind_are_planned_as_they_are_written() {
    let text = format!(
        "{GOOD}steady:
  probes:
    - {HEALTH}
    - name: errors
      promql: {{ url: \"https://prom.example.com/base\", query: \"sum(\\n  rate(errors_total[1m]))\", above: -1, below: 1.5 }}
      every: 3s
abort:
  probes:
    - {{ name: queue, command: {{ run: queue-depth }}, every: 500ms, within: 400ms, lasting: 2s, always: true }}
    - {{ name: healthz, http: {{ url: \"http://127.0.0.1:9000/healthz\", contains: ok }}, lasting: 5s }}
"
    );
    let plan = plan(&text, &settings()).unwrap_or_else(|error| panic!("{error}"));
    let times: Vec<_> = plan
        .probes
        .iter()
        .map(|probe| (probe.name.as_str(), probe.every, probe.within, probe.rule))
        .collect();
    let abort = |seconds, always| Rule::Abort {
        lasting: Span::from_secs(seconds),
        always,
    };
    let (second, two) = (Span::from_secs(1), Span::from_secs(2));
    assert_eq!(
        times,
        [
            ("healthz", second, second, Rule::Steady),
            ("errors", Span::from_secs(3), two, Rule::Steady),
            (
                "queue",
                Span::from_millis(500),
                Span::from_millis(400),
                abort(2, true)
            ),
            ("healthz", second, second, abort(5, false)),
        ]
    );
    let Ask::Promql(errors) = &plan.probes[1].ask else {
        panic!("{:?}", plan.probes[1]);
    };
    assert_eq!((errors.above, errors.below), (Some(-1.0), Some(1.5)));
    assert!(plan.abort.is_none(), "probes alone are a rule");

    let words = plan.describe();
    for line in [
        "and all the while healthz: GET http://127.0.0.1:9000/healthz says 200, and a body that contains \"ok\"; asked \
         every 1s, answered within 1s",
        "errors: PromQL sum( rate(errors_total[1m])) at https://prom.example.com/base says above -1 and below 1.5",
        "when for 2s at any time it is not so that queue: command queue-depth says exit 0",
        "when for 5s after the last heal it is not so that healthz",
    ] {
        assert!(words.contains(line), "{line} is not in\n{words}");
    }
}

#[test]
fn a_probe_changes_the_digest_and_no_probe_leaves_it_as_it_was() {
    let without = plan(GOOD, &settings()).expect("a plan");
    let json = serde_json::to_string(&without).expect("JSON");
    assert!(!json.contains("probes\":"), "{json}");
    let with = plan(&steady(HEALTH), &settings()).expect("a plan");
    assert_ne!(with.digest, without.digest);
    let json = serde_json::to_string(&with).expect("JSON");
    let read: scenarios::plan::Plan = serde_json::from_str(&json).expect("a plan");
    assert_eq!(read, with);
    assert_eq!(read.computed_digest(), with.digest);
}

#[test]
fn a_setting_of_the_command_line_reaches_into_a_probe() {
    let set = vec![("steady.probes.0.http.status".to_owned(), "204".to_owned())];
    let settings = Settings { set, ..settings() };
    let plan = plan(&steady(HEALTH), &settings).expect("a plan");
    let Ask::Http(http) = &plan.probes[0].ask else {
        panic!("{:?}", plan.probes[0]);
    };
    assert_eq!(http.status, Some(204));
}

#[test]
fn a_probe_asks_exactly_one_thing() {
    wrong(
        &steady("{ name: a }"),
        "{ name",
        &["`a` asks nothing", "http"],
    );
    wrong(
        &steady(
            "{ name: a, http: { url: 'http://127.0.0.1/', status: 200 }, command: { run: b } }",
        ),
        "command",
        &["`command` is one too many", "`http`"],
    );
    wrong(
        &steady("{ name: a, htpp: {} }"),
        "htpp",
        &["`htpp`", "`http`"],
    );
}

#[test]
fn names_are_plain_and_each_is_used_once_in_a_list() {
    wrong(
        &steady("{ name: Health Z, command: { run: b } }"),
        "Health Z",
        &["`Health Z`", "lower-case"],
    );
    let twice = format!(
        "{}    - {{ name: healthz, command: {{ run: b }} }}\n",
        steady(HEALTH)
    );
    wrong(&twice, "healthz", &["another probe is called `healthz`"]);
    let both = format!(
        "{}abort: {{ probes: [ {{ name: healthz, command: {{ run: b }}, lasting: 2s }} ] }}\n",
        steady(HEALTH)
    );
    parse(&both).unwrap_or_else(|error| panic!("one in each list: {error}"));
}

#[test]
fn urls_are_looked_at_closely() {
    let http = |url: &str| {
        steady(&format!(
            "{{ name: a, http: {{ url: '{url}', status: 200 }} }}"
        ))
    };
    for (url, words) in [
        ("127.0.0.1:9000/healthz", &["no scheme", "http://"][..]),
        ("ftp://127.0.0.1/", &["`ftp`", "https://"]),
        (
            "http://user:pw@127.0.0.1/",
            &["a user or a password", "headers"],
        ),
        ("http://127.0.0.1:99999/", &["`99999` is not a port"]),
        ("http:///x", &["is not a host"]),
        ("http://127.0.0.1/a b", &["white space"]),
        (
            "http://127.0.0.1/x?api_key=12345",
            &["`api_key` in the URL", "${NAME}"],
        ),
        (
            "http://127.0.0.1/x?k=${NAME}",
            &["`k` in the URL", "header"],
        ),
    ] {
        wrong(&http(url), &format!("'{url}'"), words);
    }
    let promql = |url: &str| {
        steady(&format!(
            "{{ name: a, promql: {{ url: '{url}', query: up, above: 0 }} }}"
        ))
    };
    for url in [
        "http://127.0.0.1:9090/api/v1/query",
        "http://127.0.0.1:9090/?query=up",
    ] {
        wrong(
            &promql(url),
            &format!("'{url}'"),
            &["not the server's base URL", "/api/v1"],
        );
    }
}

#[test]
fn what_is_good_has_to_be_said_and_can_be_met() {
    let http = |fields: &str| {
        steady(&format!(
            "{{ name: a, http: {{ url: 'http://127.0.0.1/'{fields} }} }}"
        ))
    };
    wrong(&http(""), "http", &["nothing is said", "status: 200"]);
    wrong(&http(", status: 100"), "100", &["100", "200 to 599"]);
    wrong(&http(", contains: ''"), "''", &["every answer contains"]);
    wrong(&http(", status: ok"), "ok", &["`ok`", "a whole number"]);

    let promql = |fields: &str| {
        steady(&format!(
            "{{ name: a, promql: {{ url: 'http://127.0.0.1/', {fields} }} }}"
        ))
    };
    wrong(
        &promql("query: ' ', below: 1"),
        "' '",
        &["the query is empty"],
    );
    wrong(
        &promql("query: up"),
        "promql",
        &["which number is good", "below: 1"],
    );
    wrong(
        &promql("query: up, above: 2, below: 1"),
        "2, below",
        &["above 2 and below 1"],
    );
    wrong(&promql("below: 1"), "promql", &["`query` is missing"]);

    let command = |run: &str| steady(&format!("{{ name: a, command: {{ run: '{run}' }} }}"));
    for run in ["/usr/bin/queue", "queue --json", ""] {
        wrong(
            &command(run),
            &format!("'{run}'"),
            &["not a command's name", "no path, no arguments"],
        );
    }
}

#[test]
fn times_have_to_fit_each_other() {
    let asked = |fields: &str| steady(&format!("{{ name: a, command: {{ run: b }}, {fields} }}"));
    wrong(
        &asked("every: 10ms"),
        "10ms",
        &["every 10ms", "at least 100ms"],
    );
    wrong(
        &asked("within: 2s"),
        "2s",
        &["`within` (2s) is longer than `every` (1s)", "raise `every`"],
    );
    wrong(
        &asked("within: 1ms"),
        "1ms",
        &["within 1ms", "at least 10ms"],
    );
    wrong(
        &asked("every: 4s"),
        "4s",
        &["longer than the steady window (3s)", "steady.window"],
    );
    let lasting = |fields: &str| abort(&format!("{{ name: a, command: {{ run: b }}, {fields} }}"));
    wrong(
        &lasting("lasting: 500ms"),
        "500ms",
        &["`lasting` (500ms)", "two failures"],
    );
    wrong(&lasting("every: 2s"), "{ name", &["`lasting` is missing"]);
    wrong(
        &asked("lasting: 2s"),
        "lasting",
        &["unknown field `lasting`"],
    );
    let late = parse(&lasting("lasting: 30s")).unwrap_or_else(|error| panic!("{error}"));
    let [warning] = &late.warnings[..] else {
        panic!("{:?}", late.warnings);
    };
    assert_eq!(warning.severity, Severity::Warning);
    assert!(warning.to_string().contains("cannot fire"), "{warning}");
    let always = parse(&lasting("lasting: 30s, always: true")).expect("it can fire");
    assert!(always.warnings.is_empty(), "{:?}", always.warnings);
}

#[test]
fn probes_that_nothing_judges_after_the_faults_are_warned_of() {
    let text = steady(HEALTH);
    let checked = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let [warning] = &checked.warnings[..] else {
        panic!("{:?}", checked.warnings);
    };
    let shown = warning.to_string();
    points_at(&shown, 18, 3, &["nothing judges", "time_to_steady"]);
    for judged in [
        text.replace("bounds:\n", "bounds:\n  time_to_steady: 10s\n"),
        format!(
            "{text}abort: {{ probes: [ {{ name: a, command: {{ run: b }}, lasting: 2s }} ] }}\n"
        ),
    ] {
        let checked = parse(&judged).unwrap_or_else(|error| panic!("{error}"));
        assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    }
}

#[test]
fn an_abort_rule_says_when_and_for_how_long() {
    let rule = |rule: &str| format!("{GOOD}abort: {rule}\n");
    wrong(&rule("{}"), "abort", &["nothing is said of when"]);
    wrong(
        &rule("{ probes: [] }"),
        "abort",
        &["nothing is said of when"],
    );
    wrong(
        &rule("{ connected_below: 10% }"),
        "abort",
        &["`lasting` is missing"],
    );
    wrong(
        &rule("{ lasting: 5s }"),
        "lasting",
        &["`connected_below` is missing"],
    );
}

#[test]
fn a_secret_is_named_and_never_written() {
    let with = |value: &str| {
        steady(&format!(
            "{{ name: a, http: {{ url: 'http://127.0.0.1/', status: 200, headers: {{ authorization: '{value}' }} }} }}"
        ))
    };
    let text = with("Bearer 3d1c7a");
    let shown = parse(&text)
        .expect_err("a secret in clear text")
        .to_string();
    points_at(&shown, 19, 91, &["`authorization`", "${NAME}", "evidence"]);
    assert!(!shown.contains("3d1c7a"), "{shown}");
    wrong(
        &with("Bearer ${FAULTLANE_IS_NOT_SET}"),
        "'Bearer",
        &["`FAULTLANE_IS_NOT_SET` is not set", "export"],
    );
    wrong(&with("Bearer ${PATH"), "'Bearer", &["not closed"]);
    let host = steady(
        "{ name: a, http: { url: 'http://127.0.0.1/', status: 200, headers: { Host: x.example.com } } }",
    );
    wrong(&host, "Host", &["set by faultlane itself"]);

    // Set on every host that runs tests.
    let held = std::env::var("PATH").expect("a PATH");
    let plan = plan(&with("Bearer ${PATH}"), &settings()).unwrap_or_else(|error| panic!("{error}"));
    let json = serde_json::to_string(&plan).expect("JSON");
    assert!(json.contains("${PATH}") && !json.contains(&held), "{json}");
    assert!(!plan.describe().contains(&held));
    let Ask::Http(http) = &plan.probes[0].ask else {
        panic!("{:?}", plan.probes[0]);
    };
    let variable = |name: &str| (name == "PATH").then(|| "the secret".to_owned());
    let reachable = http
        .web
        .reach(&variable)
        .unwrap_or_else(|error| panic!("{error}"));
    let header = ("authorization".to_owned(), "Bearer the secret".to_owned());
    assert_eq!(reachable.headers, [header]);
    let gone = http.web.reach(&|_| None).err().expect("it is gone");
    assert!(gone.contains("`PATH` is not set"), "{gone}");
}

#[test]
fn a_secret_in_plain_text_over_a_network_is_warned_of() {
    let text = abort(
        "{ name: a, http: { url: 'http://staging.example.com/', status: 200, headers: { x-key: '${PATH}' } }, lasting: 2s }",
    );
    let checked = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let [warning] = &checked.warnings[..] else {
        panic!("{:?}", checked.warnings);
    };
    let warning = warning.to_string();
    assert!(
        warning.contains("staging.example.com in plain text"),
        "{warning}"
    );
}

#[test]
fn an_authority_is_read_from_the_scenarios_folder_and_is_no_key() {
    let ca = |url: &str, ca: &str| {
        steady(&format!(
            "{{ name: a, http: {{ url: '{url}', status: 200, ca: {ca} }} }}"
        ))
    };
    let https = "https://127.0.0.1/";
    wrong(
        &ca("http://127.0.0.1/", "ca.pem"),
        "ca.pem",
        &["`ca` has no use", "https://"],
    );
    wrong(
        &ca(https, "absent.pem"),
        "absent.pem",
        &["`absent.pem` cannot be read", "folder"],
    );
    // Tests run in the crate's folder, where the text's file is said to be.
    wrong(
        &ca(https, "tests/fixtures/client.key"),
        "tests/fixtures/client.key",
        &["holds a private key", "evidence"],
    );
    wrong(
        &ca(https, "Cargo.toml"),
        "Cargo.toml",
        &["holds no certificate", "BEGIN CERTIFICATE"],
    );

    let source = Source {
        name: "tests/fixtures/scenario.yaml".to_owned(),
        text: ca(https, "ca.pem"),
    };
    let checked = scenarios::parse(&source).unwrap_or_else(|error| panic!("{error}"));
    let plan = scenarios::plan(&checked.scenario, &source, &settings()).expect("a plan");
    let Ask::Http(http) = &plan.probes[0].ask else {
        panic!("{:?}", plan.probes[0]);
    };
    let pem = fs::read_to_string("tests/fixtures/ca.pem").expect("the fixture");
    assert_eq!(http.web.ca_pem.as_deref(), Some(pem.as_str()));
}

#[test]
fn a_list_of_probes_has_its_limit() {
    let probe = |n: u32| format!("    - {{ name: p{n}, command: {{ run: b }} }}\n");
    let probes: Vec<String> = (0..33).map(probe).collect();
    let probes = probes.concat();
    let text = format!("{GOOD}steady:\n  probes:\n{probes}");
    wrong(&text, "{ name", &["33 probes are more than 32"]);
}
