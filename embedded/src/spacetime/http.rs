//! The calls over HTTP.

use std::sync::Arc;

use host::http::{Request, Response, StatusCode, header};
use lanes::spacetime::STATUS_REDUCER_FAILED;
use lanes::spacetime::message::Encoded;
use lanes::spacetime::query::Query;
use lanes::spacetime::rows::Table;
use serde_json::{Value, json};

use super::reducer::{Call, CallError};
use super::{Spacetime, snapshot};
use crate::front::{Refused, refusal, text};

/// How long a token for a WebSocket is good.
const WEBSOCKET_TOKEN_S: u64 = 60;

/// `POST /v1/identity`
pub(super) fn identity(lane: &Spacetime) -> Result<Response, Refused> {
    let known = lane.identities.create().map_err(broken)?;
    json_answer(&json!({"identity": known.identity, "token": known.token}))
}

/// `POST /v1/identity/websocket-token`
pub(super) async fn websocket_token(
    lane: &Spacetime,
    request: &Request,
) -> Result<Response, Refused> {
    let caller = lane.caller(request).await?;
    // One of the issuer's is passed on: this server cannot sign for it.
    let token = if caller.claims.is_some() {
        caller.known.token
    } else {
        let short = lane
            .identities
            .short_lived(&caller.known, WEBSOCKET_TOKEN_S);
        short.map_err(broken)?
    };
    json_answer(&json!({"token": token}))
}

/// `POST /v1/database/{db}/call/{reducer}`
pub(super) async fn call(
    lane: &Spacetime,
    request: &Request,
    reducer: &str,
) -> Result<Response, Refused> {
    let kind = request.headers.get(header::CONTENT_TYPE);
    let is_json = kind
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| {
            kind.split(';')
                .next()
                .is_some_and(|kind| kind.trim() == "application/json")
        });
    if !is_json {
        let expected = "Expected request with `Content-Type: application/json`";
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, &expected));
    }
    let caller = lane.caller(request).await?;
    let Ok(args) = String::from_utf8(request.body.to_vec()) else {
        return Err(refused(StatusCode::BAD_REQUEST, &"the body is not UTF-8"));
    };
    let call = Call {
        caller_identity: caller.known.identity.clone(),
        connection_id: 0,
        reducer: reducer.to_owned(),
        args: Arc::new(Encoded::Text(args)),
        request_id: 0,
        connection: None,
    };
    let failed = |error: CallError| {
        let body = error.to_string();
        Box::new(match error {
            CallError::NoReducer => text(StatusCode::NOT_FOUND, &body),
            CallError::Arguments { .. } => text(StatusCode::BAD_REQUEST, &body),
            CallError::Refused(_) => refusal(StatusCode::FORBIDDEN, &body),
            CallError::Failed(_) => {
                let status = StatusCode::from_u16(STATUS_REDUCER_FAILED);
                text(status.expect("530 is a status"), &body)
            }
        })
    };
    lane.call(&caller, call).await.map_err(failed)?;
    Ok(text(StatusCode::OK, ""))
}

/// `POST /v1/database/{db}/sql`
pub(super) async fn sql(lane: &Spacetime, request: &Request) -> Result<Response, Refused> {
    let caller = lane.caller(request).await?;
    let bad = |error: &dyn std::fmt::Display| refused(StatusCode::BAD_REQUEST, error);
    let statement = std::str::from_utf8(&request.body).map_err(|error| bad(&error))?;
    let statement = statement.trim().trim_end_matches(';');
    let query = Query::parse(statement).map_err(|error| bad(&error))?;
    if let Some(reason) = lane.query_refusal(&caller, &query) {
        return Err(Box::new(refusal(StatusCode::FORBIDDEN, &reason)));
    }
    let defects = lane.ground.defects;
    let found = snapshot::find(&lane.ground.log.lock().streams, &query, defects);
    let mut rows = Vec::with_capacity(found.len());
    for row in found {
        let columns = row.row(defects, None).positional();
        rows.push(serde_json::from_str::<Value>(&columns).map_err(broken)?);
    }
    json_answer(&json!([{
        "schema": {"elements": schema(query.table)},
        "rows": rows,
        "total_duration_micros": 0,
        "stats": {"rows_inserted": 0, "rows_deleted": 0, "rows_updated": 0},
    }]))
}

fn schema(table: Table) -> Vec<Value> {
    table
        .columns()
        .iter()
        .map(|column| {
            let kind = if *column == "confirmed_read" {
                "Bool"
            } else if column.ends_with("seq")
                || column.ends_with("_ms")
                || *column == "durable_offset"
            {
                "U64"
            } else {
                "String"
            };
            json!({"name": {"some": column}, "algebraic_type": {kind: []}})
        })
        .collect()
}

fn json_answer(value: &Value) -> Result<Response, Refused> {
    Response::json(value).map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Refused {
    refused(StatusCode::INTERNAL_SERVER_ERROR, &error)
}

fn refused(status: StatusCode, reason: &dyn std::fmt::Display) -> Refused {
    Box::new(text(status, &reason.to_string()))
}
