//! Where tokens come from.

use std::fs;
use std::path::Path;

use model::command::is_name;
use model::target::{PLACEHOLDERS, Secret, TlsClient, TokenEndpoint, TokenService, TokenSupply};

use super::address::Url;
use super::either::TokenFiles;
use super::file::{EndpointEntry, ServiceEntry, Tokens};
use super::{Surroundings, headers, named_file, secret_text};
use crate::check::Checks;

/// A folder with more files than this is not one of tokens.
const MAX_FILES: usize = 100_000;

/// The supply, and how many identities it has.
pub(super) fn resolve(
    checks: &mut Checks<'_>,
    tokens: &Tokens,
    around: &Surroundings<'_>,
) -> Option<(TokenSupply, Option<u32>)> {
    let given = [
        ("service", tokens.service.is_some()),
        ("http", tokens.http.is_some()),
        ("command", tokens.command.is_some()),
        ("files", tokens.files.is_some()),
    ];
    let mut chosen = given
        .iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| *name);
    let Some(first) = chosen.next() else {
        let hint = "choose one of service: {}, http: {…}, command: NAME and files: […]";
        checks.error(&["tokens"], "no source of tokens is chosen", hint);
        return None;
    };
    if let Some(second) = chosen.next() {
        let message = format!("`{second}` is one too many: tokens come from `{first}` already");
        checks.key_error(&["tokens", second], message, "keep one of them");
        return None;
    }
    if tokens.identities == Some(0) {
        let message = "0 identities have no token";
        checks.error(&["tokens", "identities"], message, "it is 1 or more");
    }
    if let Some(http) = &tokens.http {
        let endpoint = endpoint(checks, http, around)?;
        return Some((TokenSupply::Http(Box::new(endpoint)), tokens.identities));
    }
    if let Some(command) = &tokens.command {
        if !is_name(command) {
            let message = format!("`{command}` is not a command's name");
            let hint =
                "it is the name that the agent's own configuration gives it: no path, no arguments";
            checks.error(&["tokens", "command"], message, hint);
        }
        return Some((TokenSupply::Command(command.clone()), tokens.identities));
    }
    if let Some(files) = &tokens.files {
        return supply(checks, files, tokens.identities, around);
    }
    let service = tokens
        .service
        .as_ref()
        .and_then(|entry| service(checks, entry, around));
    Some((TokenSupply::Service(service), tokens.identities))
}

/// A service that runs already, if the entry names one.
fn service(
    checks: &mut Checks<'_>,
    entry: &ServiceEntry,
    around: &Surroundings<'_>,
) -> Option<TokenService> {
    const AT: [&str; 2] = ["tokens", "service"];
    for (given, alone, other) in [
        (&entry.url, "url", ("session_secret", &entry.session_secret)),
        (&entry.session_secret, "session_secret", ("url", &entry.url)),
    ] {
        if given.is_some() && other.1.is_none() {
            let message = format!("`{alone}` is given without `{}`", other.0);
            let hint = "a service that runs already takes both; with neither the drill starts one";
            checks.error(&[AT[0], AT[1], alone], message, hint);
        }
    }
    let (url, secret) = entry.url.as_ref().zip(entry.session_secret.as_ref())?;
    let path = [AT[0], AT[1], "session_secret"];
    let secret = secret_text(checks, &path, "secret", secret, around);
    match Url::read(url, &["http"], false) {
        Ok(url) => Some(TokenService {
            dial: url.dial(),
            session_secret: Secret::new(secret?),
        }),
        Err((message, hint)) => {
            checks.error(&[AT[0], AT[1], "url"], message, hint);
            None
        }
    }
}

fn endpoint(
    checks: &mut Checks<'_>,
    http: &EndpointEntry,
    around: &Surroundings<'_>,
) -> Option<TokenEndpoint> {
    const AT: [&str; 2] = ["tokens", "http"];
    let url = match Url::read(&http.url, &["https", "http"], true) {
        Ok(url) => Some(url),
        Err((message, hint)) => {
            checks.error(&[AT[0], AT[1], "url"], message, hint);
            None
        }
    };
    let plain = url.as_ref().filter(|url| !url.secure);
    if let (Some(url), Some(_)) = (plain, &http.ca) {
        let message = format!("`ca` has no use: {} is spoken to in plain text", url.host);
        let hint = "begin the URL with https://, or remove `ca`";
        checks.error(&[AT[0], AT[1], "ca"], message, hint);
    } else if let Some(url) = plain.filter(|url| !url.is_loopback()) {
        let message = format!("tokens come from {} in plain text", url.host);
        checks.warning(&[AT[0], AT[1], "url"], message, "use https:// off loopback");
    }
    let ca_pem = http
        .ca
        .as_ref()
        .and_then(|ca| named_file(checks, &[AT[0], AT[1], "ca"], ca, around));
    if !["GET", "POST", "PUT"].contains(&http.method.as_str()) {
        let message = format!("`{}` is not a method that issues tokens", http.method);
        checks.error(&[AT[0], AT[1], "method"], message, "it is POST, PUT or GET");
    }
    let headers = headers(checks, &[AT[0], AT[1], "headers"], &http.headers, around);
    placeholders(checks, http);
    let body = secret_text(checks, &[AT[0], AT[1], "body"], "body", &http.body, around);
    let fields = [
        ("token_field", Some(&http.token_field)),
        ("expires_field", http.expires_field.as_ref()),
    ];
    for (key, field) in fields {
        if field.is_some_and(|field| field.split('.').any(str::is_empty)) {
            let message = format!("`{key}` names no field of an answer");
            let hint = "write its keys joined by dots, such as data.token";
            checks.error(&[AT[0], AT[1], key], message, hint);
        }
    }
    let url = url?;
    Some(TokenEndpoint {
        dial: url.dial(),
        path: url.request_path(),
        authority: url.authority,
        tls: url.secure.then_some(TlsClient {
            ca_pem,
            identity: None,
        }),
        method: http.method.clone(),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name, Secret::new(value)))
            .collect(),
        body: Secret::new(body?),
        token_field: http.token_field.clone(),
        expires_field: http.expires_field.clone(),
    })
}

/// A word in braces is meant as a placeholder; what JSON puts in braces begins with a quote or white space.
fn placeholders(checks: &mut Checks<'_>, http: &EndpointEntry) {
    const BODY: [&str; 3] = ["tokens", "http", "body"];
    let plain = http.body.replace("${", "");
    for piece in plain.split('{').skip(1) {
        let Some((word, _)) = piece.split_once('}') else {
            continue;
        };
        let is_word =
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_word && !PLACEHOLDERS.contains(&word) {
            let message = format!("`{{{word}}}` is not a placeholder");
            checks.error(&BODY, message, crate::typed::nearest(word, &PLACEHOLDERS));
        }
    }
    if !http.body.contains("{identity}") {
        let message = "every client is given a token for the same identity";
        let hint = "put {identity} where the service expects a user or a device";
        checks.warning(
            if http.body.is_empty() {
                &BODY[..2]
            } else {
                &BODY
            },
            message,
            hint,
        );
    }
}

fn supply(
    checks: &mut Checks<'_>,
    files: &TokenFiles,
    identities: Option<u32>,
    around: &Surroundings<'_>,
) -> Option<(TokenSupply, Option<u32>)> {
    let mut tokens = Vec::new();
    let names: Vec<(Vec<String>, String)> = match files {
        TokenFiles::Files(files) => files
            .iter()
            .enumerate()
            .map(|(place, file)| (vec![place.to_string()], file.clone()))
            .collect(),
        TokenFiles::Folder(folder) => {
            let listed = fs::read_dir(around.folder.join(folder)).and_then(|entries| {
                let entries = entries.take(MAX_FILES).collect::<Result<Vec<_>, _>>()?;
                Ok(entries
                    .into_iter()
                    .filter(|entry| entry.path().is_file())
                    .map(|entry| Path::new(folder).join(entry.file_name()))
                    .map(|path| path.display().to_string())
                    .collect::<Vec<_>>())
            });
            match listed {
                // Sorted, so that the same client has the same token in every run.
                Ok(mut listed) => {
                    listed.sort();
                    listed.into_iter().map(|file| (Vec::new(), file)).collect()
                }
                Err(error) => {
                    let message = format!("`{folder}` is not a folder of tokens: {error}");
                    let hint = "name the folder, or list the files: [a.jwt, b.jwt]";
                    checks.error(&["tokens", "files"], message, hint);
                    return None;
                }
            }
        }
    };
    if names.is_empty() {
        let hint = "put a file for each identity there";
        checks.error(&["tokens", "files"], "there is no token", hint);
    }
    for (place, name) in names {
        let mut path = vec!["tokens", "files"];
        path.extend(place.iter().map(String::as_str));
        let Some(text) = named_file(checks, &path, &name, around) else {
            continue;
        };
        let token = text.trim();
        if token.is_empty() || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let message = format!("`{name}` does not hold a token");
            checks.error(&path, message, "a file holds one token and nothing else");
        }
        tokens.push(Secret::new(token));
    }
    let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    if let Some(asked) = identities.filter(|asked| *asked > count) {
        let message = format!("there are {count} tokens for {asked} identities");
        let hint = "one file is one identity: add files, or lower the number";
        checks.error(&["tokens", "identities"], message, hint);
    }
    Some((
        TokenSupply::Files(tokens),
        Some(identities.unwrap_or(count)),
    ))
}
