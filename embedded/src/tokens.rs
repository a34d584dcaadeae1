//! `faultlane tokens`: the token service.
//!
//! | call | answer |
//! |---|---|
//! | `POST /api/sync/token` | a khala token (HS256): [`lanes::token::TokenAnswer`] |
//! | `POST /api/spacetime/token` | a spacetime token (ES256) |
//! | `GET /.well-known/openid-configuration` | `{issuer, jwks_uri, …}` |
//! | `GET /.well-known/jwks.json` | [`lanes::token::Jwks`] |
//! | `GET /.well-known/revoked.json` | [`lanes::token::RevokedList`]: to be looked at again and again |
//! | `POST /api/probe/token` | a token in the state of a [`lanes::token::ProbeRequest`], for probers only |
//!
//! Both token calls take a [`lanes::token::TokenRequest`] with `Authorization: Bearer <session credential>` and are
//! refused, as `{"error": …}`, with 401 `unauthorized`, 403 `forbidden_stream` for a stream that the organisation
//! does not own, 422 `invalid_scope`, 429 `rate_limited` with Retry-After beyond the rate, and 503
//! `sync_token_unavailable` where no token could be made. A lifetime outside the limits is brought within them.
//! `exp` is a whole second: `iat` (now, rounded down) and the lifetime.
//!
//! Control: `GET /status` ([`TokensStatus`]); `POST /rotate`, after which new keys sign and the ones before are
//! still good; and `/faults…` as [`host::faults`], for its clock. Keys survive a restart: they lie in `key_file` and, for ES256,
//! beside it.

mod clock;
mod issue;
pub(crate) mod keys;
mod probe;
pub(crate) mod revoked;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use host::faults::Leased;
use host::http::{Failure, Reply, Request, Response, StatusCode, header};
use lanes::token::{
    JWKS_PATH, PROBE_TOKEN_PATH, REVOKED_PATH, SPACETIME_TOKEN_PATH, SYNC_TOKEN_PATH, Session,
    TokenAnswer,
};
use model::ids::Lane;
use model::role::TokensConfig;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::bucket::Bucket;
use crate::counters::client_of;
use crate::defect::Defects;
use crate::front::{bearer, refusal};
use clock::SkewedClock;
use keys::Keys;
use revoked::Revoked;

const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Counters of the token service: `GET /status`. All since it started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokensStatus {
    /// Its process id.
    pub pid: u32,
    /// Tokens issued.
    pub issued: u64,
    /// Requests refused with 429.
    pub refused_rate: u64,
    /// Refusals by reason, without those.
    pub refused: BTreeMap<String, u64>,
    /// How often the keys were rotated.
    pub rotations: u64,
}

/// A token service that runs.
#[derive(Debug)]
pub struct Running {
    /// Where it issues tokens.
    pub data: SocketAddr,
    /// Its control API.
    pub control: SocketAddr,
    /// Ends after the shutdown.
    pub ended: tokio::task::JoinHandle<()>,
}

/// Runs the token service until `shutdown`; says that it is ready on stdout.
///
/// # Errors
/// It cannot listen, or its keys cannot be read or written.
pub async fn main(config: TokensConfig, shutdown: CancellationToken) -> io::Result<()> {
    let running = start(config, shutdown)?;
    host::child::announce("tokens", running.control, &[("data", running.data)])?;
    running.ended.await.map_err(io::Error::other)
}

/// Starts the token service.
///
/// # Errors
/// It cannot listen, or its keys cannot be read or written.
pub fn start(config: TokensConfig, shutdown: CancellationToken) -> io::Result<Running> {
    let listener = host::net::listen(config.listen)?;
    let control = host::net::listen(([127, 0, 0, 1], 0).into())?;
    let (data_addr, control_addr) = (listener.local_addr()?, control.local_addr()?);
    let service = Arc::new(Service {
        issuer: format!("http://{data_addr}"),
        bucket: config
            .rate
            .map(|rate| Bucket::new(rate, f64::from(config.burst))),
        keys: Mutex::new(Keys::open(&config.key_file)?),
        revoked: Mutex::new(Revoked::open(&config.key_file)?),
        status: Mutex::new(TokensStatus {
            pid: std::process::id(),
            ..TokensStatus::default()
        }),
        defects: Defects::of(config.defect),
        clock: Leased::new(SkewedClock::default()),
        config,
    });
    let enforcing = tokio::spawn(Arc::clone(&service.clock).enforce(shutdown.clone()));
    let data = {
        let service = Arc::clone(&service);
        // Nothing that is asked here is long, and nobody is known before it is read.
        let limit = host::http::STRANGER_LIMIT;
        host::http::serve_within(listener, shutdown.clone(), limit, move |request| {
            let service = Arc::clone(&service);
            async move { service.answer(&request) }
        })
    };
    let control = host::http::serve(control, shutdown, move |request| {
        let service = Arc::clone(&service);
        async move { service.control(&request).await }
    });
    let ended = tokio::spawn(async move {
        let _ = tokio::join!(data, control, enforcing);
    });
    Ok(Running {
        data: data_addr,
        control: control_addr,
        ended,
    })
}

#[derive(Debug)]
struct Service {
    issuer: String,
    bucket: Option<Bucket>,
    keys: Mutex<Keys>,
    revoked: Mutex<Revoked>,
    status: Mutex<TokensStatus>,
    defects: Defects,
    clock: Arc<Leased<SkewedClock>>,
    config: TokensConfig,
}

impl Service {
    fn answer(&self, request: &Request) -> Reply {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", SYNC_TOKEN_PATH) => self.token(Lane::Khala, request),
            ("POST", SPACETIME_TOKEN_PATH) => self.token(Lane::Spacetime, request),
            ("GET", DISCOVERY_PATH) => Response::json(&serde_json::json!({
                "issuer": self.issuer,
                "jwks_uri": format!("{}{JWKS_PATH}", self.issuer),
                "id_token_signing_alg_values_supported": ["ES256"],
                "response_types_supported": ["token"],
                "subject_types_supported": ["public"],
            })),
            ("GET", JWKS_PATH) => Response::json(&self.keys().jwks()),
            ("GET", REVOKED_PATH) => Response::json(self.revoked().list()),
            ("POST", PROBE_TOKEN_PATH) => probe::answer(self, request),
            _ => Err(Failure::no_route(request)),
        }
    }

    async fn control(&self, request: &Request) -> Reply {
        match (request.method.as_str(), request.path.as_str()) {
            (_, path) if path.starts_with("/faults") => self.clock.route(request).await,
            ("GET", "/status") => Response::json(&*self.status()),
            ("POST", "/rotate") => {
                self.keys().rotate().map_err(|error| {
                    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
                })?;
                self.status().rotations += 1;
                tracing::info!("rotated the keys");
                Response::empty()
            }
            _ => Err(Failure::no_route(request)),
        }
    }

    fn token(&self, lane: Lane, request: &Request) -> Reply {
        let client = client_of(&request.headers);
        let session = bearer(request)
            .and_then(|credential| Session::of(&self.config.session_secret, credential));
        let Some(session) = session else {
            return Ok(self.refuse(&client, StatusCode::UNAUTHORIZED, "unauthorized"));
        };
        if let Some(wait) = self
            .bucket
            .as_ref()
            .and_then(|bucket| bucket.take(host::clock::now()).err())
        {
            tracing::info!(
                user = session.user,
                "refused: more tokens than the rate allows"
            );
            self.status().refused_rate += 1;
            // Whole seconds, rounded up: the header knows no others.
            let seconds = wait.as_secs_f64().ceil().clamp(1.0, 60.0);
            return Ok(refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limited")
                .with_header(header::RETRY_AFTER, &format!("{seconds:.0}")));
        }
        let asked = request.json()?;
        let issued = issue::grant(self, lane, &session, asked);
        match issued {
            Ok(grant) => {
                self.status().issued += 1;
                Response::json(&TokenAnswer { data: grant })
            }
            Err(refused) => Ok(self.refuse(&session.user, refused.status(), &refused.to_string())),
        }
    }

    fn refuse(&self, client: &str, status: StatusCode, reason: &str) -> Response {
        tracing::info!(client, reason, "refused");
        // A reason may go on with what it concerns: the first word is what is counted.
        let counted = reason.split(' ').next().unwrap_or(reason).to_owned();
        *self.status().refused.entry(counted).or_default() += 1;
        refusal(status, reason)
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn revoked(&self) -> std::sync::MutexGuard<'_, Revoked> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> std::sync::MutexGuard<'_, TokensStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
