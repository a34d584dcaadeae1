//! What can be wrong in a target file, each with its place and a remedy: what the file itself shows, and what only the
//! service can show.

use std::time::{Duration, SystemTime};

use host::tls::Authority;
use tokio::net::TcpSocket;

use super::{HOST, Own, with_certificate};
use crate::service::Service;

/// One thing that is wrong in the target file, and how that is told.
struct Mistake {
    /// What is replaced, and by what.
    change: (&'static str, &'static str),
    /// What the message points at, as it stands in the changed file.
    blamed: &'static str,
    /// 2: the file says so by itself; 4: the service had to be asked.
    code: i32,
    /// What is told, the remedy last.
    says: &'static [&'static str],
}

impl Mistake {
    /// Makes it, and says how what a command says of it differs from what is to be told.
    fn untold(&self, own: &Own, command: &str, places: &[(&str, String)]) -> Option<String> {
        let filled = |text: &str| {
            let fill = |text: String, (name, addr): &(&str, String)| text.replace(name, addr);
            places.iter().fold(text.to_owned(), fill)
        };
        let changed = own.with(&filled(self.change.0), &filled(self.change.1));
        let finished = own.run(&changed, &[command, "target.yaml"]);
        let at = changed
            .find(&filled(self.blamed))
            .expect("what is blamed is there");
        let before = &changed[..at];
        let line = before.matches('\n').count() + 1;
        let column = at - before.rfind('\n').map_or(0, |end| end + 1) + 1;
        let place = format!("target.yaml:{line}:{column}\n");
        let words = self.says.iter().copied().chain([&*place, "= hint: "]);
        let missing: Vec<&str> = words
            .filter(|words| !finished.stderr.contains(words))
            .collect();
        let code = finished.status.code();
        (!missing.is_empty() || code != Some(self.code)).then(|| {
            format!(
                "{:?} → {:?}: exit {code:?}, without {missing:?}:\n{}",
                self.change.0, self.change.1, finished.stderr
            )
        })
    }
}

/// What nobody has to be asked for.
const IN_THE_FILE: [Mistake; 12] = [
    Mistake {
        change: ("    dial: ", "    dail: "),
        blamed: "dail",
        code: 2,
        says: &["unknown", "did you mean `dial`?"],
    },
    Mistake {
        change: ("url: wss://sync", "url: sync"),
        blamed: "sync.example.com/eu",
        code: 2,
        says: &["the URL has no scheme", "wss://"],
    },
    Mistake {
        change: ("url: wss://sync", "url: ws://sync"),
        blamed: "tls: {",
        code: 2,
        says: &["`tls` has no use", "begin the URL with wss://"],
    },
    Mistake {
        change: ("tls: { ca: ca.pem }", "tls: { ca: authority.pem }"),
        blamed: "authority.pem",
        code: 2,
        says: &["`authority.pem` cannot be read"],
    },
    Mistake {
        change: ("tls: { ca: ca.pem }", "tls: { ca: target.yaml }"),
        blamed: "target.yaml",
        code: 2,
        says: &["holds no certificate", "it is a PEM file with"],
    },
    Mistake {
        change: ("path: /internal", "path: internal"),
        blamed: "internal/sync/append",
        code: 2,
        says: &["is not a path", "begin it with /"],
    },
    Mistake {
        change: ("\"${PUBLISH_SECRET}\"", "\"${PUBLISH_SECRT}\""),
        blamed: "\"${PUBLISH_SECRT}\"",
        code: 2,
        says: &["PUBLISH_SECRT", "export"],
    },
    Mistake {
        change: ("{identity}", "{identiy}"),
        blamed: "'{\"scopes\"",
        code: 2,
        says: &[
            "`{identiy}` is not a placeholder",
            "did you mean `identity`?",
        ],
    },
    Mistake {
        change: ("token_field: data.token", "token_field: data..token"),
        blamed: "data..token",
        code: 2,
        says: &["names no field of an answer", "data.token"],
    },
    Mistake {
        change: ("  skew: 30s\n", ""),
        blamed: "promise:",
        code: 2,
        says: &["`promise.skew` is missing"],
    },
    Mistake {
        change: ("  storm_target: 30s\n", ""),
        blamed: "limits:",
        code: 2,
        says: &["`limits.storm_target` is missing", "there is no default"],
    },
    Mistake {
        change: ("rollback_slo: 5m", "rollback_slo: fast"),
        blamed: "fast",
        code: 2,
        says: &["`fast` is not a duration", "write a number and a unit"],
    },
];

#[test]
fn what_the_file_itself_gets_wrong_is_told_without_asking_anybody() {
    let Some(own) = Own::start("what_the_file_itself_gets_wrong_is_told_without_asking_anybody")
    else {
        return;
    };
    let good = own.target();
    own.run(&good, &["check", "target.yaml"])
        .expect_code(0)
        .says("target.yaml: ok");
    let untold: Vec<String> = IN_THE_FILE
        .iter()
        .filter_map(|mistake| mistake.untold(&own, "check", &[]))
        .collect();
    assert!(untold.is_empty(), "{}", untold.join("\n"));
}

/// What has to be asked for. `{name}` is an address: see the test.
const AT_THE_SERVICE: [Mistake; 22] = [
    Mistake {
        change: ("tls: { ca: ca.pem }", "tls: { ca: stranger.pem }"),
        blamed: "stranger.pem",
        code: 4,
        says: &["authority"],
    },
    Mistake {
        change: ("dial: {addr}", "dial: {other}"),
        blamed: "wss://",
        code: 4,
        says: &["sync.example.com", "elsewhere.example.test"],
    },
    Mistake {
        change: ("dial: {addr}", "dial: {expired}"),
        blamed: "{expired}",
        code: 4,
        says: &["expired"],
    },
    Mistake {
        change: ("dial: {addr}", "dial: {plain}"),
        blamed: "{plain}",
        code: 4,
        says: &["TLS"],
    },
    Mistake {
        change: ("dial: {addr}", "dial: {nobody}"),
        blamed: "{nobody}",
        code: 4,
        says: &["refused"],
    },
    Mistake {
        change: ("dial: {addr}", "dial: sync.example.invalid:443"),
        blamed: "sync.example.invalid:443",
        code: 4,
        says: &["sync.example.invalid"],
    },
    Mistake {
        change: ("wss://sync.example.com", "wss://localhost"),
        blamed: "wss://",
        code: 4,
        says: &["origin_not_allowed", "allowed origins"],
    },
    Mistake {
        change: ("com/eu", "com/us"),
        blamed: "wss://",
        code: 4,
        says: &["404"],
    },
    Mistake {
        change: ("publish:\n", "publish:\n      head: /internal/head\n"),
        blamed: "/internal/head",
        code: 4,
        says: &["404", "publish.head is the path"],
    },
    Mistake {
        change: ("sync/append", "sync/publish"),
        blamed: "/internal/sync/publish",
        code: 4,
        says: &["404"],
    },
    Mistake {
        change: ("${PUBLISH_SECRET}", "${SYNC_SESSION}"),
        blamed: "\"${SYNC_SESSION}\"",
        code: 4,
        says: &["401", "unauthorized"],
    },
    Mistake {
        change: ("Bearer ${SYNC_SESSION}", "Bearer ${PUBLISH_SECRET}"),
        blamed: "\"Bearer ${PUBLISH_SECRET}\"",
        code: 4,
        says: &["401", "unauthorized"],
    },
    Mistake {
        change: ("api/sync/token", "api/token"),
        blamed: "https://localhost",
        code: 4,
        says: &["404"],
    },
    Mistake {
        change: (
            "https://localhost:{port}",
            "https://localhost:{nobody port}",
        ),
        blamed: "https://localhost",
        code: 4,
        says: &["there is no token", "refused"],
    },
    Mistake {
        change: ("{scopes}", "[\"sync.append\"]"),
        blamed: "'{\"scopes\"",
        code: 4,
        says: &["missing_scope", "{scopes} stands for the list"],
    },
    Mistake {
        change: ("{streams}", "[]"),
        blamed: "streams:\n",
        code: 4,
        says: &["forbidden_topic", "for which the tokens are granted"],
    },
    Mistake {
        change: ("token_field: data.token", "token_field: data.jwt"),
        blamed: "data.jwt",
        code: 4,
        says: &["data.jwt"],
    },
    Mistake {
        change: ("drill-{n}", "another-{n}"),
        blamed: "streams:\n",
        code: 4,
        says: &["403", "forbidden_stream"],
    },
    Mistake {
        change: (
            "tokens:\n",
            "    clean_up: { path: /internal/sync/erase }\ntokens:\n",
        ),
        blamed: "clean_up",
        code: 4,
        says: &["events are not removed: 404"],
    },
    Mistake {
        change: (
            "promise:\n",
            "probes: { stale: { stream: runtime.run.old.events, retention: 50, replay_budget: 20 } }\npromise:\n",
        ),
        blamed: "runtime.run.old.events",
        code: 4,
        says: &["(runtime.run.old.events): 403", "forbidden_stream"],
    },
    Mistake {
        change: (
            "\"device_id\": \"{identity}\"}'\n    token_field: data.token\n    expires_field: data.expires_at\n",
            "\"org\": \"{tenant}\"}'\n    token_field: data.token\n    expires_field: data.expires_at\n\
             tenants: [{ name: acme, stream: runtime.run.drill-1.events }, \
             { name: rival, stream: runtime.run.theirs.events }]\n",
        ),
        blamed: "runtime.run.theirs.events",
        code: 4,
        says: &["(runtime.run.theirs.events): 403", "forbidden_stream"],
    },
    Mistake {
        change: ("\n    ca: ca.pem", "\n    ca: stranger.pem"),
        blamed: "stranger.pem",
        code: 4,
        says: &["authority"],
    },
];

#[test]
fn what_only_the_service_can_show_is_blamed_on_the_line_that_says_it() {
    let Some(own) = Own::start("what_only_the_service_can_show_is_blamed_on_the_line_that_says_it")
    else {
        return;
    };
    own.run(&own.target(), &["preflight", "target.yaml"])
        .expect_code(0);
    own.run(&own.in_an_open_world(), &["preflight", "target.yaml"])
        .expect_code(0)
        .says("the removal of an event that is not there was acknowledged");
    let folder = own.folder.path();
    let stranger = Authority::ephemeral("of nobody").expect("an authority");
    std::fs::write(folder.join("stranger.pem"), stranger.pem()).expect("the file");
    let other = own
        .ca
        .issue(&["elsewhere.example.test"])
        .expect("a certificate");
    let other = with_certificate(folder, "other", &other, &[]);
    let (long_ago, yesterday) = (Duration::from_hours(72), Duration::from_hours(24));
    let now = SystemTime::now();
    let expired = own.ca.issue_for(&[HOST], now - long_ago..now - yesterday);
    let expired = with_certificate(folder, "expired", &expired.expect("a certificate"), &[]);
    let plain = folder.join("plain-data");
    let plain = Service::start(&["--data", plain.to_str().expect("UTF-8"), "--prefix", "/eu"]);
    // Bound, and nobody listens there.
    let held = TcpSocket::new_v4().expect("a socket");
    held.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let nobody = held.local_addr().expect("it is bound");
    let places = [
        ("{addr}", own.service.addr.to_string()),
        ("{other}", other.addr.to_string()),
        ("{expired}", expired.addr.to_string()),
        ("{plain}", plain.addr.to_string()),
        ("{nobody}", nobody.to_string()),
        ("{nobody port}", nobody.port().to_string()),
        ("{port}", own.service.addr.port().to_string()),
    ];
    let untold: Vec<String> = AT_THE_SERVICE
        .iter()
        .filter_map(|mistake| mistake.untold(&own, "preflight", &places))
        .collect();
    assert!(untold.is_empty(), "{}", untold.join("\n"));
}
