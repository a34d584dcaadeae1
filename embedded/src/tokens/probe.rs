//! Tokens in any state, for probers.

use host::http::{Failure, Reply, Request, Response, StatusCode};
use lanes::token::is_probe_credential;
use lanes::token::{AUDIENCE_KHALA, AUDIENCE_SPACETIME, Claims, ProbeRequest, ProbeToken};
use model::ids::Lane;

use super::Service;
use super::issue::session_id;
use crate::front::{bearer, refusal};

/// `POST /api/probe/token`. It takes nothing from the rate, and goes by the true time whatever the service's clock says: probes
/// are not what a drill measures.
pub(super) fn answer(service: &Service, request: &Request) -> Reply {
    let secret = &service.config.session_secret;
    if !bearer(request).is_some_and(|credential| is_probe_credential(secret, credential)) {
        return Ok(refusal(StatusCode::UNAUTHORIZED, "unauthorized"));
    }
    let asked: ProbeRequest = request.json()?;
    let now = host::clock::unix_micros() / 1_000_000;
    let keys = service.keys();
    let Some(key) = keys.of(asked.key, asked.lane) else {
        let none = "sync_token_unavailable: there is no previous key before the first rotation";
        return Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, none));
    };
    let claims = Claims {
        iss: service.issuer.clone(),
        aud: match asked.lane {
            Lane::Khala => AUDIENCE_KHALA,
            Lane::Spacetime => AUDIENCE_SPACETIME,
        }
        .to_owned(),
        sub: asked.user.clone(),
        jti: keys.token_id(),
        iat: now.saturating_add_signed(asked.issued_s),
        nbf: now.saturating_add_signed(asked.not_before_s),
        exp: now.saturating_add_signed(asked.expires_s),
        oa_session_id: session_id(&asked.org, &asked.user),
        oa_org_id: asked.org,
        oa_device_id: asked.user,
        oa_sync_scopes: asked.scopes,
        oa_sync_streams: asked.streams,
        oa_claims_version: 1,
    };
    let broken = |error: &dyn std::fmt::Display| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    let token = key.sign(&claims).map_err(|error| broken(&error))?;
    drop(keys);
    if asked.revoked {
        let mut revoked = service.revoked();
        revoked
            .revoke(&claims.jti, claims.exp, now)
            .map_err(|error| broken(&error))?;
    }
    Response::json(&ProbeToken { token })
}
