use std::time::{Duration, SystemTime};

use bytes::Bytes;
use model::target::{TlsClient, TlsIdentity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::http::{CallError, Client, Method};
use crate::net::listen;
use crate::tls::{self, Authority};

const SOON: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_hours(24);

/// Answers each request with what it was, as the body, behind TLS.
fn serve(identity: &TlsIdentity, client_ca: Option<&str>) -> SocketAddr {
    let acceptor = TlsAcceptor::from(tls::server(identity, client_ca).unwrap());
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.write_all(&head).await.unwrap();
                stream.flush().await.unwrap();
            });
        }
    });
    addr
}

fn access(addr: SocketAddr, authority: &str, ca: Option<&Authority>) -> Access {
    Access {
        authority: Some(authority.to_owned()),
        tls: Some(TlsClient {
            ca_pem: ca.map(Authority::pem),
            identity: None,
        }),
        ..Access::plain(addr, addr)
    }
}

async fn ask(access: &Access) -> Result<String, CallError> {
    let client = Client::of(Reach::of(access).unwrap().direct);
    let headers = [("x-own", "1")];
    let answer = client
        .send(Method::GET, "/head", &headers, Bytes::new(), SOON)
        .await?;
    Ok(String::from_utf8(answer.body.to_vec()).unwrap())
}

/// Asks, expects to fail before anything was sent, and returns why.
async fn refused(access: &Access) -> String {
    let error = ask(access).await.unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Broken {
                connected: false,
                ..
            }
        ),
        "{error}"
    );
    error.to_string()
}

#[tokio::test]
async fn a_private_authority_is_trusted_and_everything_is_said_as_configured() {
    let ca = Authority::ephemeral("test").unwrap();
    let addr = serve(&ca.issue(&["sync.example.com"]).unwrap(), None);
    let mut access = access(addr, "sync.example.com:8443", Some(&ca));
    access.path_prefix = "/staging/".to_owned();
    access.headers = vec![
        ("Origin".to_owned(), "https://app.example.com".to_owned()),
        ("X-Own".to_owned(), "never said".to_owned()),
    ];
    let head = ask(&access).await.unwrap();
    assert!(head.starts_with("GET /staging/head HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: sync.example.com:8443\r\n"), "{head}");
    assert!(
        head.contains("origin: https://app.example.com\r\n"),
        "{head}"
    );
    assert!(
        head.contains("x-own: 1\r\n") && !head.contains("never"),
        "{head}"
    );
}

#[tokio::test]
async fn a_server_is_known_by_its_address_where_it_has_no_name() {
    let ca = Authority::ephemeral("test").unwrap();
    let addr = serve(&ca.issue(&["127.0.0.1"]).unwrap(), None);
    let mut access = access(addr, "", Some(&ca));
    access.authority = None;
    let head = ask(&access).await.unwrap();
    assert!(head.contains(&format!("host: {addr}\r\n")), "{head}");
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let (ca, other) = (
        Authority::ephemeral("test").unwrap(),
        Authority::ephemeral("other").unwrap(),
    );
    let addr = serve(&ca.issue(&["localhost"]).unwrap(), None);
    let why = refused(&access(addr, "localhost", Some(&other))).await;
    assert!(
        why.contains(
            "`localhost`: its certificate is of an authority that is not trusted here; name"
        ),
        "{why}"
    );
    assert!(why.contains(&addr.to_string()), "{why}");
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let ca = Authority::ephemeral("test").unwrap();
    let addr = serve(&ca.issue(&["other.example.com"]).unwrap(), None);
    let why = refused(&access(addr, "sync.example.com", Some(&ca))).await;
    assert!(
        why.contains("for other.example.com, not for `sync.example.com`; correct"),
        "{why}"
    );
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused() {
    let ca = Authority::ephemeral("test").unwrap();
    let now = SystemTime::now();
    for (valid, says) in [
        (now - 9 * DAY..now - 5 * DAY, "expired 5 days ago; renew it"),
        (
            now + 3 * DAY + DAY / 2..now + 9 * DAY,
            "valid only in 3 days; correct",
        ),
    ] {
        let identity = ca.issue_for(&["localhost"], valid).unwrap();
        let addr = serve(&identity, None);
        let why = refused(&access(addr, "localhost", Some(&ca))).await;
        assert!(why.contains(says), "{why}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_presented_and_its_lack_is_named() {
    let (ca, clients) = (
        Authority::ephemeral("test").unwrap(),
        Authority::ephemeral("clients").unwrap(),
    );
    let addr = serve(&ca.issue(&["localhost"]).unwrap(), Some(&clients.pem()));
    let mut access = access(addr, "localhost", Some(&ca));
    let why = ask(&access).await.unwrap_err().to_string();
    assert!(
        why.contains("it requires a client certificate; give"),
        "{why}"
    );
    let tls = access.tls.as_mut().unwrap();
    tls.identity = Some(ca.issue(&["fleet"]).unwrap());
    let why = ask(&access).await.unwrap_err().to_string();
    assert!(
        why.contains("does not accept the certificate that it was shown"),
        "{why}"
    );
    let tls = access.tls.as_mut().unwrap();
    tls.identity = Some(clients.issue(&["fleet"]).unwrap());
    ask(&access).await.unwrap();
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_a_broken_one() {
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let ca = Authority::ephemeral("test").unwrap();
    let why = refused(&access(addr, "localhost", Some(&ca))).await;
    assert!(why.contains("does not speak TLS; use"), "{why}");
}

#[test]
fn what_cannot_be_said_is_refused_by_name_and_secrets_stay_unsaid() {
    let addr = ([127, 0, 0, 1], 1).into();
    let ca = Authority::ephemeral("test").unwrap();
    let why = |change: &dyn Fn(&mut Access)| {
        let mut access = access(addr, "localhost", Some(&ca));
        change(&mut access);
        Reach::of(&access).unwrap_err().to_string()
    };
    let authority = why(&|access| access.authority = Some("a b\r\nx: y".to_owned()));
    assert!(
        authority.contains("is not a host or host:port"),
        "{authority}"
    );
    let prefix = why(&|access| access.path_prefix = "staging".to_owned());
    assert!(prefix.contains("path prefix `staging`"), "{prefix}");
    let secret = "s3cret\r\n";
    let header = why(&|access| access.headers = vec![("X-Key".to_owned(), secret.to_owned())]);
    assert!(
        header.contains("header `X-Key`") && !header.contains("s3cret"),
        "{header}"
    );
    let tls = why(&|access| access.tls.as_mut().unwrap().ca_pem = Some("none".to_owned()));
    assert!(
        tls.contains("the target's authority: no certificate in it"),
        "{tls}"
    );
    let key = why(&|access| {
        access.tls.as_mut().unwrap().identity = Some(TlsIdentity {
            chain_pem: ca.pem(),
            key_pem: "s3cret".to_owned(),
        });
    });
    assert!(
        key.contains("no private key in it") && !key.contains("s3cret"),
        "{key}"
    );
    let mut access = access(addr, "localhost", Some(&ca));
    access.headers = vec![("x-key".to_owned(), "s3cret".to_owned())];
    let shown = format!("{:?}", Reach::of(&access).unwrap());
    assert!(!shown.contains("s3cret"), "{shown}");
}
