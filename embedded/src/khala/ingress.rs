//! The publishers' API.

use host::http::{Failure, Reply, Request, Response, StatusCode};
use lanes::khala::ingress::{Append, Appended, Head};
use lanes::spacetime::rows::SyncEvent;

use super::subscribers::Subscribers;
use crate::counters::{Counters, client_of};
use crate::front::{Answer, Refused, bearer, parameter, refusal};
use crate::lane::Ground;
use crate::log::AppendError;

/// `POST /internal/sync/append`
pub(super) async fn append(ground: &Ground<Subscribers>, request: &Request) -> Answer {
    match authorized(ground, request) {
        Ok(()) => try_append(ground, request).await.into(),
        Err(refused) => Answer::Plain(*refused),
    }
}

/// `GET /internal/sync/head`
pub(super) fn head(ground: &Ground<Subscribers>, request: &Request) -> Answer {
    if let Err(refused) = authorized(ground, request) {
        return Answer::Plain(*refused);
    }
    let Some(stream) = parameter(&request.query, "stream_id") else {
        let missing = "the query lacks stream_id";
        return Answer::Plain(refusal(StatusCode::BAD_REQUEST, missing));
    };
    let window = ground.log.lock().streams.window(&stream);
    Response::json(&Head {
        head: window.head,
        floor: window.floor,
    })
    .into()
}

fn authorized(ground: &Ground<Subscribers>, request: &Request) -> Result<(), Refused> {
    if ground.is_publisher(bearer(request)) {
        return Ok(());
    }
    let client = client_of(&request.headers);
    ground.counters.refuse(&client, "unauthorized", "publish");
    let refused = refusal(StatusCode::UNAUTHORIZED, "unauthorized");
    Err(Box::new(refused))
}

async fn try_append(ground: &Ground<Subscribers>, request: &Request) -> Reply {
    let append: Append = request.json()?;
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
        .map_err(|error| {
            let status = match &error {
                AppendError::Conflict { .. } => StatusCode::CONFLICT,
                AppendError::Disk(_) => StatusCode::INTERNAL_SERVER_ERROR,
                AppendError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            };
            Failure::new(status, error.to_string())
        })?;
    if !appended.duplicate {
        Counters::add(&ground.counters.appended, 1);
    }
    Response::json(&Appended {
        seq: appended.seq,
        duplicate: appended.duplicate,
    })
}
