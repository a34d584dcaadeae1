//! What goes into a token.

use host::http::StatusCode;
use lanes::token::{
    AUDIENCE_KHALA, AUDIENCE_SPACETIME, Claims, SCOPE_SUBSCRIBE, SCOPES, Session, TokenGrant,
    TokenRequest,
};
use model::event::hex;
use model::ids::Lane;
use model::topic::{stream_of, topic_of};
use sha2::{Digest, Sha256};

use super::Service;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A scope that does not exist.
    #[error("invalid_scope {0}")]
    InvalidScope(String),
    /// A stream that the organisation does not own.
    #[error("forbidden_stream {0}")]
    ForbiddenStream(String),
    /// It could not be signed.
    #[error("sync_token_unavailable")]
    Unavailable,
}

impl Refused {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::InvalidScope(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::ForbiddenStream(_) => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Issues a token.
pub(super) fn grant(
    service: &Service,
    lane: Lane,
    session: &Session,
    asked: TokenRequest,
) -> Result<TokenGrant, Refused> {
    let mut scopes = asked.scopes;
    if scopes.is_empty() {
        scopes.push(SCOPE_SUBSCRIBE.to_owned());
    }
    if let Some(scope) = scopes
        .iter()
        .find(|scope| !SCOPES.contains(&scope.as_str()))
    {
        return Err(Refused::InvalidScope(scope.clone()));
    }
    let mut streams = asked.streams;
    streams.extend(asked.topics.iter().map(|topic| stream_of(topic)));
    streams.sort_unstable();
    streams.dedup();
    let own = service.config.tenants.get(&session.org);
    let foreign = |stream: &&String| own.is_none_or(|own| !own.contains(stream));
    if let Some(stream) = streams.iter().find(foreign)
        && service.defects.checks_grants()
    {
        return Err(Refused::ForbiddenStream(stream.clone()));
    }

    let (shortest, longest) = service.config.ttl_limits;
    let (shortest, longest) = (
        shortest.as_micros().div_ceil(1_000_000).max(1),
        longest.as_micros() / 1_000_000,
    );
    let default = service.config.ttl.as_micros() / 1_000_000;
    let ttl = asked
        .ttl_seconds
        .unwrap_or(default)
        .min(longest)
        .max(shortest);
    let lead = service.config.refresh_lead.as_micros().div_ceil(1_000_000);
    let refresh_after_in = ttl.saturating_sub(lead).max(1);
    let now = service.clock.holder().issue() / 1_000_000;

    let (audience, transport) = match lane {
        Lane::Khala => (AUDIENCE_KHALA, "khala_ws"),
        Lane::Spacetime => (AUDIENCE_SPACETIME, "spacetime_ws"),
    };
    let keys = service.keys();
    let key = keys.signing(lane);
    let session_id = session_id(&session.org, &session.user);
    let token_id = keys.token_id();
    let claims = Claims {
        iss: service.issuer.clone(),
        aud: audience.to_owned(),
        sub: session.user.clone(),
        jti: token_id,
        iat: now,
        nbf: now.saturating_sub(service.config.skew.as_micros() / 1_000_000),
        exp: now + ttl,
        oa_org_id: session.org.clone(),
        oa_session_id: session_id,
        oa_device_id: asked.device_id.unwrap_or_else(|| session.user.clone()),
        oa_sync_scopes: scopes,
        oa_sync_streams: streams,
        oa_claims_version: 1,
    };
    let token = key.sign(&claims).map_err(|error| {
        tracing::error!(%error, "a token could not be signed");
        Refused::Unavailable
    })?;
    Ok(TokenGrant {
        token,
        token_type: "Bearer".to_owned(),
        transport: transport.to_owned(),
        expires_in: ttl,
        refresh_after_in,
        issued_at: now,
        refresh_after: now + refresh_after_in,
        expires_at: claims.exp,
        issuer: claims.iss,
        audience: claims.aud,
        subject: claims.sub,
        scopes: claims.oa_sync_scopes,
        granted_topics: claims
            .oa_sync_streams
            .iter()
            .filter_map(|stream| topic_of(stream))
            .collect(),
        granted_streams: claims.oa_sync_streams,
        kid: key.kid().to_owned(),
        token_id: claims.jti,
        session_id: claims.oa_session_id,
        device_id: claims.oa_device_id,
    })
}

/// The id of a user's one session.
pub(super) fn session_id(org: &str, user: &str) -> String {
    hex(&Sha256::digest(format!("{org}/{user}"))[..8])
}
