//! Routes, statuses and the order of checks.

use std::sync::atomic::{AtomicU64, Ordering};

use host::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, USER_AGENT};
use host::http::{Failure, Method, Reply, Request, Response, StatusCode};

use super::Settings;
use super::error::internal;
use super::input::{ProxyInput, ProxyPatch, ToxicInput};
use super::metrics;
use super::proxies::Proxies;
use super::view::{Populated, ProxyView};

/// The version of Toxiproxy whose API this is. Clients compare it to know what they may call.
const VERSION: &str = "{\"version\": \"2.12.0\"}";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-toxiproxy-request-id");

/// Answers a request, whatever it is.
pub(super) async fn answer(settings: &Settings, proxies: &Proxies, request: &Request) -> Response {
    let response = if !settings.allow_browsers && is_browser(&request.headers) {
        text(
            StatusCode::FORBIDDEN,
            "text/plain; charset=utf-8",
            "User agent not allowed\n",
        )
    } else if !is_admitted(settings, &request.headers) {
        refuse(&Failure::new(
            StatusCode::UNAUTHORIZED,
            "the API asks for a token: send `Authorization: Bearer TOKEN` with the one of --api-token-file",
        ))
    } else {
        let answer = route(proxies, request).await;
        if request.method != Method::GET {
            proxies.made_everywhere().await;
        }
        answer.unwrap_or_else(|failure| refuse(&failure))
    };
    response.with_header(REQUEST_ID, &request_id())
}

async fn route(proxies: &Proxies, request: &Request) -> Reply {
    let segments: Vec<String> = request
        .segments()
        .into_iter()
        .map(host::http::decoded)
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let body = &request.body;
    match (request.method.as_str(), segments.as_slice()) {
        ("GET", ["proxies"]) => {
            let map = proxies.lock().await;
            let views: std::collections::BTreeMap<_, _> = map
                .iter()
                .map(|(name, proxy)| (name, proxy.view()))
                .collect();
            Response::json(&views)
        }
        ("POST", ["proxies"]) => {
            let view = proxies.create(ProxyInput::read(body)?).await?;
            Ok(Response::json(&view)?.with_status(StatusCode::CREATED))
        }
        ("POST", ["populate"]) => {
            let (views, failure) = populate(proxies, body).await;
            let status = failure
                .as_ref()
                .map_or(StatusCode::CREATED, |failure| failure.status);
            Ok(Response::json(&Populated::new(views, failure.as_ref()))?.with_status(status))
        }
        ("GET", ["proxies", proxy]) => {
            Response::json(&proxies.with(proxy, |proxy| Ok(proxy.view())).await?)
        }
        ("POST" | "PATCH", ["proxies", proxy]) => {
            proxies.with(proxy, |_| Ok(())).await?;
            Response::json(&proxies.update(proxy, ProxyPatch::read(body)?).await?)
        }
        ("DELETE", ["proxies", proxy]) => {
            proxies.remove(proxy).await?;
            Ok(nothing())
        }
        ("GET", ["proxies", proxy, "toxics"]) => {
            Response::json(&proxies.with(proxy, |proxy| Ok(proxy.toxics())).await?)
        }
        ("POST", ["proxies", proxy, "toxics"]) => {
            let add = proxies.with(proxy, |proxy| proxy.add_toxic(ToxicInput::read(body)?));
            Response::json(&add.await?)
        }
        ("GET", ["proxies", proxy, "toxics", toxic]) => {
            Response::json(&proxies.with(proxy, |proxy| proxy.toxic(toxic)).await?)
        }
        ("POST" | "PATCH", ["proxies", proxy, "toxics", toxic]) => {
            let update = proxies.with(proxy, |proxy| proxy.update_toxic(toxic, body));
            Response::json(&update.await?)
        }
        ("DELETE", ["proxies", proxy, "toxics", toxic]) => {
            proxies
                .with(proxy, |proxy| proxy.remove_toxic(toxic))
                .await?;
            Ok(nothing())
        }
        ("POST", ["reset"]) => {
            proxies.reset().await?;
            Ok(nothing())
        }
        ("GET", ["tls", "ca"]) => {
            let pem = proxies.authority().map_err(internal)?;
            Ok(text(StatusCode::OK, "application/x-pem-file", pem))
        }
        ("GET", ["version"]) => Ok(text(StatusCode::OK, "application/json", VERSION)),
        ("GET", ["metrics"]) => {
            proxies.made_everywhere().await;
            let map = proxies.lock().await;
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            Ok(text(StatusCode::OK, kind, metrics::text(&map)))
        }
        (
            _,
            ["proxies" | "populate" | "reset" | "version" | "metrics"]
            | ["proxies", _]
            | ["proxies", _, "toxics"]
            | ["proxies", _, "toxics", _]
            | ["tls", "ca"],
        ) => Ok(text(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain; charset=utf-8",
            "",
        )),
        _ => Ok(text(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "404 page not found\n",
        )),
    }
}

/// Makes proxies one after the other; returns those that are there, and what stopped it.
pub(super) async fn populate(proxies: &Proxies, body: &[u8]) -> (Vec<ProxyView>, Option<Failure>) {
    let inputs = match ProxyInput::read_all(body) {
        Ok(inputs) => inputs,
        Err(failure) => return (Vec::new(), Some(failure)),
    };
    let mut views = Vec::new();
    for input in inputs {
        match proxies.upsert(input).await {
            Ok(view) => views.push(view),
            Err(failure) => return (views, Some(failure)),
        }
    }
    (views, None)
}

fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.starts_with("Mozilla/"))
}

fn is_admitted(settings: &Settings, headers: &HeaderMap) -> bool {
    let Some(token) = &settings.token else {
        return true;
    };
    let given = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    // Compared in a time that does not tell how much of it is right.
    given.is_some_and(|given| {
        given.len() == token.len()
            && given
                .iter()
                .zip(token.bytes())
                .fold(0, |differs, (given, token)| differs | (given ^ token))
                == 0
    })
}

fn nothing() -> Response {
    text(StatusCode::NO_CONTENT, "", "")
}

fn text(status: StatusCode, kind: &str, body: impl Into<String>) -> Response {
    let response = Response {
        status,
        headers: HeaderMap::new(),
        body: body.into().into(),
    };
    if kind.is_empty() {
        response
    } else {
        response.with_header(CONTENT_TYPE, kind)
    }
}

fn refuse(failure: &Failure) -> Response {
    let body = serde_json::json!({"error": failure.message, "status": failure.status.as_u16()});
    text(failure.status, "application/json", body.to_string())
}

/// Twenty characters, as Toxiproxy's are: of one process, each is another one.
fn request_id() -> String {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let begun = host::clock::unix_micros() / 1_000_000;
    let count = REQUESTS.fetch_add(1, Ordering::Relaxed);
    format!("{begun:08x}{count:012x}")
}
