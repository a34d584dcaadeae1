//! Which setting of a target file is to blame for a door that is shut, and what to do about it.

use host::tls::{self, Trouble};
use lanes::preflight::{Door, Shut};
use model::ids::{Lane, StreamId};
use model::target::TokenSupply;
use results::redact::Masker;
use scenarios::Source;
use scenarios::target::{self, Target};

/// The setting that is to blame for a door that is shut, and what to do about it. Servers repeat what they are sent.
pub(super) fn blame(
    source: &Source,
    target: &Target,
    masker: &Masker,
    lane: Lane,
    shut: &Shut,
) -> scenarios::Diagnostics {
    let (path, hint) = remedy(target, lane, shut);
    let at: Vec<&str> = path.iter().map(String::as_str).collect();
    let of = shut.further.as_ref();
    let of = of.map_or(String::new(), |stream| format!(" ({stream})"));
    target::blame(
        source,
        &at,
        masker.mask(&format!("{}{of}: {shut}", tried(lane, shut.door))),
        hint,
    )
}

fn tried(lane: Lane, door: Door) -> String {
    match door {
        Door::Settings => format!("the {lane} lane's settings cannot be used"),
        Door::Connection => format!("the {lane} lane is not reached"),
        Door::Tls => format!("TLS with the {lane} lane fails"),
        Door::Head => "a stream's head cannot be read".to_owned(),
        Door::Append => "an append is not taken".to_owned(),
        Door::CleanUp => "events are not removed".to_owned(),
        Door::Token => "there is no token".to_owned(),
        Door::Upgrade => format!("the {lane} lane lets no client in"),
        Door::Subscription => "the streams cannot be subscribed to".to_owned(),
    }
}

fn of_lane(lane: Lane, keys: &[&str]) -> Vec<String> {
    let mut path = vec!["lanes".to_owned(), lane.name().to_owned()];
    path.extend(keys.iter().map(|key| (*key).to_owned()));
    path
}

fn remedy(target: &Target, lane: Lane, shut: &Shut) -> (Vec<String>, &'static str) {
    let of_lane = |keys: &[&str]| of_lane(lane, keys);
    if let Some(stream) = &shut.further {
        return further_remedy(target, stream);
    }
    let unauthorized = matches!(shut.status, Some(401 | 403));
    match (shut.door, shut.status) {
        (Door::Settings, _) => (
            of_lane(&["url"]),
            "correct the URL, the headers or the certificates of this lane",
        ),
        (Door::Connection, _) => (
            of_lane(&[dialled(target, lane)]),
            "see that it listens there; `dial` says where to connect when that is not the URL's own host and port",
        ),
        (Door::Tls, _) => {
            let (at, hint) = tls_remedy(target, lane, &shut.reason);
            (of_lane(at), hint)
        }
        (Door::Head | Door::Append | Door::Upgrade | Door::Subscription, _)
            if is_of_streams(&shut.reason) =>
        {
            (
                vec!["streams".to_owned()],
                "name streams that exist or may be made, and for which the tokens are granted",
            )
        }
        (Door::Head | Door::Append | Door::CleanUp, _) => publisher_remedy(target, lane, shut),
        (Door::Token, status) => token_remedy(target, status, &shut.reason),
        (Door::Upgrade, Some(404)) => (
            of_lane(&["url"]),
            "what stands before the lane's own path belongs into the URL: wss://HOST/prefix",
        ),
        (Door::Upgrade, Some(400)) if lane == Lane::Spacetime => (
            of_lane(&["wire"]),
            "choose the subprotocol that the server speaks: wire: json, or bsatn",
        ),
        (Door::Upgrade, _) if shut.reason.contains("origin") => (
            of_lane(&["url"]),
            "clients say the URL's host as Origin: put it on the service's list of allowed origins, or write the host \
             that is on it",
        ),
        (Door::Upgrade | Door::Subscription, _) if shut.reason.contains("missing_scope") => (
            vec!["tokens".to_owned(), "http".to_owned(), "body".to_owned()],
            "the tokens lack a scope: ask for it where the endpoint expects it, {scopes} stands for the list",
        ),
        (Door::Upgrade, _) if unauthorized => (
            vec!["tokens".to_owned()],
            "the lane has to trust whoever issues these tokens: issuer, keys, audience, and both clocks",
        ),
        (Door::Upgrade, _) => (of_lane(&["url"]), "see the lane's own log for its reason"),
        (Door::Subscription, _) => (
            vec!["streams".to_owned()],
            "name streams that exist or may be made, and for which the tokens are granted",
        ),
    }
}

/// What of the publishers' calls is to blame.
fn publisher_remedy(target: &Target, lane: Lane, shut: &Shut) -> (Vec<String>, &'static str) {
    let of_lane = |keys: &[&str]| of_lane(lane, keys);
    let unauthorized = matches!(shut.status, Some(401 | 403));
    match (shut.door, shut.status) {
        (Door::Head | Door::Append, _) if unauthorized => (
            of_lane(&["publish", "secret"]),
            "write what publishers present as bearer: secret: \"${NAME}\"",
        ),
        // So a real SpacetimeDB says that whoever asks is not the database's owner, with 400.
        (Door::CleanUp, _) if unauthorized || shut.reason.contains("owners") => (
            of_lane(&["publish", "secret"]),
            "events are removed with the publishers' secret: write one that may, the database's owner's for `sql`, or \
             choose another clean_up",
        ),
        (Door::CleanUp, _) => (
            of_lane(&["clean_up"]),
            "name what removes events by their keys, and succeeds where there are none; docs/targets.md says what the \
             call looks like",
        ),
        (Door::Head, Some(404)) if lane == Lane::Khala => (
            of_lane(if states_head(target, lane) {
                &["publish", "head"]
            } else {
                &["url"]
            }),
            "the URL says what stands before all paths: wss://HOST/prefix; publish.head is the path below it of the \
             call that tells a stream's head",
        ),
        (Door::Append, Some(404)) if lane == Lane::Khala => (
            of_lane(&["publish", "path"]),
            "publish.path is the path, below the URL's, of the call that appends an event",
        ),
        (Door::Head, Some(404)) => (
            of_lane(&["database"]),
            "name the database as it was published, and in `url` what stands before /v1/database",
        ),
        (Door::Head, _) if lane == Lane::Spacetime => (
            of_lane(&["heads"]),
            "name the table of heads and its columns as the module defines them",
        ),
        (Door::Append, Some(404)) => (
            of_lane(&["publish", "reducer"]),
            "name the reducer as the module defines it",
        ),
        (Door::Append, _) if lane == Lane::Spacetime => (
            of_lane(&["publish", "arguments"]),
            "name the reducer's arguments in the order of its definition",
        ),
        _ => (
            of_lane(&["publish"]),
            "docs/targets.md says what a publisher's calls look like",
        ),
    }
}

/// What is open for the drill's own streams and shut for this one is the stream's own matter.
fn further_remedy(target: &Target, stream: &StreamId) -> (Vec<String>, &'static str) {
    let of = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    let stale = target.probes.stale.as_ref();
    if stale.is_some_and(|stale| stale.stream == *stream) {
        return (
            of(&["probes", "stale", "stream"]),
            "name a stream that exists or may be made, and for which the drill's own tokens are granted",
        );
    }
    let place = target
        .tenants
        .iter()
        .position(|tenant| tenant.stream == *stream);
    let place = place.unwrap_or_default().to_string();
    (
        of(&["tenants", &place, "stream"]),
        "name a stream that exists or may be made, of an organisation for which tokens are issued that open it",
    )
}

/// By the codes of the contract, which say that it is about the streams that were named.
fn is_of_streams(reason: &str) -> bool {
    ["_topic", "_stream", "bad_subscription"]
        .iter()
        .any(|code| reason.contains(code))
}

/// Where the address that was dialled stands.
fn dialled(target: &Target, lane: Lane) -> &'static str {
    let endpoint = target.lanes.get(&lane);
    if endpoint.is_some_and(|endpoint| endpoint.dial_is_stated) {
        "dial"
    } else {
        "url"
    }
}

fn states_head(target: &Target, lane: Lane) -> bool {
    let endpoint = target.lanes.get(&lane);
    endpoint.is_some_and(|endpoint| endpoint.head_path.is_some())
}

/// Which of a lane's settings decides about what TLS fails for. One that the file does not have is looked for in the
/// nearest that it has.
fn tls_remedy(
    target: &Target,
    lane: Lane,
    reason: &str,
) -> (&'static [&'static str], &'static str) {
    let tls = target.lanes.get(&lane).and_then(|lane| lane.tls.as_ref());
    let dialled: &[&str] = match dialled(target, lane) {
        "dial" => &["dial"],
        _ => &["url"],
    };
    match tls::trouble(reason) {
        Some(Trouble::Authority) if tls.is_some_and(|tls| tls.ca_pem.is_some()) => (
            &["tls", "ca"],
            "name the file with the certificate of the authority that issued the lane's",
        ),
        Some(Trouble::Authority) => (
            &["url"],
            "tls: { ca: FILE } names a private authority; the system's are trusted where nothing is said",
        ),
        Some(Trouble::Name) => (
            &["url"],
            "the URL's host is what the certificate has to bear; `dial` says where else to connect",
        ),
        Some(Trouble::Identity) => (
            &["tls", "certificate"],
            "tls: { certificate: FILE, key: FILE } is what the client shows",
        ),
        Some(Trouble::Time) => (
            dialled,
            "see that the service has its new certificate loaded, and that this is its address",
        ),
        Some(Trouble::Plain) | None => (
            dialled,
            "see that it speaks TLS there; a URL with ws:// speaks none, and is for loopback only",
        ),
    }
}

fn token_remedy(target: &Target, status: Option<u16>, reason: &str) -> (Vec<String>, &'static str) {
    let of = |keys: &[&str]| {
        let mut path = vec!["tokens".to_owned()];
        path.extend(keys.iter().map(|key| (*key).to_owned()));
        path
    };
    match &target.tokens {
        TokenSupply::Service(_) => (
            of(&["service"]),
            "see that the token service runs, with this session secret and these tenants",
        ),
        TokenSupply::Http(http) if reason.contains(&format!("`{}`", http.token_field)) => (
            of(&["http", "token_field"]),
            "name the field that holds the token, keys joined by dots",
        ),
        TokenSupply::Http(_) if status == Some(401) => (
            of(&["http", "headers", "authorization"]),
            "give the endpoint the credential that it asks for: authorization: \"Bearer ${NAME}\"",
        ),
        TokenSupply::Http(_) if status == Some(403) => (
            vec!["streams".to_owned()],
            "name streams for which this credential may have tokens, or give tokens.http.headers another credential",
        ),
        TokenSupply::Http(_) if tls::trouble(reason) == Some(Trouble::Authority) => (
            of(&["http", "ca"]),
            "name the file with the certificate of the authority that issued the endpoint's",
        ),
        TokenSupply::Http(_) if matches!(status, Some(400 | 422)) => (
            of(&["http", "body"]),
            "write the body as the endpoint wants it, with its placeholders",
        ),
        TokenSupply::Http(_) => (
            of(&["http", "url"]),
            "correct the endpoint's URL, its `method` or its `ca`",
        ),
        TokenSupply::Command(_) => (
            of(&["command"]),
            "the agent's own configuration has to name a command so, which prints one token",
        ),
        TokenSupply::Files(_) => (of(&["files"]), "a file holds one token that is still good"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::target::check;

    const TARGET: &str = r#"name: own
lanes:
  spacetime: { url: "ws://127.0.0.1:3000", clean_up: sql, publish: { secret: "not-the-owners" } }
tokens: { service: {} }
streams: [runtime.run.1.events]
tenants: [{ name: acme, stream: runtime.run.2.events }, { name: rival, stream: runtime.run.3.events }]
promise: { expiry_enforcement: at_connect, skew: 60s, acknowledged: within 500ms, world: open, authorization: none }
limits: { migration_buffer: 100ms, storm_target: 30s, fallback_threshold: 1%, rollback_slo: 5m }
"#;

    #[test]
    fn who_may_not_remove_and_whose_stream_is_shut_is_told_from_what_is_misnamed() {
        let source = Source {
            name: "target.yaml".to_owned(),
            text: TARGET.to_owned(),
        };
        let target = check(&source).expect("it is sound");
        let at = |door, further: Option<&str>, status, reason: &str| {
            let shut = Shut {
                door,
                further: further.map(str::to_owned),
                status: Some(status),
                reason: reason.to_owned(),
            };
            remedy(&target, Lane::Spacetime, &shut).0.join(".")
        };
        let owners = "Only owners are authorized to run SQL DML statements";
        for (status, reason, blamed) in [
            (400, owners, "lanes.spacetime.publish.secret"),
            (401, "", "lanes.spacetime.publish.secret"),
            (400, "no such table", "lanes.spacetime.clean_up"),
        ] {
            assert_eq!(at(Door::CleanUp, None, status, reason), blamed);
        }
        let rivals = Some("runtime.run.3.events");
        assert_eq!(at(Door::Token, rivals, 403, ""), "tenants.1.stream");
        assert_eq!(at(Door::Token, None, 403, ""), "tokens.service");
    }
}
