//! What `faultlane init` writes: a target file to begin with, in which what only its owner can know is left open.

use std::fmt::Write as _;

use model::ids::Lane;

/// What is known already. Limits that are not given are left blank, and a check then says what each is for.
#[derive(Debug, Clone, Default)]
pub struct Template {
    /// The target's name.
    pub name: String,
    /// The lane's URL.
    pub url: String,
    /// Which lane.
    pub lane: Option<Lane>,
    /// `host:port` to connect to.
    pub dial: Option<String>,
    /// A private authority's PEM file.
    pub ca: Option<String>,
    /// The database, on the spacetime lane.
    pub database: Option<String>,
    /// Where tokens are issued; the embedded token service when absent.
    pub token_url: Option<String>,
    /// What is presented for tokens, as `Authorization` says it: `Bearer ${NAME}`.
    pub token_authorization: Option<String>,
    /// See [`super::Limits::migration_buffer`].
    pub migration_buffer: Option<String>,
    /// See [`super::Limits::storm_target`].
    pub storm_target: Option<String>,
    /// See [`super::Limits::fallback_threshold`].
    pub fallback_threshold: Option<String>,
    /// See [`super::Limits::rollback_slo`].
    pub rollback_slo: Option<String>,
}

impl Template {
    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let lane = self.lane.unwrap_or(Lane::Spacetime);
        let mut text = String::from(
            "# A target of faultlane. docs/targets.md explains every field; check it with: faultlane check FILE\n",
        );
        let _ = writeln!(text, "name: {}\nabout: \"\"", quoted(&self.name));
        let _ = writeln!(
            text,
            "\nlanes:\n  {lane}:\n    # What Host, Origin and SNI say; its path stands before the lane's own paths.\n    url: {}",
            quoted(&self.url)
        );
        optional(
            &mut text,
            "    # Where to connect, when that is not what the URL says.",
            "    dial",
            self.dial.as_deref(),
            "\"10.0.0.7:3000\"",
        );
        match &self.ca {
            Some(ca) => {
                let _ = writeln!(text, "    tls: {{ ca: {} }}", quoted(ca));
            }
            None => text.push_str(
                "    # Without these the system's roots are trusted, and no certificate is shown.\n    \
                 # tls: { ca: ca.pem, certificate: client.pem, key: client.key }\n",
            ),
        }
        text.push_str("    # headers: { x-environment: \"${ENVIRONMENT}\" }\n");
        text.push_str(match lane {
            Lane::Spacetime => "    wire: json                  # or bsatn\n",
            Lane::Khala => KHALA_PUBLISH,
        });
        if lane == Lane::Spacetime {
            let database = self.database.as_deref().unwrap_or("sync");
            let _ = writeln!(text, "    database: {}", quoted(database));
            text.push_str(PUBLISH);
        }
        self.tokens(lane, &mut text);
        text.push_str(STREAMS);
        text.push_str(match lane {
            Lane::Spacetime => SPACETIME_PROMISE,
            Lane::Khala => KHALA_PROMISE,
        });
        text.push_str(PROFILE);
        self.limits(&mut text);
        text
    }

    fn tokens(&self, lane: Lane, text: &mut String) {
        match &self.token_url {
            Some(url) => {
                let _ = writeln!(text, "\ntokens:\n  http:\n    url: {}", quoted(url));
                if let Some(ca) = self.ca.as_ref().filter(|_| url.starts_with("https")) {
                    text.push_str(
                        "    # The lane's authority. Without it the system's roots are trusted.\n",
                    );
                    let _ = writeln!(text, "    ca: {}", quoted(ca));
                }
                text.push_str("    headers:\n      content-type: application/json\n");
                let _ = match &self.token_authorization {
                    Some(value) => writeln!(text, "      authorization: {}", quoted(value)),
                    None => writeln!(text, "      # authorization: \"Bearer ${{SYNC_SESSION}}\""),
                };
                text.push_str(HTTP);
            }
            None => text.push_str(match lane {
                Lane::Spacetime => SERVICE,
                Lane::Khala => SHARED_SERVICE,
            }),
        }
    }

    fn limits(&self, text: &mut String) {
        text.push_str(
            "\n# What the gates judge by. No number suits every service: each has to be chosen.\nlimits:\n",
        );
        for (key, value, about) in [
            (
                "migration_buffer",
                &self.migration_buffer,
                "how much later p95 delivery may be than before the cutover",
            ),
            (
                "storm_target",
                &self.storm_target,
                "a fleet is whole again after a reconnect storm within this time",
            ),
            (
                "fallback_threshold",
                &self.fallback_threshold,
                "the most clients that may use the legacy lane as a fallback",
            ),
            (
                "rollback_slo",
                &self.rollback_slo,
                "a rollback is complete within this time",
            ),
        ] {
            let value = value.as_deref().map(quoted).unwrap_or_default();
            let _ = writeln!(
                text,
                "  # {about}\n  {}",
                format!("{key}: {value}").trim_end()
            );
        }
    }
}

/// A JSON string is a YAML string, whatever is in it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn optional(text: &mut String, about: &str, key: &str, value: Option<&str>, example: &str) {
    let _ = match value {
        Some(value) => writeln!(text, "{about}\n{key}: {}", quoted(value)),
        None => writeln!(text, "{about}\n    # {}: {example}", key.trim_start()),
    };
}

const KHALA_PUBLISH: &str =
    "    # What publishers present; with path and head, where these calls are not where the contract has them.
    publish: { secret: \"${PUBLISH_SECRET}\" }
    # What becomes of a drill's events afterwards: none (they stay), or { path: /internal/sync/remove }.
    clean_up: none
";

const PUBLISH: &str = "    # The tables and the reducer are the sync module's. Another signature, for example:
    # publish:
    #   reducer: append_sync_event
    #   arguments: [stream_id, idempotency_key, payload_hash, payload_json, committed_at_unix_ms, durable_offset,
    #     confirmed_read, expected_next_seq]
    #   secret: \"${PUBLISH_SECRET}\"
    # What becomes of a drill's events afterwards: none (they stay), sql (as the database's owner), { reducer: NAME }.
    clean_up: none
";

const SERVICE: &str = "
tokens:
  # The embedded token service, which the target has to trust as an issuer. Otherwise one of http, command and files.
  service: {}
";

const SHARED_SERVICE: &str = "
tokens:
  # The embedded token service, whose keys a khala lane has to share: faultlane tokens --key-file FILE
  # --tenant drill=STREAMS. Otherwise one of http, command and files.
  service: { url: \"http://127.0.0.1:4000\", session_secret: \"${FAULTLANE_SESSION_SECRET}\" }
";

const HTTP: &str = "    body: >-
      {\"scopes\": {scopes}, \"streams\": {streams}, \"ttl_seconds\": {ttl_seconds}, \"device_id\": \"{identity}\"}
    token_field: data.token
";

const STREAMS: &str = "
# Streams that a drill may publish to: nothing else is written.
streams: { pattern: \"runtime.run.drill-{n}.events\", count: 12 }

# Agents on the nodes. Without any, node faults (kill, terminate, pause, …) are refused.
nodes: []

# What the target promises, and is held to.
promise:
";

const SPACETIME_PROMISE: &str = "  # As SpacetimeDB 1.3.0 behaves: a connection outlives its token, and a commit is on disk up to 500 ms later.
  expiry_enforcement: at_connect
  skew: 60s
  acknowledged: within 500ms
  authorization: none
  # It looks at a token's signature and exp only.
  token_checks: { not_before: false, revocation: false, max_age: null }
";

const KHALA_PROMISE: &str = "  expiry_enforcement: live
  skew: 30s
  acknowledged: durable
  authorization: enforced
";

const PROFILE: &str =
    "  # Others may publish to the same streams: only what this run published is judged.
  world: open
  # Clients of a drill are quicker to notice than those in the field; other clocks are the field's.
  profile: { heartbeat: 1s, read_idle: 3s, connect_timeout: 3s, backoff_cap: 2s, stable_after: 2s }
";
