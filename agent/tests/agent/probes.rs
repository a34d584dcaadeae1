//! External probes over real sockets: servers that change their answers, and commands of a real agent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent::client::Agent;
use agent::conductor::probe::Probes;
use host::http::{Failure, Request, Response, StatusCode, serve};
use host::net::listen;
use host::tls::{self, Authority};
use model::command::CommandConfig;
use model::external::ExternalProbe;
use model::quantity::Span;
use scenarios::plan::{Ask, CommandAsk, HttpAsk, Probe, PromqlAsk, Rule, Web};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::support::{ANY_PORT, Node, until};

/// An HTTP server whose answer can be changed, and what it was last asked.
struct Service {
    addr: SocketAddr,
    says: Arc<Mutex<(u16, String)>>,
    heard: Arc<Mutex<Option<Request>>>,
    stop: CancellationToken,
}

impl Service {
    fn start(status: u16, body: &str) -> Self {
        Self::start_at(ANY_PORT, status, body)
    }

    fn start_at(at: SocketAddr, status: u16, body: &str) -> Self {
        let listener = listen(at).unwrap();
        let service = Self {
            addr: listener.local_addr().unwrap(),
            says: Arc::new(Mutex::new((status, body.to_owned()))),
            heard: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (says, heard) = (Arc::clone(&service.says), Arc::clone(&service.heard));
        tokio::spawn(serve(listener, service.stop.clone(), move |request| {
            let (status, body) = says.lock().unwrap().clone();
            *heard.lock().unwrap() = Some(request);
            async move {
                let status = StatusCode::from_u16(status).unwrap();
                let answer = Response::empty()?.with_status(status);
                Ok::<_, Failure>(Response {
                    body: body.into(),
                    ..answer
                })
            }
        }));
        service
    }

    fn now_says(&self, status: u16, body: &str) {
        *self.says.lock().unwrap() = (status, body.to_owned());
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

fn web(url: String) -> Web {
    Web {
        url,
        headers: [].into(),
        ca_pem: None,
    }
}

fn health(web: Web) -> Ask {
    Ask::Http(HttpAsk {
        web,
        status: Some(200),
        contains: Some("ok".to_owned()),
    })
}

fn probe(ask: Ask) -> Probe {
    Probe {
        name: "it".to_owned(),
        ask,
        every: Span::from_millis(100),
        within: Span::from_millis(100),
        rule: Rule::Steady,
    }
}

/// An agent that nobody asks.
fn nobody() -> Agent {
    Agent::new(([127, 0, 0, 1], 1).into())
}

/// A probe under way.
struct Asking {
    probes: Probes,
}

impl Asking {
    fn start(ask: Ask) -> Self {
        Self::start_with(probe(ask), &nobody())
    }

    fn start_with(probe: Probe, agent: &Agent) -> Self {
        Self {
            probes: Probes::start(&[probe], agent),
        }
    }

    /// Waits for an answer that is as wanted.
    async fn hears(&mut self, what: &str, wanted: impl Fn(&Result<(), String>) -> bool) {
        let (began, mut last) = (Instant::now(), None);
        loop {
            self.probes.collect();
            for answer in self.probes.fresh() {
                if wanted(&answer.outcome) {
                    return;
                }
                last = Some(answer.outcome.clone());
            }
            let in_time = began.elapsed() < Duration::from_secs(10);
            assert!(in_time, "{what}; it last heard {last:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn is_good(&mut self) {
        self.hears("good", Result::is_ok).await;
    }

    async fn fails(&mut self, word: &str) {
        let says =
            |outcome: &Result<(), String>| outcome.as_ref().is_err_and(|why| why.contains(word));
        self.hears(word, says).await;
    }

    fn finish(self) -> ExternalProbe {
        self.probes.finish().remove(0)
    }
}

#[tokio::test]
async fn an_endpoint_that_changes_its_answer_is_followed_and_counted() {
    let service = Service::start(200, "all ok");
    let mut asking = Asking::start(health(web(service.url("/healthz?deep=1"))));
    asking.is_good().await;
    {
        let heard = service.heard.lock().unwrap();
        let heard = heard.as_ref().unwrap();
        assert_eq!(
            (heard.path.as_str(), heard.query.as_str()),
            ("/healthz", "deep=1")
        );
        assert_eq!(heard.headers["host"], service.addr.to_string());
    }
    service.now_says(503, "no database");
    asking
        .fails("status 503, and 200 is wanted; of the body: it is `no database`")
        .await;
    service.now_says(200, "degraded");
    asking.fails("does not contain \"ok\"").await;
    service.now_says(200, "ok");
    asking.is_good().await;
    let record = asking.finish();
    assert!(record.good >= 2 && record.failed >= 2, "{record:?}");
    assert!(record.asked >= record.good + record.failed, "{record:?}");
    assert!(
        record.asked <= record.good + record.failed + 1,
        "{record:?}"
    );
    assert!(record.longest_failing_us > 0, "{record:?}");
    let why = record.last_failure.unwrap();
    assert!(why.contains("degraded") || why.contains("503"), "{why}");
}

#[tokio::test]
async fn what_cannot_be_asked_has_failed_and_is_found_again_when_it_is_there() {
    let service = Service::start(200, "ok");
    let (addr, url) = (service.addr, service.url("/"));
    service.stop.cancel();
    let refused = || async { tokio::net::TcpStream::connect(addr).await.is_err() };
    until("the port is closed", refused).await;
    let mut asking = Asking::start(health(web(url)));
    asking.fails("Connection refused").await;
    let _again = Service::start_at(addr, 200, "ok");
    asking.is_good().await;
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_is_well_all_the_same() {
    let listener = listen(ANY_PORT).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                // Its patience ends at the very moment at which it is asked again.
                let _ = stream.read_u8().await;
                counter.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    let patient = Probe {
        within: Span::from_secs(5),
        ..probe(health(web(url)))
    };
    let mut asking = Asking::start_with(patient, &nobody());
    until(
        "it was asked again on a connection that it closed",
        || async { asked.load(Ordering::SeqCst) >= 2 },
    )
    .await;
    asking.is_good().await;
    let record = asking.finish();
    assert_eq!(record.failed, 0, "{record:?}");
}

#[tokio::test]
async fn no_answer_in_time_is_a_failure() {
    // It accepts, by its backlog, and says nothing.
    let silent = listen(ANY_PORT).unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let mut asking = Asking::start(health(web(url)));
    asking.fails("no answer within 100ms").await;
}

#[tokio::test]
async fn a_name_is_looked_up_and_a_name_that_nobody_has_is_said() {
    let service = Service::start(200, "ok");
    let url = format!("http://localhost:{}/", service.addr.port());
    Asking::start(health(web(url))).is_good().await;
    let mut asking = Asking::start_with(
        Probe {
            every: Span::from_secs(8),
            within: Span::from_secs(8),
            ..probe(health(web("http://no-such-host.invalid/".to_owned())))
        },
        &nobody(),
    );
    asking.fails("no-such-host.invalid").await;
}

#[tokio::test]
async fn a_body_without_end_is_not_read_to_its_end() {
    let service = Service::start(200, &"ok".repeat(1 << 20));
    let mut asking = Asking::start_with(
        Probe {
            every: Span::from_secs(5),
            within: Span::from_secs(5),
            ..probe(health(web(service.url("/"))))
        },
        &nobody(),
    );
    asking.fails("length limit").await;
}

#[tokio::test]
async fn a_header_carries_what_the_variable_holds_and_nobody_repeats_it() {
    let path = std::env::var("PATH").unwrap();
    let service = Service::start(500, &format!("you sent {path}"));
    let mut with_header = web(service.url("/"));
    let header = ("x-secret".to_owned(), "is ${PATH}".to_owned());
    with_header.headers = [header].into();
    let ask = health(with_header);
    assert!(
        !serde_json::to_string(&ask).unwrap().contains(&path),
        "{ask}"
    );
    let mut asking = Asking::start(ask);
    asking.fails("you sent [redacted]").await;
    let heard = service.heard.lock().unwrap().take().unwrap();
    assert_eq!(heard.headers["x-secret"], format!("is {path}"));
    let record = format!("{:?}", asking.finish());
    assert!(!record.contains(&path), "{record}");
}

#[tokio::test]
async fn a_variable_that_is_gone_is_a_failure_that_names_it() {
    let service = Service::start(200, "ok");
    let mut with_header = web(service.url("/"));
    let header = ("x-secret".to_owned(), "${FAULTLANE_IS_NOT_SET}".to_owned());
    with_header.headers = [header].into();
    let mut asking = Asking::start(health(with_header));
    asking.fails("`FAULTLANE_IS_NOT_SET` is not set").await;
}

#[tokio::test]
async fn a_private_authority_is_trusted_and_no_other() {
    let ca = Authority::ephemeral("test").unwrap();
    let identity = ca.issue(&["127.0.0.1"]).unwrap();
    let acceptor = TlsAcceptor::from(tls::server(&identity, None).unwrap());
    let listener = listen(ANY_PORT).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let trusting = |authority: &Authority| Probe {
        every: Span::from_secs(5),
        within: Span::from_secs(5),
        ..probe(health(Web {
            ca_pem: Some(authority.pem()),
            ..web(format!("https://{addr}/"))
        }))
    };
    let mut asking = Asking::start_with(trusting(&ca), &nobody());
    asking.is_good().await;
    let other = Authority::ephemeral("other").unwrap();
    let mut asking = Asking::start_with(trusting(&other), &nobody());
    asking.fails("TLS with `127.0.0.1`").await;
}

fn errors(service: &Service) -> Ask {
    Ask::Promql(PromqlAsk {
        web: web(service.url("/prom/")),
        query: "sum(rate(errors_total[1m]))".to_owned(),
        above: None,
        below: Some(1.0),
    })
}

#[tokio::test]
async fn an_instant_query_is_asked_and_its_number_held_against_the_limits() {
    let vector = |value: &str| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{value}"]}}]}}}}"#
        )
    };
    let service = Service::start(200, &vector("0.25"));
    let mut asking = Asking::start(errors(&service));
    asking.is_good().await;
    {
        let heard = service.heard.lock().unwrap();
        let heard = heard.as_ref().unwrap();
        assert_eq!(heard.path, "/prom/api/v1/query");
        assert_eq!(heard.query, "query=sum%28rate%28errors_total%5B1m%5D%29%29");
    }
    service.now_says(200, &vector("12.5"));
    asking
        .fails("the query yields 12.5, and below 1 is wanted")
        .await;
    let refused = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
    service.now_says(400, refused);
    asking.fails("bad_data: parse error").await;
}

#[tokio::test]
async fn a_command_is_run_by_the_agent_and_its_exit_decides() {
    let script = "if [ -e deep ]; then echo deep >&2; exit 3; else echo depth 0; fi";
    let config = CommandConfig {
        run: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        within: Span::from_secs(2),
    };
    let node = Node::with_commands([("queue-depth".to_owned(), config)].into()).await;
    let command = |run: &str| Probe {
        within: Span::from_secs(2),
        ..probe(Ask::Command(CommandAsk {
            run: run.to_owned(),
            contains: Some("depth 0".to_owned()),
        }))
    };
    let mut asking = Asking::start_with(command("queue-depth"), &node.agent);
    asking.is_good().await;
    std::fs::write(node.state_dir().join("commands/deep"), "").unwrap();
    asking
        .fails("exit 3, and 0 is wanted; of stderr: it is `deep`")
        .await;

    let mut asking = Asking::start_with(command("another"), &node.agent);
    asking.fails("no command `another`").await;
}
