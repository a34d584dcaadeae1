//! Words to a running server, over its API.

use std::fmt::Write as _;
use std::time::Duration;

use host::http::{Client, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{resolve, tls, token};
use crate::cli::proxy::{ProxyCommand, ServerArgs, Stream, ToxicArgs, ToxicCommand};
use crate::commands::{print, processes};
use crate::exit::{Error, Exit};

const TIMEOUT: Duration = Duration::from_secs(5);

/// One call of the API.
struct Call {
    method: Method,
    path: String,
    body: Value,
}

pub(super) fn tell(command: ProxyCommand) -> Result<Exit, Error> {
    match command {
        ProxyCommand::List { server } => {
            let answer = ask(&server, get("/proxies".to_owned()))?;
            let proxies = answer.as_object().into_iter().flatten();
            let lines: String = proxies.map(|(_, proxy)| line(proxy)).collect();
            show(&server, &answer, &lines);
        }
        ProxyCommand::Inspect { name, server } => {
            let answer = ask(&server, get(proxy_path(&name)))?;
            show(&server, &answer, &detail(&answer));
        }
        ProxyCommand::Create {
            name,
            listen,
            upstream,
            identify_by,
            disabled,
            tls,
            server,
        } => {
            let mut body =
                json!({"name": name, "listen": listen, "upstream": upstream, "enabled": !disabled});
            if let Some(by) = identify_by {
                body["identify_by"] = identification(&by)?;
            }
            if let Some(tls) = tls::field(tls)? {
                body["tls"] = tls;
            }
            let answer = ask(&server, post("/proxies".to_owned(), body))?;
            show(&server, &answer, &line(&answer));
        }
        ProxyCommand::Delete { name, server } => {
            ask(&server, delete(proxy_path(&name)))?;
            show(&server, &json!({}), &format!("deleted {name}\n"));
        }
        ProxyCommand::Toggle { name, server } => {
            let before = ask(&server, get(proxy_path(&name)))?;
            let body = json!({"enabled": before["enabled"] != true});
            let answer = ask(&server, post(proxy_path(&name), body))?;
            show(&server, &answer, &line(&answer));
        }
        ProxyCommand::Reset { server } => {
            ask(&server, post("/reset".to_owned(), Value::Null))?;
            let done = "every proxy is enabled, and has no toxics\n";
            show(&server, &json!({}), done);
        }
        ProxyCommand::Toxic { command } => tell_toxic(command)?,
    }
    Ok(Exit::Go)
}

fn tell_toxic(command: ToxicCommand) -> Result<(), Error> {
    match command {
        ToxicCommand::Add {
            proxy,
            kind,
            name,
            stream,
            toxic,
            server,
        } => {
            let mut body = body(&toxic)?;
            body.insert("type".to_owned(), kind.into());
            body.insert("stream".to_owned(), direction(stream).into());
            if let Some(name) = name {
                body.insert("name".to_owned(), name.into());
            }
            let path = format!("{}/toxics", proxy_path(&proxy));
            let answer = ask(&server, post(path, body.into()))?;
            show(&server, &answer, &toxic_line(&answer));
        }
        ToxicCommand::Update {
            proxy,
            toxic_name,
            toxic,
            server,
        } => {
            let call = post(toxic_path(&proxy, &toxic_name), body(&toxic)?.into());
            let answer = ask(&server, call)?;
            show(&server, &answer, &toxic_line(&answer));
        }
        ToxicCommand::Remove {
            proxy,
            toxic_name,
            server,
        } => {
            ask(&server, delete(toxic_path(&proxy, &toxic_name)))?;
            let done = format!("removed {toxic_name} from {proxy}\n");
            show(&server, &json!({}), &done);
        }
    }
    Ok(())
}

/// Where clients say who they are, as the API takes it.
fn identification(by: &str) -> Result<Value, Error> {
    match by.split_once('=') {
        Some((place @ ("header" | "query"), name)) => Ok(json!({place: name})),
        _ => Err(Error::usage(format!(
            "--identify-by {by}: write header=NAME or query=NAME, such as header=X-Client"
        ))),
    }
}

/// What was typed about a toxic, as the API takes it.
fn body(toxic: &ToxicArgs) -> Result<Map<String, Value>, Error> {
    let mut body = Map::new();
    if let Some(toxicity) = toxic.toxicity {
        body.insert("toxicity".to_owned(), toxicity.into());
    }
    if let Some(lifetime) = toxic.lifetime {
        body.insert(
            "for".to_owned(),
            lifetime.as_micros().div_ceil(1_000).into(),
        );
    }
    let mut attributes = Map::new();
    for attribute in &toxic.attributes {
        let Some((key, value)) = attribute.split_once('=') else {
            return Err(Error::usage(format!(
                "--attribute {attribute}: write KEY=VALUE, such as latency=100"
            )));
        };
        // What is no number is a word.
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        attributes.insert(key.to_owned(), value);
    }
    body.insert("attributes".to_owned(), attributes.into());
    Ok(body)
}

const fn direction(stream: Stream) -> &'static str {
    match stream {
        Stream::Upstream => "upstream",
        Stream::Downstream => "downstream",
        Stream::Both => "both",
    }
}

fn get(path: String) -> Call {
    Call {
        method: Method::GET,
        path,
        body: Value::Null,
    }
}

fn post(path: String, body: Value) -> Call {
    Call {
        method: Method::POST,
        path,
        body,
    }
}

fn delete(path: String) -> Call {
    Call {
        method: Method::DELETE,
        path,
        body: Value::Null,
    }
}

fn proxy_path(name: &str) -> String {
    format!("/proxies/{}", encoded(name))
}

fn toxic_path(proxy: &str, toxic: &str) -> String {
    format!("{}/toxics/{}", proxy_path(proxy), encoded(toxic))
}

/// A name as it stands in a path.
fn encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("a string takes whatever is written to it");
        }
        path
    })
}

/// What the server answers; `{}` where it says nothing.
fn ask(server: &ServerArgs, call: Call) -> Result<Value, Error> {
    let wrong = |reason: &str| Error::usage(format!("--host {}: {reason}", server.host));
    let authority = match server.host.split_once("://") {
        Some(("http", authority)) => authority,
        Some(_) => return Err(wrong("the API speaks http:// only")),
        None => &server.host,
    };
    let (host, port) = authority
        .trim_end_matches('/')
        .rsplit_once(':')
        .ok_or_else(|| wrong("write it like http://localhost:8474"))?;
    let port = port
        .parse()
        .map_err(|_| wrong("its port is not a number"))?;
    let addr = resolve(host, port)?;
    let bearer = server.api_token_file.as_deref().map(token).transpose()?;
    let bearer = bearer.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer
        .iter()
        .map(|bearer| ("authorization", bearer.as_str()))
        .collect();
    let Call { method, path, body } = call;
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = processes::runtime()?
        .block_on(async {
            Client::new(addr)
                .send(method, &path, &headers, body.into(), TIMEOUT)
                .await
        })
        .map_err(|error| {
            Error::could_not_run(format!("{error}; is `faultlane proxy` running there?"))
        })?;
    let json: Value = if answer.body.is_empty() {
        json!({})
    } else {
        serde_json::from_slice(&answer.body).unwrap_or_default()
    };
    if answer.status.is_success() {
        return Ok(json);
    }
    let said = json["error"].as_str().map_or_else(
        || String::from_utf8_lossy(&answer.body).trim().to_owned(),
        str::to_owned,
    );
    Err(match answer.status {
        StatusCode::INTERNAL_SERVER_ERROR => Error::could_not_run(said),
        _ => Error::usage(said),
    })
}

fn show(server: &ServerArgs, answer: &Value, text: &str) {
    if server.json {
        print(&format!("{answer}\n"));
    } else {
        print(text);
    }
}

/// `redis  127.0.0.1:26379 → 127.0.0.1:6379  enabled  2 toxics`
fn line(proxy: &Value) -> String {
    let word = |key: &str| proxy[key].as_str().unwrap_or_default();
    let state = if proxy["enabled"] == true {
        "enabled"
    } else {
        "disabled"
    };
    let toxics = proxy["toxics"].as_array().map_or(0, Vec::len);
    let s = if toxics == 1 { "" } else { "s" };
    format!(
        "{}  {} → {}  {state}  {toxics} toxic{s}\n",
        word("name"),
        word("listen"),
        word("upstream")
    )
}

fn detail(proxy: &Value) -> String {
    let toxics = proxy["toxics"].as_array().into_iter().flatten();
    toxics.fold(line(proxy), |text, toxic| text + "  " + &toxic_line(toxic))
}

/// `slow  latency  downstream  toxicity 1  jitter=0 latency=100`
fn toxic_line(toxic: &Value) -> String {
    let word = |key: &str| toxic[key].as_str().unwrap_or_default();
    let mut text = format!(
        "{}  {}  {}  toxicity {}",
        word("name"),
        word("type"),
        word("stream"),
        toxic["toxicity"]
    );
    let attributes = toxic["attributes"].as_object().into_iter().flatten();
    for (key, value) in attributes {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let _ = write!(text, "  {key}={value}");
    }
    if let Some(millis) = toxic["for"].as_u64() {
        let _ = write!(text, "  for {millis}ms");
    }
    text + "\n"
}
