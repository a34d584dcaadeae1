//! A running target, and clients that speak its protocols frame by frame.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use embedded::{lane, tokens};
use futures_util::{SinkExt, StreamExt};
use host::http::{Client, Method, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use lanes::khala::ingress::{APPEND_PATH, Append, Appended};
use lanes::khala::message::{Reply, Request, ResumeAfter, ServerMessage, Subscribe, Subscribed};
use lanes::spacetime::message::{ClientMessage, QueryId};
use lanes::spacetime::named;
use lanes::spacetime::rows::SyncEvent;
use lanes::token::{
    SCOPE_SUBSCRIBE, SPACETIME_TOKEN_PATH, SYNC_TOKEN_PATH, TokenAnswer, TokenGrant, TokenRequest,
    session_credential,
};
use model::defect::Defect;
use model::event::payload_hash;
use model::ids::Lane;
use model::profile::Profile;
use model::quantity::Span;
use model::role::{LaneConfig, LaneStatus, TokensConfig};
use model::target::Names;
use model::topic::topic_of;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_websockets::{ClientBuilder, CloseCode, Message, WebSocketStream};

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
pub(crate) const SECRET: &str = "publish";
pub(crate) const STREAM: &str = "runtime.run.1.events";
pub(crate) const OTHER: &str = "runtime.run.2.events";
pub(crate) const RIVAL: &str = "runtime.run.rival.events";

/// A lane with its token service.
pub(crate) struct Target {
    pub(crate) lane: LaneConfig,
    pub(crate) tokens: Client,
    pub(crate) tokens_addr: SocketAddr,
    pub(crate) tokens_control: Client,
    running: Option<(lane::Running, CancellationToken)>,
    stop_tokens: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Target {
    pub(crate) fn start(kind: Lane) -> Self {
        Self::with(kind, None, |_, _| {})
    }

    pub(crate) fn defective(kind: Lane, defect: Defect) -> Self {
        Self::with(kind, Some(defect), |_, _| {})
    }

    pub(crate) fn with(
        kind: Lane,
        defect: Option<Defect>,
        change: impl FnOnce(&mut LaneConfig, &mut TokensConfig),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let any = ([127, 0, 0, 1], 0).into();
        let mut tokens = TokensConfig {
            listen: any,
            key_file: folder.path().join("keys.json"),
            session_secret: "session".to_owned(),
            ttl: Span::from_secs(60),
            ttl_limits: (Span::from_secs(1), Span::from_secs(900)),
            refresh_lead: Span::from_secs(1),
            skew: Span::ZERO,
            rate: None,
            burst: 1,
            tenants: [
                ("org".to_owned(), vec![STREAM.to_owned(), OTHER.to_owned()]),
                ("rival".to_owned(), vec![RIVAL.to_owned()]),
            ]
            .into(),
            defect,
        };
        let mut lane = LaneConfig {
            lane: kind,
            listen: any,
            data_dir: folder.path().join("data"),
            profile: Profile::embedded(),
            strict: true,
            accept_rate: None,
            database: "sync".to_owned(),
            issuer: String::new(),
            key_file: tokens.key_file.clone(),
            publish_secret: SECRET.to_owned(),
            stream_budgets: [(OTHER.to_owned(), (10, 5))].into(),
            defect,
        };
        change(&mut lane, &mut tokens);
        let stop_tokens = CancellationToken::new();
        let service = tokens::start(tokens, stop_tokens.clone()).unwrap();
        lane.issuer = format!("http://{}", service.data);
        let mut target = Self {
            lane,
            tokens: Client::new(service.data),
            tokens_addr: service.data,
            tokens_control: Client::new(service.control),
            running: None,
            stop_tokens,
            _folder: folder,
        };
        target.start_lane();
        target
    }

    pub(crate) fn start_lane(&mut self) {
        let stop = CancellationToken::new();
        let running = lane::start(self.lane.clone(), stop.clone()).unwrap();
        self.lane.listen = running.data;
        self.running = Some((running, stop));
    }

    /// Ends the lane; everything is on its disk then.
    pub(crate) async fn stop_lane(&mut self) {
        let (running, stop) = self.running.take().unwrap();
        stop.cancel();
        running.ended.await.unwrap();
    }

    pub(crate) fn http(&self) -> Client {
        Client::new(self.lane.listen)
    }

    pub(crate) async fn status(&self) -> LaneStatus {
        let control = self.running.as_ref().unwrap().0.control;
        Client::new(control).get("/status", PATIENCE).await.unwrap()
    }

    pub(crate) async fn ask_token(&self, org: &str, user: &str, asked: &TokenRequest) -> Response {
        let path = match self.lane.lane {
            Lane::Khala => SYNC_TOKEN_PATH,
            Lane::Spacetime => SPACETIME_TOKEN_PATH,
        };
        let bearer = format!("Bearer {}", session_credential("session", org, user));
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let body = serde_json::to_vec(asked).unwrap().into();
        let answer = self
            .tokens
            .send(Method::POST, path, &headers, body, PATIENCE);
        answer.await.unwrap()
    }

    pub(crate) async fn grant(&self, asked: &TokenRequest) -> TokenGrant {
        let answer = self.ask_token("org", "user", asked).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        serde_json::from_slice::<TokenAnswer>(&answer.body)
            .unwrap()
            .data
    }

    /// A token for both streams of the organisation.
    pub(crate) async fn token(&self) -> String {
        self.grant(&subscriber()).await.token
    }

    pub(crate) async fn token_for(&self, seconds: u64) -> TokenGrant {
        self.grant(&TokenRequest {
            ttl_seconds: Some(seconds),
            ..subscriber()
        })
        .await
    }

    /// Appends events number `from` to `to` (both included), which get those seqs.
    pub(crate) async fn publish(&self, stream: &str, from: u64, to: u64) {
        for n in from..=to {
            let answer = self.append(&event(stream, n)).await;
            assert_eq!(answer.status, 200, "event {n}: {:?}", answer.body);
        }
    }

    pub(crate) async fn append(&self, event: &SyncEvent) -> Response {
        match self.lane.lane {
            Lane::Khala => {
                let append = Append {
                    stream_id: event.stream_id.clone(),
                    idempotency_key: event.idempotency_key.clone(),
                    payload_hash: event.payload_hash.clone(),
                    payload_json: event.payload_json.clone(),
                    expected_next_seq: event.seq,
                    committed_at_unix_ms: event.committed_at_unix_ms,
                };
                self.post(APPEND_PATH, &append, SECRET).await
            }
            Lane::Spacetime => {
                let path = format!("/v1/database/{}/call/append_sync_event", self.lane.database);
                let row: serde_json::Value = serde_json::from_str(&event.positional()).unwrap();
                self.post(&path, &row, SECRET).await
            }
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &impl Serialize, bearer: &str) -> Response {
        let bearer = format!("Bearer {bearer}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let body = serde_json::to_vec(body).unwrap().into();
        let answer = self
            .http()
            .send(Method::POST, path, &headers, body, PATIENCE)
            .await;
        answer.unwrap()
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let body = body.to_owned().into();
        self.http()
            .send(method, path, headers, body, PATIENCE)
            .await
            .unwrap()
    }

    /// A subscriber of the khala lane that has joined.
    pub(crate) async fn khala(&self, token: &str) -> Khala {
        let mut client = Khala {
            socket: self.socket(&khala_path(token), &[]).await.unwrap(),
            refs: 0,
        };
        let (_, reply) = client.ask(&Request::Join).await;
        assert!(matches!(reply, Reply::Ok(_)), "{reply:?}");
        client
    }

    /// A connection to the spacetime lane that has been greeted.
    pub(crate) async fn spacetime(&self, token: &str) -> Spacetime {
        self.spacetime_as(token, "c0000").await
    }

    pub(crate) async fn spacetime_as(&self, token: &str, client: &str) -> Spacetime {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("sec-websocket-protocol", "v1.json.spacetimedb"),
            (model::ids::CLIENT_HEADER, client),
        ];
        let path = format!("/v1/database/{}/subscribe", self.lane.database);
        let mut client = Spacetime {
            socket: self.socket(&path, &headers).await.unwrap(),
        };
        assert!(matches!(
            client.next().await,
            lanes::spacetime::message::ServerMessage::IdentityToken(_)
        ));
        client
    }

    /// Upgrades; the refusal as it came otherwise.
    pub(crate) async fn socket(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Socket, Response> {
        let stream = TcpStream::connect(self.lane.listen).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = hyper::Request::get(path)
            .header("host", "lane")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender
            .send_request(request.body(Empty::<Bytes>::new()).unwrap())
            .await
            .unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        if status != 101 {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            return Err(Response {
                status,
                headers,
                body,
            });
        }
        assert_eq!(
            headers["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        Ok(ClientBuilder::new().take_over(TokioIo::new(upgraded)))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop_tokens.cancel();
        if let Some((_, stop)) = &self.running {
            stop.cancel();
        }
    }
}

pub(crate) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

pub(crate) fn khala_path(token: &str) -> String {
    lanes::khala::socket_path(token, "test")
}

pub(crate) fn subscriber() -> TokenRequest {
    TokenRequest {
        scopes: vec![SCOPE_SUBSCRIBE.to_owned()],
        streams: vec![STREAM.to_owned(), OTHER.to_owned()],
        ..TokenRequest::default()
    }
}

pub(crate) fn event(stream: &str, n: u64) -> SyncEvent {
    let payload_json = format!("{{\"n\":{n}}}");
    SyncEvent {
        stream_id: stream.to_owned(),
        seq: n,
        idempotency_key: format!("{stream}:{n}"),
        payload_hash: payload_hash(&payload_json),
        payload_json,
        committed_at_unix_ms: 1,
        durable_offset: 0,
        confirmed_read: false,
    }
}

/// The subscription to a stream's events above `after`.
pub(crate) fn events_after(stream: &str, after: u64) -> String {
    named::events_after(&Names::default(), stream, after)
}

/// The subscription to a stream's head.
pub(crate) fn head_of(stream: &str) -> String {
    named::head_of(&Names::default(), stream)
}

pub(crate) fn error_of(answer: &Response) -> String {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    body["error"].as_str().unwrap().to_owned()
}

pub(crate) fn appended(answer: &Response) -> Appended {
    serde_json::from_slice(&answer.body).unwrap()
}

/// The next text; the Close's code and reason, or `None` for an end without one.
async fn next_text(socket: &mut Socket) -> Result<String, Option<(CloseCode, String)>> {
    loop {
        let next = tokio::time::timeout(PATIENCE, socket.next()).await;
        match next.expect("a message in time") {
            Some(Ok(message)) if message.is_text() => {
                return Ok(message.as_text().unwrap().to_owned());
            }
            Some(Ok(message)) if message.is_close() => {
                let (code, reason) = message.as_close().unwrap();
                return Err(Some((code, reason.to_owned())));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(None),
        }
    }
}

/// A client of the khala lane.
pub(crate) struct Khala {
    pub(crate) socket: Socket,
    refs: u32,
}

impl Khala {
    pub(crate) async fn next(&mut self) -> ServerMessage {
        self.next_or_close().await.expect("no close")
    }

    pub(crate) async fn next_or_close(
        &mut self,
    ) -> Result<ServerMessage, Option<(CloseCode, String)>> {
        loop {
            let message = ServerMessage::decode(&next_text(&mut self.socket).await?).unwrap();
            let tick = matches!(&message, ServerMessage::Heartbeat(_))
                || matches!(&message, ServerMessage::Frame(frame)
                    if frame.kind == lanes::khala::message::FrameKind::Heartbeat);
            if !tick {
                return Ok(message);
            }
        }
    }

    /// Sends a request; what came before its reply, and the reply.
    pub(crate) async fn ask(&mut self, request: &Request) -> (Vec<ServerMessage>, Reply) {
        self.refs += 1;
        let reference = self.refs.to_string();
        let text = request.encode("1", &reference);
        self.socket.send(Message::text(text)).await.unwrap();
        let mut before = Vec::new();
        loop {
            match self.next().await {
                ServerMessage::Reply {
                    reference: Some(own),
                    reply,
                } if own == reference => return (before, reply),
                other => before.push(other),
            }
        }
    }

    pub(crate) async fn subscribe(
        &mut self,
        stream: &str,
        after: u64,
    ) -> (Vec<ServerMessage>, Reply) {
        let topic = topic_of(stream).unwrap();
        self.ask(&Request::Subscribe(Subscribe {
            topics: vec![topic.clone()],
            resume_after: ResumeAfter::Map([(topic, after)].into()),
            replay_batch_size: 4,
        }))
        .await
    }

    /// Subscribes; the seqs that were replayed.
    pub(crate) async fn resume(&mut self, stream: &str, after: u64) -> Vec<u64> {
        let (before, reply) = self.subscribe(stream, after).await;
        reply.response::<Subscribed>().unwrap();
        batch_seqs(&before)
    }

    /// The seq of the next live update; each comes in both framings.
    pub(crate) async fn next_seq(&mut self) -> u64 {
        let (batch, frame) = (self.next().await, self.next().await);
        let seqs = batch_seqs(std::slice::from_ref(&batch));
        assert_eq!(seqs.len(), 1, "{batch:?}");
        assert!(
            matches!(&frame, ServerMessage::Frame(frame) if frame.seq == seqs[0]),
            "{frame:?}"
        );
        seqs[0]
    }
}

/// The seqs in update batches.
pub(crate) fn batch_seqs(messages: &[ServerMessage]) -> Vec<u64> {
    messages
        .iter()
        .filter_map(|message| match message {
            ServerMessage::UpdateBatch(batch) => {
                Some(batch.updates.iter().map(|update| update.watermark))
            }
            _ => None,
        })
        .flatten()
        .collect()
}

/// A client of the spacetime lane.
pub(crate) struct Spacetime {
    pub(crate) socket: Socket,
}

impl Spacetime {
    pub(crate) async fn next(&mut self) -> lanes::spacetime::message::ServerMessage {
        self.next_or_close().await.expect("no close")
    }

    pub(crate) async fn next_or_close(
        &mut self,
    ) -> Result<lanes::spacetime::message::ServerMessage, Option<(CloseCode, String)>> {
        let text = next_text(&mut self.socket).await?;
        Ok(lanes::spacetime::message::ServerMessage::decode(&text).unwrap())
    }

    pub(crate) async fn send(&mut self, message: &ClientMessage) {
        self.socket
            .send(Message::text(message.encode()))
            .await
            .unwrap();
    }

    pub(crate) async fn subscribe(&mut self, id: u32, queries: &[String]) {
        self.send(&ClientMessage::SubscribeMulti {
            query_strings: queries.to_vec(),
            request_id: id,
            query_id: QueryId { id },
        })
        .await;
    }
}

/// The JSON body of an answer.
pub(crate) fn json<T: DeserializeOwned>(answer: &Response) -> T {
    serde_json::from_slice(&answer.body).unwrap()
}
