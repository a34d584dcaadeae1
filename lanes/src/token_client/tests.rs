use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use host::http::{Failure, Request, Response, StatusCode, serve};
use host::net::listen;
use model::target::TokenEndpoint;
use serde_json::json;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

use super::*;

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const LEAD: Span = Span::from_secs(30);

fn client(issuer: Issuer, identities: Option<u32>) -> TokenClient {
    let source = TokenSource {
        issuer,
        org: "acme".to_owned(),
        identities,
    };
    TokenClient::new(&source, Lane::Khala, LEAD).expect("no TLS")
}

fn wish(user: User) -> Wish {
    Wish {
        org: "acme".to_owned(),
        user,
        scopes: vec!["sync.subscribe".to_owned()],
        streams: vec!["s.1".to_owned()],
        ttl: 60,
    }
}

fn jwt(exp: u64) -> String {
    let claims = URL_SAFE_NO_PAD.encode(json!({"exp": exp}).to_string());
    format!("e30.{claims}.c2ln")
}

fn in_seconds(seconds: u64) -> u64 {
    clock::unix_micros() / 1_000_000 + seconds
}

#[tokio::test]
async fn clients_share_identities_in_turn_and_each_file_is_one() {
    let tokens: Vec<Secret> = (0..3)
        .map(|place| Secret::new(format!("opaque-{place}")))
        .collect();
    let files = client(Issuer::Files(tokens.clone()), Some(3));
    for (ordinal, place) in [(0, 0), (2, 2), (3, 0), (7, 1)] {
        let held = files.fetch(&wish(User::Client(ClientId(ordinal)))).await;
        assert_eq!(held.expect("at hand").jwt, format!("opaque-{place}"));
    }
    let fewer = client(Issuer::Files(tokens), Some(2));
    let held = fewer.fetch(&wish(User::Client(ClientId(2)))).await;
    assert_eq!(held.expect("at hand").jwt, "opaque-0");
}

#[tokio::test]
async fn a_token_that_does_not_say_when_it_ends_is_not_renewed_during_a_drill() {
    let files = client(Issuer::Files(vec![Secret::new("opaque")]), None);
    let held = files
        .fetch(&wish(User::Part("probe")))
        .await
        .expect("at hand");
    assert!(held.refresh_after.since(clock::now()) > Span::from_secs(3_600));
}

#[tokio::test]
async fn a_token_from_a_file_that_has_expired_is_named_by_its_place() {
    let tokens = vec![
        Secret::new(jwt(in_seconds(60))),
        Secret::new(jwt(in_seconds(0) - 90)),
    ];
    let files = client(Issuer::Files(tokens), Some(2));
    files
        .fetch(&wish(User::Client(ClientId(0))))
        .await
        .expect("it is good for a minute");
    let refusal = files
        .fetch(&wish(User::Client(ClientId(1))))
        .await
        .unwrap_err();
    assert!(refusal.reason.contains("file 2"), "{}", refusal.reason);
}

/// An endpoint that answers with what it was asked, in a token's place.
fn echo(answers: fn(Request) -> Result<Response, Failure>) -> SocketAddr {
    let listener = listen(ANY_PORT).expect("a port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(serve(
        listener,
        CancellationToken::new(),
        move |request| async move { answers(request) },
    ));
    addr
}

fn endpoint(addr: SocketAddr, body: &str) -> Issuer {
    Issuer::Http {
        addr,
        endpoint: Box::new(TokenEndpoint {
            dial: addr.to_string(),
            authority: "tokens.example.com".to_owned(),
            path: "/token".to_owned(),
            tls: None,
            method: "POST".to_owned(),
            headers: vec![("authorization".to_owned(), Secret::new("Bearer hush"))],
            body: Secret::new(body),
            token_field: "data.token".to_owned(),
            expires_field: Some("data.expires_at".to_owned()),
        }),
    }
}

#[tokio::test]
async fn an_endpoint_is_asked_as_the_target_file_says_and_believed_when_a_token_ends() {
    let addr = echo(|request| {
        assert_eq!(request.headers["host"], "tokens.example.com");
        assert_eq!(request.headers["authorization"], "Bearer hush");
        let asked: Value = request.json()?;
        let token = format!("{}/{}", asked["user"], asked["org"]);
        Response::json(&json!({"data": {"token": token, "expires_at": in_seconds(600)}}))
    });
    let body = r#"{"user": "{identity}", "org": "{tenant}"}"#;
    let http = client(endpoint(addr, body), Some(2));
    let held = http
        .fetch(&wish(User::Client(ClientId(3))))
        .await
        .expect("issued");
    assert_eq!(held.jwt, r#""c0001"/"acme""#);
    let left = held.exp.since(clock::now());
    assert!(
        left > Span::from_secs(590) && left <= Span::from_secs(601),
        "{left}"
    );
    assert_eq!(held.exp.since(held.refresh_after), LEAD);
    let heeds = Heeds {
        org: true,
        scopes: false,
        streams: false,
    };
    assert_eq!(http.heeds(), heeds);
}

#[tokio::test]
async fn what_an_endpoint_refuses_or_leaves_out_is_told() {
    let refusing = echo(|_| Err(Failure::new(StatusCode::UNAUTHORIZED, "who are you")));
    let refusal = client(endpoint(refusing, "{}"), None)
        .fetch(&wish(User::Part("probe")))
        .await
        .unwrap_err();
    assert_eq!(
        (refusal.status, &*refusal.reason),
        (Some(401), "who are you")
    );
    let forgetful = echo(|_| Response::json(&json!({"token": "elsewhere"})));
    let refusal = client(endpoint(forgetful, "{}"), None)
        .fetch(&wish(User::Part("probe")))
        .await
        .unwrap_err();
    assert!(
        refusal.reason.contains("`data.token`"),
        "{}",
        refusal.reason
    );
}
