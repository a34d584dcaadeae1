//! Refusals, in Toxiproxy's words.

use std::fmt;

use host::http::{Failure, StatusCode};

fn refusal(status: StatusCode, message: impl fmt::Display) -> Failure {
    Failure::new(status, message.to_string())
}

pub(super) fn bad_body(reason: impl fmt::Display) -> Failure {
    refusal(
        StatusCode::BAD_REQUEST,
        format_args!("bad request body: {reason}"),
    )
}

pub(super) fn missing_field(field: impl fmt::Display) -> Failure {
    refusal(
        StatusCode::BAD_REQUEST,
        format_args!("missing required field: {field}"),
    )
}

pub(super) fn invalid_stream() -> Failure {
    refusal(
        StatusCode::BAD_REQUEST,
        "stream was invalid, can be either upstream or downstream",
    )
}

pub(super) fn invalid_type() -> Failure {
    refusal(StatusCode::BAD_REQUEST, "invalid toxic type")
}

pub(super) fn no_proxy() -> Failure {
    refusal(StatusCode::NOT_FOUND, "proxy not found")
}

pub(super) fn no_toxic() -> Failure {
    refusal(StatusCode::NOT_FOUND, "toxic not found")
}

pub(super) fn proxy_exists() -> Failure {
    refusal(StatusCode::CONFLICT, "proxy already exists")
}

pub(super) fn toxic_exists() -> Failure {
    refusal(StatusCode::CONFLICT, "toxic already exists")
}

/// What Toxiproxy has no status for.
pub(super) fn internal(reason: impl fmt::Display) -> Failure {
    refusal(StatusCode::INTERNAL_SERVER_ERROR, reason)
}
