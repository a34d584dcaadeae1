//! The probes against the embedded servers: every cell is answered as it has to be, with its reason, and each defect
//! that opens some of them opens those and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use host::http::Method;
use lanes::lane::Kind;
use lanes::oneshot::Asked;
use lanes::probes::{Probes, Setting};
use lanes::store::Store;
use lanes::token::{PROBE_TOKEN_PATH, REVOKED_PATH, RevokedList, session_credential};
use lanes::token_client::TokenClient;
use model::anomaly::{Anomaly, Findings};
use model::defect::Defect;
use model::event::Origin;
use model::ids::Lane;
use model::probe::{ProbesConfig, Rival, StaleStream};
use model::quantity::Span;
use model::shard::{ProbeTally, ShardConfig, TokenSource};
use model::target::{Access, Authorization, Promise, TokenChecks};

use crate::real;
use crate::support::{OTHER, PATIENCE, RIVAL, SECRET, Target, event};

/// The cells of the matrix, and the boundaries without the one that needs a stream that moves: nobody publishes.
const PROBES: usize = 79 + 9;
const ALL_WITHIN: Duration = Duration::from_secs(30);

type Told = (BTreeMap<String, ProbeTally>, Findings);

/// Has every probe run once at least.
async fn probed(target: &Target, promise: Promise, count: usize) -> Told {
    // Beyond retention (10) and budget (5), so that every boundary is there.
    target.publish(OTHER, 1, 20).await;
    target.publish(RIVAL, 1, 3).await;
    probed_at(target, target.lane.listen, SECRET, promise, count).await
}

/// As [`probed`], of a lane at this address that takes this from publishers.
async fn probed_at(
    target: &Target,
    addr: SocketAddr,
    secret: &str,
    promise: Promise,
    count: usize,
) -> Told {
    let source = TokenSource::service(target.tokens_addr, "session", "org");
    let lane = target.lane.lane;
    let config = ShardConfig {
        ordinal: 0,
        origin: Origin {
            run: "test".to_owned(),
            seed: 7,
            padding: 0,
        },
        lane,
        access: Access::plain(addr, addr),
        promise: promise.clone(),
        tokens: source.clone(),
        profile: target.lane.profile.clone(),
        stream_budgets: BTreeMap::new(),
        clients: None,
        publish: None,
        probes: None,
        defect: target.lane.defect,
    };
    let reach = host::peer::Reach::of(&config.access).expect("plain TCP needs no settings");
    let probes = Probes::new(Setting {
        config: ProbesConfig {
            every: Span::from_millis(300),
            stream: OTHER.to_owned(),
            stale: Some(StaleStream {
                stream: OTHER.to_owned(),
                retention: 10,
                replay_budget: 5,
            }),
            rival: Some(Rival {
                org: "rival".to_owned(),
                stream: RIVAL.to_owned(),
            }),
            operations: None,
            expect: BTreeMap::new(),
        },
        asked: Asked {
            peer: Arc::clone(&reach.direct),
            kind: Kind::of(lane),
            access: Arc::new(config.access.clone()),
            within: PATIENCE,
        },
        store: Store::new(lane, &config.access, reach.direct, secret),
        tokens: TokenClient::new(&source, lane, Span::from_secs(5)).expect("no TLS"),
        source,
        promise,
        defect: target.lane.defect,
    });
    let running = tokio::spawn(Arc::clone(&probes).run());
    let began = tokio::time::Instant::now();
    let told = loop {
        let (tallies, findings) = probes.read();
        let answered = tallies.iter().filter(|tally| !tally.answers.is_empty());
        if answered.count() >= count {
            break (tallies, findings);
        }
        let names: Vec<&str> = tallies.iter().map(|tally| tally.probe.as_str()).collect();
        assert!(
            began.elapsed() < ALL_WITHIN,
            "{} of {count}: {names:?}",
            names.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    running.abort();
    let by_name = told.0.into_iter().map(|tally| (tally.probe.clone(), tally));
    (by_name.collect(), told.1)
}

/// The probes that were answered otherwise than expected, and how.
fn opened(told: &Told) -> BTreeMap<String, BTreeSet<String>> {
    told.0
        .values()
        .filter_map(|tally| {
            let other = tally
                .answers
                .keys()
                .filter(|answer| **answer != tally.expected);
            let other: BTreeSet<String> = other.cloned().collect();
            (!other.is_empty()).then(|| (tally.probe.clone(), other))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_is_refused_with_its_reason_on_both_lanes() {
    for lane in Lane::ALL {
        let target = Target::start(lane);
        let told = probed(&target, Promise::strict(Span::ZERO), PROBES).await;
        assert_eq!(opened(&told), BTreeMap::new(), "{lane}");
        assert_eq!(told.1.iter().count(), 0, "{lane}");
        let refused = told
            .0
            .values()
            .filter(|tally| tally.expected.starts_with("refused") && tally.met > 0);
        assert!(refused.count() >= 30, "{lane}");
        let counted = target.status().await.refused;
        let stream = match lane {
            Lane::Khala => "forbidden_topic",
            Lane::Spacetime => "forbidden_stream",
        };
        for reason in [
            "missing_token",
            "unknown_kid",
            "missing_kid",
            "invalid_signature",
            "token_expired",
            "token_not_yet_valid",
            "token_too_old",
            "token_revoked",
            "missing_scope",
            stream,
        ] {
            assert!(
                counted.contains_key(reason),
                "{lane}: {reason}: {counted:?}"
            );
        }
        // No probe has written anything.
        let heads = target.status().await.heads;
        assert_eq!((heads[OTHER], heads[RIVAL]), (20, 3), "{lane}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skew_moves_the_boundaries() {
    let skew = Span::from_secs(60);
    let target = Target::with(Lane::Khala, None, |lane, tokens| {
        lane.profile.token_skew = skew;
        tokens.skew = skew;
    });
    let told = probed(&target, Promise::strict(skew), PROBES).await;
    assert_eq!(opened(&told), BTreeMap::new());
    assert!(told.0["within-skew/connect"].met > 0 && told.0["past-skew/connect"].met > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_promises_less_is_held_to_less() {
    let target = Target::with(Lane::Spacetime, None, |lane, _| lane.strict = false);
    let promise = Promise {
        authorization: Authorization::None,
        // `nbf` is looked at whatever the profile.
        token_checks: TokenChecks {
            not_before: true,
            ..TokenChecks::NONE
        },
        ..Promise::strict(Span::from_secs(60))
    };
    // Nothing is below the floor of a lane that keeps everything: neither the boundary nor the rival's short cursor.
    // And what the token service grants does not matter.
    let told = probed(&target, promise, PROBES - 3).await;
    assert_eq!(opened(&told), BTreeMap::new());
    assert_eq!(told.1.count(Anomaly::UnauthorizedSuccess), 0);
}

/// A defect, what it must be called, and which probes it opens, by their names.
type Case = (Defect, Anomaly, fn(&str) -> bool);

async fn opens(lane: Lane, defect: Defect, anomaly: Anomaly, its: fn(&str) -> bool) {
    let target = Target::defective(lane, defect);
    let told = probed(&target, Promise::strict(Span::ZERO), PROBES).await;
    let opened: BTreeSet<String> = opened(&told).into_keys().collect();
    let expected: BTreeSet<String> = told.0.keys().filter(|name| its(name)).cloned().collect();
    assert!(!expected.is_empty());
    assert_eq!(opened, expected, "{defect} on {lane}");
    let found: Vec<Anomaly> = told.1.iter().map(|(anomaly, _)| anomaly).collect();
    assert_eq!(found, [anomaly], "{defect} on {lane}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_defect_opens_its_cells_and_no_others() {
    let cases: [Case; 8] = [
        (
            Defect::AcceptWrongScope,
            Anomaly::UnauthorizedSuccess,
            |name| {
                let wrong = name.split('/').next().unwrap();
                [
                    "wrong-scope",
                    "no-scope",
                    "ungranted",
                    "foreign-tenant",
                    "rival-token",
                ]
                .contains(&wrong)
            },
        ),
        (
            Defect::AcceptAlgNone,
            Anomaly::UnauthorizedSuccess,
            |name| name.starts_with("alg-none/"),
        ),
        (
            Defect::AcceptUnknownKid,
            Anomaly::UnauthorizedSuccess,
            |name| name.starts_with("unknown-kid/") || name.starts_with("retired-key/"),
        ),
        (
            Defect::AcceptForeignAppend,
            Anomaly::UnauthorizedSuccess,
            |name| {
                [
                    "ungranted/append",
                    "foreign-tenant/append",
                    "rival-token/append",
                ]
                .contains(&name)
            },
        ),
        (
            Defect::AcceptRevoked,
            Anomaly::UnauthorizedSuccess,
            |name| name.starts_with("revoked/"),
        ),
        (
            Defect::AcceptNotYetValid,
            Anomaly::UnauthorizedSuccess,
            |name| name.starts_with("not-yet-valid/") || name.starts_with("before-nbf-skew/"),
        ),
        (Defect::AcceptTooOld, Anomaly::UnauthorizedSuccess, |name| {
            name.starts_with("too-old/")
        }),
        (Defect::OffByOneFloor, Anomaly::StaleCursor, |name| {
            name == "cursor/oldest-2"
        }),
    ];
    for some in cases.chunks(2) {
        let running: Vec<_> = some
            .iter()
            .flat_map(|(defect, anomaly, its)| {
                Lane::ALL.map(|lane| tokio::spawn(opens(lane, *defect, *anomaly, *its)))
            })
            .collect();
        for case in running {
            case.await.expect("the case says what differs");
        }
    }
}

#[tokio::test]
async fn only_a_prober_gets_tokens_in_other_states_and_the_list_has_the_revoked() {
    let target = Target::start(Lane::Khala);
    let asked = serde_json::json!({
        "lane": "khala", "org": "org", "user": "probe", "scopes": ["sync.subscribe"], "streams": [OTHER],
        "key": "current", "issued_s": 0, "not_before_s": 0, "expires_s": 60, "revoked": true,
    });
    let ask = async |credential: &str| {
        let bearer = format!("Bearer {credential}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let body = asked.to_string().into();
        let answer = target
            .tokens
            .send(Method::POST, PROBE_TOKEN_PATH, &headers, body, PATIENCE);
        answer.await.unwrap().status.as_u16()
    };
    let listed = async || -> usize {
        let list: RevokedList = target.tokens.get(REVOKED_PATH, PATIENCE).await.unwrap();
        list.revoked.len()
    };
    for stranger in [
        session_credential("session", "org", "probe"),
        lanes::token::probe_credential("another"),
        String::new(),
    ] {
        assert_eq!(ask(&stranger).await, 401);
    }
    assert_eq!(listed().await, 0);
    assert_eq!(ask(&lanes::token::probe_credential("session")).await, 200);
    assert_eq!(listed().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_refuses_what_it_promises_to_but_for_a_confused_key() {
    let Some(server) =
        real::start("a_real_server_refuses_what_it_promises_to_but_for_a_confused_key").await
    else {
        return;
    };
    // Only the token service of this one is used.
    let target = Target::start(Lane::Spacetime);
    let publisher = target.token().await;
    server
        .publish_module(&target.lane.database, &publisher)
        .await;
    for (stream, count) in [(OTHER, 20), (RIVAL, 3)] {
        for n in 1..=count {
            let row = event(stream, n).positional();
            server
                .call(&target.lane.database, "append_sync_event", row, &publisher)
                .await;
        }
    }
    let promise = Promise {
        authorization: Authorization::None,
        token_checks: TokenChecks::NONE,
        ..Promise::strict(Span::from_secs(60))
    };
    let told = probed_at(&target, server.addr, &publisher, promise, PROBES - 3).await;
    let opened: BTreeMap<String, BTreeSet<String>> = opened(&told);
    let only = |answer: &str| BTreeSet::from([answer.to_owned()]);
    // What is really wrong with 1.3.0: its JWT library lets a token choose HMAC, and the issuer's public key, which
    // anybody can fetch, is then the secret.
    let found = ["append", "connect", "read"];
    let expected: BTreeMap<_, _> = found
        .map(|operation| (format!("confused-key/{operation}"), only("accepted")))
        .into();
    assert_eq!(opened, expected);
}
