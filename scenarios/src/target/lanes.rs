//! How each lane is reached and spoken to.

use std::collections::{BTreeMap, BTreeSet};

use model::ids::Lane;
use model::target::{
    Argument, Column, ColumnKind, EventColumn, HeadColumn, Names, Removal, Secret, Table,
    TlsClient, TlsIdentity, Wire,
};

use super::address::{Url, host_port};
use super::file::{
    ColumnEntry, IngressEntry, KhalaCleanUp, KhalaEntry, Lanes, ReducerEntry, SpacetimeCleanUp,
    SpacetimeEntry, TableEntry, TlsEntry,
};
use super::{Endpoint, Surroundings, headers, named_file, secret_text};
use crate::check::Checks;

const SCHEMES: [&str; 4] = ["wss", "ws", "https", "http"];

/// Lanes with mistakes are left out; the mistakes are in the checks.
pub(super) fn resolve(
    checks: &mut Checks<'_>,
    lanes: &Lanes,
    around: &Surroundings<'_>,
) -> BTreeMap<Lane, Endpoint> {
    if lanes.spacetime.is_none() && lanes.khala.is_none() {
        let hint = "write spacetime: { url: … } or khala: { url: … }";
        checks.error(&["lanes"], "the target has no lane", hint);
    }
    let spacetime = lanes
        .spacetime
        .as_ref()
        .and_then(|lane| spacetime(checks, lane, around));
    let khala = lanes
        .khala
        .as_ref()
        .and_then(|lane| khala(checks, lane, around));
    [(Lane::Spacetime, spacetime), (Lane::Khala, khala)]
        .into_iter()
        .filter_map(|(lane, endpoint)| Some((lane, endpoint?)))
        .collect()
}

fn spacetime(
    checks: &mut Checks<'_>,
    lane: &SpacetimeEntry,
    around: &Surroundings<'_>,
) -> Option<Endpoint> {
    let path = ["lanes", "spacetime"];
    let reach = Reach {
        url: &lane.url,
        dial: lane.dial.as_deref(),
        tls: lane.tls.as_ref(),
        headers: &lane.headers,
    };
    let endpoint = reach.endpoint(checks, path, around);
    let default = Names::default();
    let names = Names {
        database: name(
            checks,
            &[path[0], path[1], "database"],
            lane.database.as_ref(),
        )
        .unwrap_or(default.database),
        events: table(
            checks,
            [path[0], path[1], "events"],
            lane.events.as_ref(),
            default.events,
            &EVENTS,
        ),
        heads: table(
            checks,
            [path[0], path[1], "heads"],
            lane.heads.as_ref(),
            default.heads,
            &HEADS,
        ),
        publish: name(
            checks,
            &[path[0], path[1], "publish", "reducer"],
            lane.publish.reducer.as_ref(),
        )
        .unwrap_or(default.publish),
        arguments: arguments(checks, &lane.publish, default.arguments),
    };
    let publish_secret = publish_secret(checks, path, lane.publish.secret.as_ref(), around);
    if let Some(SpacetimeCleanUp::Reducer(reducer)) = &lane.clean_up {
        let path = [path[0], path[1], "clean_up", "reducer"];
        name(checks, &path, Some(reducer));
    }
    Some(Endpoint {
        wire: lane.wire,
        names,
        publish_secret,
        removal: lane.clean_up.as_ref().map(Into::into).unwrap_or_default(),
        ..endpoint?
    })
}

fn khala(
    checks: &mut Checks<'_>,
    lane: &KhalaEntry,
    around: &Surroundings<'_>,
) -> Option<Endpoint> {
    let path = ["lanes", "khala"];
    let reach = Reach {
        url: &lane.url,
        dial: lane.dial.as_deref(),
        tls: lane.tls.as_ref(),
        headers: &lane.headers,
    };
    let endpoint = reach.endpoint(checks, path, around);
    let IngressEntry {
        path: append,
        head,
        secret,
    } = &lane.publish;
    let mut rooted = |path: Option<&String>, key: [&str; 2], example: &str| {
        if let Some(path) = path.filter(|path| !is_path(path)) {
            let message = format!("`{path}` is not a path");
            let hint = format!("begin it with /, and leave out a query, such as {example}");
            checks.error(&["lanes", "khala", key[0], key[1]], message, hint);
        }
    };
    rooted(
        append.as_ref(),
        ["publish", "path"],
        "/internal/sync/append",
    );
    rooted(head.as_ref(), ["publish", "head"], "/internal/sync/head");
    if let Some(KhalaCleanUp::Path(remove)) = &lane.clean_up {
        rooted(Some(remove), ["clean_up", "path"], "/internal/sync/remove");
    }
    let publish_secret = publish_secret(checks, path, secret.as_ref(), around);
    Some(Endpoint {
        publish_secret,
        append_path: append.clone(),
        head_path: head.clone(),
        removal: lane.clean_up.as_ref().map(Into::into).unwrap_or_default(),
        ..endpoint?
    })
}

fn is_path(text: &str) -> bool {
    let valid = |c: char| c.is_ascii_graphic() && c != '?' && c != '#';
    text.starts_with('/') && text.chars().all(valid)
}

fn publish_secret(
    checks: &mut Checks<'_>,
    lane: [&str; 2],
    secret: Option<&String>,
    around: &Surroundings<'_>,
) -> Option<Secret> {
    let path = [lane[0], lane[1], "publish", "secret"];
    secret_text(checks, &path, "secret", secret?, around).map(Secret::new)
}

/// What both lanes say about how they are reached.
struct Reach<'a> {
    url: &'a str,
    dial: Option<&'a str>,
    tls: Option<&'a TlsEntry>,
    headers: &'a BTreeMap<String, String>,
}

impl Reach<'_> {
    fn endpoint(
        &self,
        checks: &mut Checks<'_>,
        [lanes, lane]: [&str; 2],
        around: &Surroundings<'_>,
    ) -> Option<Endpoint> {
        let url = Url::read(self.url, &SCHEMES, false);
        if let Err((message, hint)) = &url {
            checks.error(&[lanes, lane, "url"], message, hint);
        }
        let url = url.ok();
        let dial = self.dial.map(host_port);
        if let Some(Err((message, hint))) = &dial {
            checks.error(&[lanes, lane, "dial"], message, hint);
        }
        if let Some(url) = url.as_ref().filter(|url| !url.secure) {
            if self.tls.is_some() {
                let message = format!("`tls` has no use: {} is spoken to in plain text", url.host);
                let hint = "begin the URL with wss://, or remove `tls`";
                checks.error(&[lanes, lane, "tls"], message, hint);
            } else if !url.is_loopback() {
                let message = format!("tokens go to {} in plain text", url.host);
                checks.warning(&[lanes, lane, "url"], message, "use wss:// off loopback");
            }
        }
        let tls = self
            .tls
            .map(|files| tls(checks, [lanes, lane], files, around))
            .unwrap_or_default();
        let headers = headers(checks, &[lanes, lane, "headers"], self.headers, around);
        let url = url?;
        Some(Endpoint {
            dial_is_stated: dial.is_some(),
            dial: dial.map_or_else(|| Some(url.dial()), Result::ok)?,
            origin: format!(
                "{}://{}",
                if url.secure { "https" } else { "http" },
                url.authority
            ),
            authority: url.authority,
            path_prefix: url.path.trim_end_matches('/').to_owned(),
            headers,
            tls: url.secure.then_some(tls),
            wire: Wire::default(),
            names: Names::default(),
            publish_secret: None,
            append_path: None,
            head_path: None,
            removal: Removal::default(),
        })
    }
}

fn tls(
    checks: &mut Checks<'_>,
    [lanes, lane]: [&str; 2],
    files: &TlsEntry,
    around: &Surroundings<'_>,
) -> TlsClient {
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
    let mut pem = |key: &str, file: Option<&String>, marker: &str, what: &str| {
        let path = [lanes, lane, "tls", key];
        let text = named_file(checks, &path, file?, around)?;
        if text.contains(marker) {
            return Some(text);
        }
        let message = format!("`{}` holds no {what}", file?);
        let hint = format!("it is a PEM file with {marker}");
        checks.error(&path, message, hint);
        None
    };
    let ca_pem = pem("ca", files.ca.as_ref(), CERTIFICATE, "certificate");
    let chain = pem(
        "certificate",
        files.certificate.as_ref(),
        CERTIFICATE,
        "certificate",
    );
    let key = pem("key", files.key.as_ref(), "PRIVATE KEY-----", "private key");
    for (given, alone, other) in [
        (&files.key, "key", ("certificate", &files.certificate)),
        (&files.certificate, "certificate", ("key", &files.key)),
    ] {
        if given.is_some() && other.1.is_none() {
            let message = format!("`{alone}` is given without `{}`", other.0);
            let hint = "a client's certificate takes both";
            checks.error(&[lanes, lane, "tls", alone], message, hint);
        }
    }
    TlsClient {
        ca_pem,
        identity: chain
            .zip(key)
            .map(|(chain_pem, key_pem)| TlsIdentity { chain_pem, key_pem }),
    }
}

fn name(checks: &mut Checks<'_>, path: &[&str], name: Option<&String>) -> Option<String> {
    let name = name?;
    // They become a part of URLs and of queries.
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(valid) {
        let message = format!("`{name}` is not a name in a database");
        checks.error(
            path,
            message,
            "it is letters, digits, underscores and hyphens",
        );
    }
    Some(name.clone())
}

/// What a drill has to find in a table, and of which type.
type Wanted<C> = [(C, &'static str, ColumnKind)];

const EVENTS: [(EventColumn, &str, ColumnKind); 5] = [
    (EventColumn::StreamId, "stream_id", ColumnKind::String),
    (EventColumn::Seq, "seq", ColumnKind::U64),
    (
        EventColumn::IdempotencyKey,
        "idempotency_key",
        ColumnKind::String,
    ),
    (EventColumn::PayloadHash, "payload_hash", ColumnKind::String),
    (EventColumn::PayloadJson, "payload_json", ColumnKind::String),
];
const HEADS: [(HeadColumn, &str, ColumnKind); 2] = [
    (HeadColumn::StreamId, "stream_id", ColumnKind::String),
    (HeadColumn::HeadSeq, "head_seq", ColumnKind::U64),
];

fn table<C: Copy + PartialEq>(
    checks: &mut Checks<'_>,
    path: [&str; 3],
    entry: Option<&TableEntry<C>>,
    default: Table<C>,
    wanted: &Wanted<C>,
) -> Table<C> {
    let Some(entry) = entry else { return default };
    let [lanes, lane, table] = path;
    name(checks, &[lanes, lane, table, "table"], Some(&entry.table));
    let columns = match &entry.columns {
        Some(columns) => {
            for (place, column) in columns.iter().enumerate() {
                let place = place.to_string();
                let path = [lanes, lane, table, "columns", &place, "name"];
                name(checks, &path, Some(&column.name));
            }
            check_columns(checks, &[lanes, lane, table, "columns"], columns, wanted);
            columns
                .iter()
                .map(|column| Column {
                    name: column.name.clone(),
                    holds: column.holds,
                    kind: column.kind,
                })
                .collect()
        }
        None => default.columns,
    };
    Table {
        name: entry.table.clone(),
        columns,
    }
}

fn check_columns<C: Copy + PartialEq>(
    checks: &mut Checks<'_>,
    path: &[&str],
    columns: &[ColumnEntry<C>],
    wanted: &Wanted<C>,
) {
    let at = |place: usize, key: &str| {
        let owned = [place.to_string(), key.to_owned()];
        path.iter()
            .map(ToString::to_string)
            .chain(owned)
            .collect::<Vec<_>>()
    };
    let mut names = BTreeSet::new();
    let mut error = |path: Vec<String>, message: String, hint: &str| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        checks.error(&path, message, hint);
    };
    for (place, column) in columns.iter().enumerate() {
        if !names.insert(&column.name) {
            let message = format!("another column is called `{}`", column.name);
            error(at(place, "name"), message, "name each once");
        }
    }
    for (meaning, called, kind) in wanted {
        let mut holding = columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.holds == Some(*meaning));
        let Some((place, column)) = holding.next() else {
            let message = format!("no column holds the {called}");
            let hint = format!("say it of the one that does: holds: {called}");
            error(
                path.iter().map(ToString::to_string).collect(),
                message,
                &hint,
            );
            continue;
        };
        if column.kind != *kind {
            let message = format!("`{}` holds the {called} in another type", column.name);
            let hint = match kind {
                ColumnKind::U64 => "it is understood as u64 only",
                _ => "it is understood as string only",
            };
            error(at(place, "type"), message, hint);
        }
        if let Some((place, second)) = holding.next() {
            let message = format!("`{}` holds the {called} a second time", second.name);
            error(at(place, "holds"), message, "one column holds it");
        }
    }
}

fn arguments(
    checks: &mut Checks<'_>,
    publish: &ReducerEntry,
    default: Vec<Argument>,
) -> Vec<Argument> {
    const PATH: [&str; 4] = ["lanes", "spacetime", "publish", "arguments"];
    let Some(arguments) = &publish.arguments else {
        return default;
    };
    for (place, argument) in arguments.iter().enumerate() {
        if arguments[..place].contains(argument) {
            let place = place.to_string();
            let path = [PATH[0], PATH[1], PATH[2], PATH[3], &place];
            checks.error(&path, "the argument is given twice", "name each once");
        }
    }
    for (needed, called) in [
        (Argument::StreamId, "stream_id"),
        (Argument::IdempotencyKey, "idempotency_key"),
        (Argument::PayloadJson, "payload_json"),
    ] {
        if !arguments.contains(&needed) {
            let message = format!("the reducer is not told the {called}");
            let hint = "without it an event cannot be found again: name it at its place";
            checks.error(&PATH, message, hint);
        }
    }
    if !arguments.contains(&Argument::Seq) && !arguments.contains(&Argument::ExpectedNextSeq) {
        let message = "the reducer is told no seq: two writers of a stream would not be noticed";
        let hint = "name seq or expected_next_seq if the reducer takes one";
        checks.warning(&PATH, message, hint);
    }
    arguments.clone()
}
