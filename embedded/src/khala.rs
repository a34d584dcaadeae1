//! The khala lane: Phoenix frames over `GET /sync/socket/websocket?token=…&vsn=2.0.0`, and the ingress of its
//! publishers ([`lanes::khala::ingress`]).
//!
//! The upgrade is refused, as `{"error": reason}`, with 401 or 403 and the deny reason, with 400 for compatibility
//! metadata outside the supported window, and with 503 and Retry-After beyond the accept rate. Every push but the
//! server's errors goes to the client in both framings. A subscribe with a stale cursor is answered in three forms
//! (`sync:error`, `sync:frame` with seq 0, and the error reply) and subscribes to nothing: the client takes the
//! snapshot and subscribes again from its watermark.
//!
//! Without `strict`, scopes, grants, a token's age and its revocation are not checked, live connections outlive their tokens, and an acknowledgement
//! does not wait for the disk.
//!
//! ```text
//! subscribers   who gets what live, encoded once        session    one connection
//! replay        batches from the log, stale cursors     ingress    append and head
//! ```

mod ingress;
mod replay;
mod session;
mod subscribers;

use std::io;
use std::sync::Arc;

use host::http::{Request, StatusCode, header};
use lanes::khala::{PROTOCOL_VERSION, SCHEMA_VERSION, SOCKET_PATH, VSN, ingress as wire};
use lanes::token::{AUDIENCE_KHALA, DenyReason, SCOPE_SUBSCRIBE};
use model::role::LaneConfig;
use serde_json::json;

use crate::auth::Verifier;
use crate::counters::{Counters, client_of};
use crate::defect::Defects;
use crate::front::{self, Answer, Refused, denied, no_route, parameter, wants_websocket};
use crate::lane::{Ground, Grounded, token_checks};
use session::Session;
use subscribers::Subscribers;

/// Origins that a browser may come from. Clients that send none are fine.
const ORIGINS: [&str; 2] = ["http://localhost", "http://127.0.0.1"];

/// The khala lane's server.
#[derive(Debug)]
pub(crate) struct Khala {
    ground: Ground<Subscribers>,
    verifier: Verifier,
}

impl Khala {
    /// Opens its log.
    pub(crate) fn open(config: LaneConfig) -> io::Result<Self> {
        let (defects, counters) = (Defects::of_lane(&config), Arc::<Counters>::default());
        let verifier = Verifier::of_file(
            &config.key_file,
            &config.issuer,
            AUDIENCE_KHALA,
            config.profile.token_skew,
            token_checks(config.strict),
            defects,
        );
        let subscribers = Subscribers::new(defects, Arc::clone(&counters));
        Ok(Self {
            ground: Ground::open(config, defects, counters, subscribers, true)?,
            verifier,
        })
    }

    async fn upgrade(self: Arc<Self>, request: &Request) -> Result<Answer, Refused> {
        wants_websocket(request)?;
        let client = client_of(&request.headers);
        self.ground.admit(&client)?;
        let query = &request.query;
        let refuse = |reason: &str| self.ground.counters.refuse(&client, reason, "upgrade");
        if let Some(reject) = incompatible(query) {
            refuse(reject);
            let supported = json!({
                "vsn": [VSN],
                "protocol_version": [PROTOCOL_VERSION],
                "schema_version": {"min": SCHEMA_VERSION, "max": SCHEMA_VERSION},
            });
            let body = json!({"error": reject, "supported": supported}).to_string();
            let mut response = front::refusal(StatusCode::BAD_REQUEST, reject);
            response.body = body.into();
            return Err(Box::new(response));
        }
        if !origin_allowed(request) {
            refuse(DenyReason::OriginNotAllowed.name());
            return Err(Box::new(denied(DenyReason::OriginNotAllowed)));
        }
        let token = parameter(query, "token");
        let (claims, expires_us) =
            self.verifier
                .verify(token.as_deref())
                .await
                .map_err(|reason| {
                    refuse(reason.name());
                    Box::new(denied(reason))
                })?;
        if self.checks_grants() && !claims.has_scope(SCOPE_SUBSCRIBE) {
            refuse(DenyReason::MissingScope.name());
            return Err(Box::new(denied(DenyReason::MissingScope)));
        }
        let session = Session::new(Arc::clone(&self), client, claims, expires_us);
        Ok(Answer::upgrade(None, |socket| session.run(socket)))
    }

    fn checks_grants(&self) -> bool {
        self.ground.config.strict && self.ground.defects.checks_grants()
    }
}

impl Grounded for Khala {
    type Audience = Subscribers;

    fn ground(&self) -> &Ground<Subscribers> {
        &self.ground
    }

    fn verifier(&self) -> &Verifier {
        &self.verifier
    }
}

impl front::Lane for Khala {
    fn knows(&self, bearer: Option<&str>) -> bool {
        self.ground.knows(bearer)
    }

    async fn answer(self: Arc<Self>, request: Request) -> Answer {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", SOCKET_PATH) => {
                let answer = self.upgrade(&request).await;
                answer.unwrap_or_else(|refused| Answer::Plain(*refused))
            }
            ("POST", wire::APPEND_PATH) => ingress::append(&self, &request).await,
            ("GET", wire::HEAD_PATH) => ingress::head(&self, &request).await,
            ("POST", wire::REMOVE_PATH) => ingress::remove(&self, &request).await,
            _ => no_route(&request),
        }
    }
}

/// What is wrong with the compatibility metadata, of which all is optional.
fn incompatible(query: &str) -> Option<&'static str> {
    let other = |name: &str, supported: &str| {
        parameter(query, name).is_some_and(|value| value != supported)
    };
    if other("vsn", VSN) {
        Some("upgrade_required")
    } else if other("protocol_version", PROTOCOL_VERSION) {
        Some("unsupported_protocol_version")
    } else if other("schema_version", &SCHEMA_VERSION.to_string()) {
        Some("unsupported_schema_version")
    } else if parameter(query, "client_build_id").is_some_and(|build| build.trim().is_empty()) {
        Some("invalid_client_build")
    } else {
        None
    }
}

fn origin_allowed(request: &Request) -> bool {
    let Some(origin) = request.headers.get(header::ORIGIN) else {
        return true;
    };
    origin.to_str().is_ok_and(|origin| {
        ORIGINS.iter().any(|allowed| {
            origin
                .strip_prefix(allowed)
                .is_some_and(|port| port.is_empty() || port.starts_with(':'))
        })
    })
}
