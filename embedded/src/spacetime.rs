//! The spacetime lane: `SpacetimeDB`'s subscription protocol in its forms `v1.json.spacetimedb` and
//! `v1.bsatn.spacetimedb`, the HTTP calls that a client needs, and the sync module as its one database.
//!
//! | call | answer |
//! |---|---|
//! | `GET /v1/ping` | 200 |
//! | `POST /v1/identity` | `{identity, token}`, signed by this server |
//! | `POST /v1/identity/websocket-token` | `{token}`, good for 60 s |
//! | `GET /v1/database/{db}/subscribe` | 101, and then [`lanes::spacetime::message`] |
//! | `POST /v1/database/{db}/call/{reducer}` | 200; 530 with the reducer's text |
//! | `POST /v1/database/{db}/sql` | rows of `SELECT * FROM table [WHERE …]` |
//!
//! With `strict` it differs from a real server in these ways:
//!
//! - **token**: only tokens of the configured issuer are good (ES256, by its JWKS), for this audience, of no more than
//!   the greatest age and not revoked; without one nothing but ping and identity is answered. A refusal is 401 or 403
//!   with `{"error": deny reason}`.
//! - **scope**: a subscription takes the scope `sync.subscribe`, else its query is refused with `missing_scope`.
//! - **grant**: every query must be confined by `stream_id = '…'` to a stream that the token grants, else it is
//!   refused with `forbidden_stream …`.
//! - **append**: `append_sync_event` takes the publishers' secret as bearer, or the scope `sync.append` and the grant;
//!   `ack_stream_checkpoint` takes the scope `sync.checkpoint` and the grant, and the key `client_id:stream_id`.
//! - **expiry**: a live connection is closed with 1008 and `token_expired` when its token and the skew are over. A
//!   real one takes tokens for another 60 s and leaves live connections alone.
//! - **durable**: an acknowledgement, and the delivery to subscribers, wait for the disk. A real one syncs every
//!   500 ms and loses the newest on a kill.
//! - **retention**: a stream keeps its newest events only; that older ones go is not reported as deletes.
//! - **compression**: binary messages are never compressed.
//! - **idle**: a connection that was silent for too long is closed. A real one leaves a zombie.
//!
//! ```text
//! http      the calls           session       one connection      reducer    the module's two reducers
//! identity  tokens of its own   subscribers   who gets what live  snapshot   rows that match now
//! applied   a snapshot as an answer
//! ```

mod applied;
mod http;
mod identity;
mod reducer;
mod session;
mod snapshot;
mod subscribers;

use std::io;
use std::sync::Arc;

use host::http::{Request, Response, StatusCode, header};
use lanes::spacetime::subprotocol;
use lanes::token::{AUDIENCE_SPACETIME, Claims, DenyReason, SCOPE_SUBSCRIBE};
use model::quantity::Span;
use model::role::LaneConfig;
use model::target::Wire;

use crate::auth::Verifier;
use crate::counters::{Counters, client_of};
use crate::defect::Defects;
use crate::front::{self, Answer, Refused, bearer, denied, parameter, text, wants_websocket};
use crate::lane::{Ground, Grounded, token_checks};
use identity::{Identities, Known};
use session::Session;
use subscribers::Subscribers;

/// With this begins the refusal of a stream that is not granted.
const FORBIDDEN_STREAM: &str = "forbidden_stream";

/// How long past `exp` a real server takes a token.
const REAL_LEEWAY: Span = Span::from_secs(60);

/// The spacetime lane's server.
#[derive(Debug)]
pub(crate) struct Spacetime {
    ground: Ground<Subscribers>,
    verifier: Verifier,
    identities: Identities,
}

/// Who makes a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The name in log lines.
    pub(crate) client: String,
    /// Identity and token as `IdentityToken` tells them.
    pub(crate) known: Known,
    /// The claims of the issuer's token; `None` for the publishers' secret and, where not strict, for others.
    pub(crate) claims: Option<Claims>,
    /// When the token ends, in micro-seconds since the Unix epoch.
    pub(crate) expires_us: Option<u64>,
    /// Whether it may do everything.
    pub(crate) trusted: bool,
}

impl Caller {
    /// Why it may not do something to a stream (`None`: to all of them); `None` when it may.
    pub(crate) fn refusal(&self, scope: &str, stream: Option<&str>) -> Option<String> {
        if self.trusted {
            return None;
        }
        let Some(claims) = &self.claims else {
            return Some(DenyReason::MissingToken.name().to_owned());
        };
        if !claims.has_scope(scope) {
            return Some(DenyReason::MissingScope.name().to_owned());
        }
        match stream {
            Some(stream) if claims.grants(stream) => None,
            stream => Some(format!("{FORBIDDEN_STREAM} {}", stream.unwrap_or("*"))),
        }
    }
}

impl Spacetime {
    /// Opens its log and its keys.
    pub(crate) fn open(config: LaneConfig) -> io::Result<Self> {
        let (defects, counters) = (Defects::of_lane(&config), Arc::<Counters>::default());
        let skew = if config.strict {
            config.profile.token_skew
        } else {
            REAL_LEEWAY
        };
        let verifier = Verifier::of_issuer(
            &config.issuer,
            AUDIENCE_SPACETIME,
            skew,
            token_checks(config.strict),
            defects,
        );
        let subscribers = Subscribers::new(defects, Arc::clone(&counters));
        let trims = config.strict;
        let ground = Ground::open(config, defects, counters, subscribers, trims)?;
        Ok(Self {
            identities: Identities::open(&ground.config.data_dir)?,
            ground,
            verifier,
        })
    }

    /// Whoever makes a request.
    ///
    /// # Errors
    /// 401, counted and logged.
    pub(crate) async fn caller(&self, request: &Request) -> Result<Caller, Refused> {
        let client = client_of(&request.headers);
        let from_query = parameter(&request.query, "token");
        let token = bearer(request).or(from_query.as_deref());
        let refuse = |reason: DenyReason| {
            self.ground
                .counters
                .refuse(&client, reason.name(), &request.path);
            Err(Box::new(denied(reason)))
        };
        let mut caller = Caller {
            client: client.clone(),
            known: Known::default(),
            claims: None,
            expires_us: None,
            trusted: !self.ground.config.strict || !self.ground.defects.checks_grants(),
        };
        if self.ground.is_publisher(token) {
            caller.known = Identities::publisher();
            caller.trusted = true;
            return Ok(caller);
        }
        if !self.ground.config.strict {
            let own = match token {
                None => self.identities.create().ok(),
                Some(token) => self.identities.known(token),
            };
            if let Some(known) = own {
                caller.known = known;
                return Ok(caller);
            }
        }
        match self.verifier.verify(token).await {
            Err(reason) => refuse(reason),
            Ok((claims, expires_us)) => {
                caller.known = Identities::of_claims(&claims, token.unwrap_or_default());
                caller.claims = Some(claims);
                caller.expires_us = Some(expires_us);
                Ok(caller)
            }
        }
    }

    async fn subscribe(self: Arc<Self>, request: &Request) -> Result<Answer, Refused> {
        wants_websocket(request)?;
        let client = client_of(&request.headers);
        self.ground.admit(&client)?;
        let offered = request.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let mut offered = offered
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(str::trim));
        let wire = offered.find_map(|protocol| {
            [Wire::Json, Wire::Bsatn]
                .into_iter()
                .find(|wire| subprotocol(*wire) == protocol)
        });
        let Some(wire) = wire else {
            self.ground
                .counters
                .refuse(&client, "no_subprotocol", "upgrade");
            return Err(Box::new(text(
                StatusCode::BAD_REQUEST,
                "no valid protocol selected",
            )));
        };
        let compression = parameter(&request.query, "compression");
        if let Some(other) =
            compression.filter(|name| !["None", "Brotli", "Gzip"].contains(&name.as_str()))
        {
            let unknown =
                format!("unknown variant `{other}`, expected one of `None`, `Brotli`, `Gzip`");
            return Err(Box::new(text(StatusCode::BAD_REQUEST, &unknown)));
        }
        let connection_id = match parameter(&request.query, "connection_id") {
            None => None,
            Some(digits) => match u128::from_str_radix(&digits, 16) {
                Ok(number) if number != 0 && digits.len() == 32 => Some(number),
                _ => {
                    let invalid = text(StatusCode::BAD_REQUEST, "invalid connection_id");
                    return Err(Box::new(invalid));
                }
            },
        };
        let light = parameter(&request.query, "light").is_some_and(|value| value == "true");
        let caller = self.caller(request).await?;
        let session = Session::new(Arc::clone(&self), caller, connection_id, light, wire);
        Ok(Answer::upgrade(Some(subprotocol(wire)), |socket| {
            session.run(socket)
        }))
    }

    /// Why a caller may not read with a query; `None` when it may.
    pub(crate) fn query_refusal(
        &self,
        caller: &Caller,
        query: &lanes::spacetime::query::Query,
    ) -> Option<String> {
        let refusal = caller.refusal(SCOPE_SUBSCRIBE, query.stream())?;
        let reason = refusal.split(' ').next().unwrap_or(&refusal);
        self.ground
            .counters
            .refuse(&caller.client, reason, &query.to_string());
        Some(refusal)
    }
}

impl Grounded for Spacetime {
    type Audience = Subscribers;

    fn ground(&self) -> &Ground<Subscribers> {
        &self.ground
    }

    fn verifier(&self) -> &Verifier {
        &self.verifier
    }
}

impl front::Lane for Spacetime {
    fn knows(&self, bearer: Option<&str>) -> bool {
        self.ground.knows(bearer)
    }

    async fn answer(self: Arc<Self>, request: Request) -> Answer {
        let path = request.path.clone();
        let segments: Vec<&str> = path.split('/').filter(|each| !each.is_empty()).collect();
        let plain = |answer: Result<Response, Refused>| {
            Answer::Plain(answer.unwrap_or_else(|refused| *refused))
        };
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["v1", "ping"]) => Answer::Plain(text(StatusCode::OK, "")),
            ("POST", ["v1", "identity"]) => plain(http::identity(&self)),
            ("POST", ["v1", "identity", "websocket-token"]) => {
                plain(http::websocket_token(&self, &request).await)
            }
            (_, ["v1", "database", database, ..]) if *database != self.ground.config.database => {
                Answer::Plain(text(StatusCode::NOT_FOUND, ""))
            }
            ("GET", ["v1", "database", _, "subscribe"]) => {
                let answer = self.subscribe(&request).await;
                answer.unwrap_or_else(|refused| Answer::Plain(*refused))
            }
            ("POST", ["v1", "database", _, "call", reducer]) => {
                plain(http::call(&self, &request, reducer).await)
            }
            ("POST", ["v1", "database", _, "sql"]) => plain(http::sql(&self, &request).await),
            _ => front::no_route(&request),
        }
    }
}
