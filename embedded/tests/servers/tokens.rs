//! The token service.

use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use host::http::{Method, StatusCode};
use lanes::token::{
    Claims, PROBE_TOKEN_PATH, ProbeKey, ProbeRequest, ProbeToken, SYNC_TOKEN_PATH, TokenRequest,
    probe_credential,
};
use model::fault::{ClockSkew, Fault, FaultOrder, FaultView};
use model::ids::Lane;
use model::quantity::{Rate, Share, Span};

use crate::support::{OTHER, PATIENCE, RIVAL, STREAM, Target, error_of, khala_path, subscriber};

fn claims(token: &str) -> Claims {
    let part = token.split('.').nth(1).unwrap();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[tokio::test]
async fn a_grant_says_what_its_token_says() {
    let target = Target::start(Lane::Khala);
    let grant = target
        .grant(&TokenRequest {
            topics: vec!["run:1:events".to_owned()],
            streams: Vec::new(),
            ttl_seconds: Some(20),
            ..TokenRequest::default()
        })
        .await;
    let claims = claims(&grant.token);
    assert_eq!(claims.oa_sync_streams, [STREAM]);
    assert_eq!(claims.oa_sync_scopes, ["sync.subscribe"]);
    assert_eq!(
        (claims.oa_org_id.as_str(), claims.sub.as_str()),
        ("org", "user")
    );
    assert_eq!(
        (claims.exp, claims.iss),
        (grant.expires_at, grant.issuer.clone())
    );
    assert_eq!(grant.expires_at, grant.issued_at + 20);
    assert_eq!(
        (
            grant.expires_in,
            grant.refresh_after_in,
            grant.refresh_after
        ),
        (20, 19, grant.issued_at + 19)
    );
    assert_eq!(grant.granted_topics, ["run:1:events"]);
}

#[tokio::test]
async fn lifetimes_are_brought_within_the_limits() {
    let target = Target::with(Lane::Khala, None, |_, tokens| {
        tokens.ttl_limits = (Span::from_millis(1_500), Span::from_secs(100));
    });
    for (asked, got) in [(Some(0), 2), (Some(7), 7), (Some(5_000), 100), (None, 60)] {
        let grant = target
            .grant(&TokenRequest {
                ttl_seconds: asked,
                ..subscriber()
            })
            .await;
        assert_eq!(grant.expires_in, got, "{asked:?}");
    }
}

#[tokio::test]
async fn each_refusal_has_its_status() {
    let target = Target::start(Lane::Khala);
    let anonymous = target
        .tokens
        .send(Method::POST, SYNC_TOKEN_PATH, &[], "{}".into(), PATIENCE);
    assert_eq!(anonymous.await.unwrap().status, StatusCode::UNAUTHORIZED);
    let foreign = TokenRequest {
        streams: vec![RIVAL.to_owned()],
        ..TokenRequest::default()
    };
    let refused = target.ask_token("org", "user", &foreign).await;
    assert_eq!(
        (refused.status.as_u16(), error_of(&refused)),
        (403, format!("forbidden_stream {RIVAL}"))
    );
    assert_eq!(
        target.ask_token("rival", "user", &foreign).await.status,
        200
    );
    let unknown = TokenRequest {
        scopes: vec!["sync.everything".to_owned()],
        ..TokenRequest::default()
    };
    let refused = target.ask_token("org", "user", &unknown).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error_of(&refused).starts_with("invalid_scope"));
    let status: embedded::tokens::TokensStatus = target
        .tokens_control
        .get("/status", PATIENCE)
        .await
        .unwrap();
    assert_eq!(status.issued, 1);
    assert_eq!(status.refused["forbidden_stream"], 1);
}

#[tokio::test]
async fn beyond_the_rate_retry_after_is_named() {
    let target = Target::with(Lane::Spacetime, None, |_, tokens| {
        tokens.rate = Some(Rate::per_second(0.5));
        tokens.burst = 2;
    });
    for expected in [200, 200, 429] {
        let answer = target.ask_token("org", "user", &subscriber()).await;
        assert_eq!(answer.status, expected);
        if expected == 429 {
            let seconds: u64 = answer.headers["retry-after"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(seconds, 2);
        }
    }
}

#[tokio::test]
async fn a_rotation_leaves_the_keys_before_it_good() {
    for lane in Lane::ALL {
        let target = Target::start(lane);
        let path = |token: &str| match lane {
            Lane::Khala => khala_path(token),
            Lane::Spacetime => format!("/v1/database/sync/subscribe?token={token}"),
        };
        let protocol = [("sec-websocket-protocol", "v1.json.spacetimedb")];
        let first = target.token().await;
        target.socket(&path(&first), &protocol).await.unwrap();
        let mut tokens = vec![first];
        for _ in 0..2 {
            let _: serde_json::Value = target
                .tokens_control
                .post("/rotate", &(), PATIENCE)
                .await
                .unwrap();
            // A lane looks its keys up again at most every 200 ms.
            tokio::time::sleep(std::time::Duration::from_millis(210)).await;
            tokens.push(target.token().await);
            target
                .socket(&path(tokens.last().unwrap()), &protocol)
                .await
                .unwrap();
            target
                .socket(&path(&tokens[tokens.len() - 2]), &protocol)
                .await
                .unwrap();
        }
        let refused = target
            .socket(&path(&tokens[0]), &protocol)
            .await
            .unwrap_err();
        assert_eq!(
            (refused.status.as_u16(), error_of(&refused)),
            (401, "unknown_kid".to_owned())
        );
    }
}

#[tokio::test]
async fn keys_are_private_and_survive_a_restart() {
    let target = Target::start(Lane::Khala);
    let kid = target.token_for(5).await.kid;
    let files = [
        target.lane.key_file.clone(),
        target.lane.key_file.with_extension("es256.json"),
    ];
    for file in &files {
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let again = Target::with(Lane::Khala, None, |lane, tokens| {
        tokens.key_file.clone_from(&target.lane.key_file);
        lane.key_file.clone_from(&target.lane.key_file);
    });
    assert_eq!(again.token_for(5).await.kid, kid);
    let other = TokenRequest {
        streams: vec![OTHER.to_owned()],
        ..TokenRequest::default()
    };
    assert_eq!(again.grant(&other).await.granted_streams, [OTHER]);
}

#[tokio::test]
async fn a_lane_without_keys_lets_clients_that_come_at_once_wait_for_them() {
    for lane in Lane::ALL {
        let target = Target::start(lane);
        let token = target.token().await;
        let path = match lane {
            Lane::Khala => khala_path(&token),
            Lane::Spacetime => format!("/v1/database/sync/subscribe?token={token}"),
        };
        let protocol = [("sec-websocket-protocol", "v1.json.spacetimedb")];
        let storm = (0..50).map(|_| target.socket(&path, &protocol));
        for answer in futures_util::future::join_all(storm).await {
            assert!(answer.is_ok(), "{lane}");
        }
    }
}

/// Has the service see another time; what a client then finds in its tokens.
async fn skewed(offset: &str) {
    let target = Target::start(Lane::Khala);
    let order = FaultOrder {
        id: "f1".to_owned(),
        fault: Fault::ClockSkew(ClockSkew {
            offset: offset.parse().unwrap(),
        }),
        node: Some("tokens".to_owned()),
        share: Share::ALL,
        seed: 7,
        lease: Span::from_secs(20),
    };
    let control = &target.tokens_control;
    let view: FaultView = control.post("/faults", &order, PATIENCE).await.unwrap();
    assert!(view.active && view.observation.bitten == 0, "{view:?}");
    let second = FaultOrder {
        id: "f2".to_owned(),
        ..order.clone()
    };
    let refused = control
        .post::<FaultView>("/faults", &second, PATIENCE)
        .await;
    assert!(refused.unwrap_err().to_string().contains("`f1`"));

    let wrong = target.grant(&subscriber()).await;
    let now = host::clock::unix_micros() / 1_000_000;
    let told = claims(&wrong.token);
    assert_eq!((told.iat, told.exp), (wrong.issued_at, wrong.expires_at));
    let apart = told.iat.abs_diff(now);
    assert!((3_599..=3_601).contains(&apart), "{apart} s");
    assert_eq!(told.iat > now, offset.starts_with('+'));
    let refused = target.socket(&khala_path(&wrong.token), &[]).await;
    let expected = if offset.starts_with('+') {
        "token_not_yet_valid"
    } else {
        "token_expired"
    };
    assert_eq!(error_of(&refused.unwrap_err()), expected);

    let seen: FaultView = control.get("/faults/f1", PATIENCE).await.unwrap();
    let figures = &seen.observation.figures;
    assert_eq!((seen.observation.bitten, figures["tokens_skewed"]), (1, 1));
    assert_eq!(
        (figures["iat_unix"], figures["offset_s"]),
        (told.iat, 3_600)
    );
    assert!(seen.observation.observed.is_some());

    let undone = control.call::<FaultView>(Method::DELETE, "/faults/f1", &(), PATIENCE);
    assert!(!undone.await.unwrap().active);
    let right = target.grant(&subscriber()).await;
    let now = host::clock::unix_micros() / 1_000_000;
    assert!(claims(&right.token).iat.abs_diff(now) <= 1);
    target.khala(&right.token).await;
}

#[tokio::test]
async fn a_service_that_is_ahead_issues_tokens_that_are_not_valid_yet() {
    skewed("+1h").await;
}

#[tokio::test]
async fn a_service_that_is_behind_issues_tokens_that_have_expired() {
    skewed("-1h").await;
}

#[tokio::test]
async fn a_skew_ends_with_its_lease_and_probes_go_by_the_true_time() {
    let target = Target::start(Lane::Khala);
    let order = FaultOrder {
        id: "f1".to_owned(),
        fault: Fault::ClockSkew(ClockSkew {
            offset: "+1h".parse().unwrap(),
        }),
        node: None,
        share: Share::ALL,
        seed: 7,
        lease: Span::from_millis(500),
    };
    let control = &target.tokens_control;
    let _: FaultView = control.post("/faults", &order, PATIENCE).await.unwrap();
    let probe = ProbeRequest {
        lane: Lane::Khala,
        org: "org".to_owned(),
        user: "user".to_owned(),
        scopes: vec!["sync.subscribe".to_owned()],
        streams: vec![STREAM.to_owned()],
        key: ProbeKey::Current,
        issued_s: 0,
        not_before_s: 0,
        expires_s: 60,
        revoked: false,
    };
    let body = serde_json::to_vec(&probe).unwrap();
    let credential = format!("Bearer {}", probe_credential("session"));
    let headers = [("authorization", credential.as_str())];
    let asked = target.tokens.send(
        Method::POST,
        PROBE_TOKEN_PATH,
        &headers,
        body.into(),
        PATIENCE,
    );
    let ProbeToken { token } = serde_json::from_slice(&asked.await.unwrap().body).unwrap();
    let now = host::clock::unix_micros() / 1_000_000;
    assert!(claims(&token).iat.abs_diff(now) <= 1);

    let lapsed = async {
        loop {
            let view: FaultView = control.get("/faults/f1", PATIENCE).await.unwrap();
            if !view.active {
                return view;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let view = tokio::time::timeout(PATIENCE, lapsed).await.unwrap();
    assert!(view.lapsed && view.healed.is_some(), "{view:?}");
    assert_eq!(view.observation.bitten, 0, "nobody asked for a token");
}
