//! The publishers' API. It takes the publishers' secret, or a token with the scope and the grant: `sync.append` for an
//! append, `sync.subscribe` for a head. Only publishers remove events.

use host::http::{Failure, Reply, Request, Response, StatusCode};
use lanes::khala::ingress::{Append, Appended, Head, Remove};
use lanes::spacetime::rows::SyncEvent;
use lanes::token::{Claims, DenyReason, SCOPE_APPEND, SCOPE_SUBSCRIBE};

use super::Khala;
use super::subscribers::Subscribers;
use crate::counters::{Counters, client_of};
use crate::front::{Answer, Refused, bearer, denied, parameter, refusal};
use crate::lane::Ground;
use crate::log::AppendError;

/// `POST /internal/sync/append`
pub(super) async fn append(lane: &Khala, request: &Request) -> Answer {
    let caller = match caller(lane, request).await {
        Ok(caller) => caller,
        Err(refused) => return Answer::Plain(*refused),
    };
    let append: Append = match request.json() {
        Ok(append) => append,
        Err(failure) => return Err(failure).into(),
    };
    let confined = lane.ground.defects.checks_append_stream();
    let stream = confined.then_some(append.stream_id.as_str());
    match allowed(lane, request, &caller, SCOPE_APPEND, stream) {
        Ok(()) => try_append(&lane.ground, append).await.into(),
        Err(refused) => Answer::Plain(*refused),
    }
}

/// `GET /internal/sync/head`
pub(super) async fn head(lane: &Khala, request: &Request) -> Answer {
    let caller = match caller(lane, request).await {
        Ok(caller) => caller,
        Err(refused) => return Answer::Plain(*refused),
    };
    let Some(stream) = parameter(&request.query, "stream_id") else {
        let missing = "the query lacks stream_id";
        return Answer::Plain(refusal(StatusCode::BAD_REQUEST, missing));
    };
    if let Err(refused) = allowed(lane, request, &caller, SCOPE_SUBSCRIBE, Some(&stream)) {
        return Answer::Plain(*refused);
    }
    let window = lane.ground.log.lock().streams.window(&stream);
    Response::json(&Head {
        head: window.head,
        floor: window.floor,
    })
    .into()
}

/// `POST /internal/sync/remove`
pub(super) async fn remove(lane: &Khala, request: &Request) -> Answer {
    if let Err(refused) = publisher(lane, request).await {
        return Answer::Plain(*refused);
    }
    let remove: Remove = match request.json() {
        Ok(remove) => remove,
        Err(failure) => return Err(failure).into(),
    };
    let log = &lane.ground.log;
    let removed = log.remove(Some(remove.stream_id), &remove.idempotency_keys, ());
    removed
        .await
        .map_err(|error| failure(&error))
        .and_then(|()| Response::empty())
        .into()
}

/// Refuses whoever is no publisher.
async fn publisher(lane: &Khala, request: &Request) -> Result<(), Refused> {
    match caller(lane, request).await? {
        Caller::Publisher => Ok(()),
        Caller::Client(_) => Err(refused(lane, request, DenyReason::MissingScope)),
    }
}

/// Who makes a request.
enum Caller {
    /// Whoever has the secret: it may do everything.
    Publisher,
    /// Whoever a token stands for.
    Client(Box<Claims>),
}

async fn caller(lane: &Khala, request: &Request) -> Result<Caller, Refused> {
    let bearer = bearer(request);
    if lane.ground.is_publisher(bearer) {
        return Ok(Caller::Publisher);
    }
    // What is not even shaped like a token is a wrong secret.
    let Some(token) = bearer.filter(|bearer| bearer.contains('.')) else {
        counted(lane, request, "unauthorized");
        let refused = refusal(StatusCode::UNAUTHORIZED, "unauthorized");
        return Err(Box::new(refused));
    };
    match lane.verifier.verify(Some(token)).await {
        Ok((claims, _)) => Ok(Caller::Client(Box::new(claims))),
        Err(reason) => Err(refused(lane, request, reason)),
    }
}

/// Whether a caller may do something to a stream; `None` where that does not matter.
fn allowed(
    lane: &Khala,
    request: &Request,
    caller: &Caller,
    scope: &str,
    stream: Option<&str>,
) -> Result<(), Refused> {
    let Caller::Client(claims) = caller else {
        return Ok(());
    };
    if !lane.checks_grants() {
        Ok(())
    } else if !claims.has_scope(scope) {
        Err(refused(lane, request, DenyReason::MissingScope))
    } else if stream.is_some_and(|stream| !claims.grants(stream)) {
        Err(refused(lane, request, DenyReason::ForbiddenTopic))
    } else {
        Ok(())
    }
}

fn refused(lane: &Khala, request: &Request, reason: DenyReason) -> Refused {
    counted(lane, request, reason.name());
    Box::new(denied(reason))
}

fn counted(lane: &Khala, request: &Request, reason: &str) {
    let client = client_of(&request.headers);
    lane.ground.counters.refuse(&client, reason, "publish");
}

async fn try_append(ground: &Ground<Subscribers>, append: Append) -> Reply {
    let expected = Some(append.expected_next_seq).filter(|seq| *seq != 0);
    let event = SyncEvent {
        stream_id: append.stream_id,
        seq: 0,
        idempotency_key: append.idempotency_key,
        payload_hash: append.payload_hash,
        payload_json: append.payload_json,
        committed_at_unix_ms: append.committed_at_unix_ms,
        durable_offset: 0,
        confirmed_read: false,
    };
    let appended = ground
        .log
        .append(event, expected, ())
        .await
        .map_err(|error| failure(&error))?;
    if !appended.duplicate {
        Counters::add(&ground.counters.appended, 1);
    }
    Response::json(&Appended {
        seq: appended.seq,
        duplicate: appended.duplicate,
    })
}

fn failure(error: &AppendError) -> Failure {
    let status = match error {
        AppendError::Conflict { .. } => StatusCode::CONFLICT,
        AppendError::Disk(_) => StatusCode::INTERNAL_SERVER_ERROR,
        AppendError::Closed => StatusCode::SERVICE_UNAVAILABLE,
    };
    Failure::new(status, error.to_string())
}
