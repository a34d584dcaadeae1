//! The token service.

use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use host::http::{Method, StatusCode};
use lanes::token::{Claims, SYNC_TOKEN_PATH, TokenRequest};
use model::ids::Lane;
use model::quantity::{Rate, Span};

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
