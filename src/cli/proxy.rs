//! What can be typed after `faultlane proxy`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use model::quantity::Span;

use super::ConfigStdin;

/// The port of Toxiproxy's API.
const API_PORT: u16 = 8474;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ProxyArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ProxyCommand>,
    #[command(flatten)]
    pub(crate) config: ConfigStdin,
    /// One proxy before this upstream, without Toxiproxy's API.
    #[arg(long, value_name = "ADDR")]
    pub(crate) upstream: Option<SocketAddr>,
    /// Where clients of the one proxy connect.
    #[arg(
        long,
        requires = "upstream",
        default_value = "127.0.0.1:0",
        value_name = "ADDR"
    )]
    pub(crate) listen: SocketAddr,
    /// The upstreams let nobody in unauthenticated, so that proxies may listen off loopback.
    #[arg(long)]
    pub(crate) upstream_authenticates: bool,
    /// It is a worker of a proxy that has several.
    #[arg(long, hide = true, requires = "config_stdin")]
    pub(crate) worker: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// The API of the standalone proxy.
#[derive(Debug, Args)]
#[command(next_help_heading = "Toxiproxy's API")]
pub(crate) struct ApiArgs {
    /// Where the API listens. Off loopback it needs a token.
    #[arg(long, conflicts_with = "upstream", default_value = "localhost")]
    pub(crate) host: String,
    /// The API's port.
    #[arg(long, conflicts_with = "upstream", default_value_t = API_PORT)]
    pub(crate) port: u16,
    /// A JSON file of proxies to begin with, as `POST /populate` takes them: [{"name", "listen", "upstream"}, …].
    #[arg(long = "config", value_name = "FILE", conflicts_with = "upstream")]
    pub(crate) proxies: Option<PathBuf>,
    /// The seed of every random choice.
    #[arg(long, conflicts_with = "upstream", default_value_t = 1)]
    pub(crate) seed: u64,
    /// A file to which every random choice is appended, as a JSON line.
    #[arg(long, conflicts_with = "upstream", value_name = "FILE")]
    pub(crate) decision_log: Option<PathBuf>,
    /// The directory below which certificates and keys are read that the API names by their files; else they have to be
    /// in its requests.
    #[arg(long, conflicts_with = "upstream", value_name = "DIR")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// Where to write the certificate of the server's authority, which issues the certificates of proxies with
    /// --tls-self-issued: what their clients have to trust.
    #[arg(long, conflicts_with = "upstream", value_name = "FILE")]
    pub(crate) tls_ca_out: Option<PathBuf>,
    /// Processes that share the connections: each has some 9,900 of them at 20,000 open files.
    #[arg(long, conflicts_with = "upstream", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// A file with the token that callers of the API have to present: `Authorization: Bearer TOKEN`.
    #[arg(long, conflicts_with = "upstream", value_name = "FILE")]
    pub(crate) api_token_file: Option<PathBuf>,
    /// Let browsers in, which a page could use against you by DNS rebinding.
    #[arg(long, conflicts_with = "upstream")]
    pub(crate) allow_browsers: bool,
}

/// How a running proxy is reached.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The URL of the proxy's API.
    #[arg(
        long,
        global = true,
        env = "TOXIPROXY_URL",
        value_name = "URL",
        default_value = "http://localhost:8474"
    )]
    pub(crate) host: String,
    /// A file with the token that the API asks for.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) api_token_file: Option<PathBuf>,
    /// Print the API's JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// The proxies of a running server.
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// One proxy and its toxics.
    Inspect {
        /// The proxy's name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Create a proxy.
    Create {
        /// Its name.
        name: String,
        /// Where clients connect; port 0 is any.
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
        listen: String,
        /// Where it leads.
        #[arg(long, value_name = "HOST:PORT")]
        upstream: String,
        /// Where clients say who they are, for choices that do not depend on who comes first: header=NAME or
        /// query=NAME, of the first request.
        #[arg(long, value_name = "WHERE")]
        identify_by: Option<String>,
        /// It does not listen yet.
        #[arg(long)]
        disabled: bool,
        #[command(flatten)]
        tls: TlsArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete a proxy, and close its connections.
    Delete {
        /// The proxy's name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Disable a proxy that is enabled, enable one that is not.
    Toggle {
        /// The proxy's name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Enable every proxy, and remove every toxic.
    Reset {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Add, change or remove toxics.
    Toxic {
        #[command(subcommand)]
        command: ToxicCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ToxicCommand {
    /// Add a toxic to a proxy.
    Add {
        /// The proxy's name.
        proxy: String,
        /// What it does, such as latency or bandwidth; docs/toxics.md has them all.
        #[arg(long = "type", short = 't', value_name = "TYPE")]
        kind: String,
        /// Its name [default: its type and its stream, such as `latency_downstream`].
        #[arg(long, short)]
        name: Option<String>,
        /// Which way.
        #[arg(long, value_enum, default_value_t = Stream::Downstream)]
        stream: Stream,
        #[command(flatten)]
        toxic: ToxicArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Change a toxic: what is not named stays.
    Update {
        /// The proxy's name.
        proxy: String,
        /// The toxic's name.
        toxic_name: String,
        #[command(flatten)]
        toxic: ToxicArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Remove a toxic.
    Remove {
        /// The proxy's name.
        proxy: String,
        /// The toxic's name.
        toxic_name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// TLS that ends at a proxy. Without any of it, TLS passes through.
#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    /// TLS ends at the proxy, which shows this certificate chain (PEM).
    #[arg(long = "tls-cert", value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long = "tls-key", value_name = "FILE", id = "key", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// TLS ends at the proxy, which shows a certificate of the server's own authority for whatever host is asked for.
    /// The authority's is GET /tls/ca.
    #[arg(long = "tls-self-issued", conflicts_with_all = ["cert", "key"])]
    pub(crate) self_issued: bool,
    /// TLS begins anew towards the upstream.
    #[arg(long = "tls-upstream")]
    pub(crate) to_upstream: bool,
    /// The authority of the upstream's certificate (PEM) [default: the system's].
    #[arg(long = "tls-upstream-ca", value_name = "FILE")]
    pub(crate) upstream_ca: Option<PathBuf>,
    /// The name of the upstream [default: what the client asked for].
    #[arg(long = "tls-server-name", value_name = "NAME")]
    pub(crate) server_name: Option<String>,
}

/// What a toxic is given.
#[derive(Debug, Args)]
pub(crate) struct ToxicArgs {
    /// The share of connections that it takes, from 0 to 1 [default: 1].
    #[arg(long, value_name = "RATIO")]
    pub(crate) toxicity: Option<f64>,
    /// It removes itself after so long, such as 30s.
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) lifetime: Option<Span>,
    /// KEY=VALUE: an attribute, such as latency=100. May be repeated.
    #[arg(long = "attribute", short, value_name = "KEY=VALUE")]
    pub(crate) attributes: Vec<String>,
}

/// A direction, as the API names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stream {
    /// From the client to the upstream.
    Upstream,
    /// From the upstream to the client.
    Downstream,
    /// Both ways.
    Both,
}

/// The command line with toxiproxy-server's flags as clap knows them: `-host` for `--host`, after `proxy` alone.
pub(crate) fn with_long_flags(
    args: impl Iterator<Item = std::ffi::OsString>,
) -> Vec<std::ffi::OsString> {
    const FLAGS: [&str; 4] = ["-host", "-port", "-config", "-seed"];
    let mut args: Vec<_> = args.collect();
    if args.get(1).is_some_and(|command| command == "proxy") {
        for arg in &mut args[2..] {
            let is_one = arg.to_str().is_some_and(|arg| {
                let flag = arg.split_once('=').map_or(arg, |(flag, _)| flag);
                FLAGS.contains(&flag)
            });
            if is_one {
                let mut long = std::ffi::OsString::from("-");
                long.push(&*arg);
                *arg = long;
            }
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_with_one_dash_are_those_with_two_after_proxy_alone() {
        let long = |args: &[&str]| -> Vec<String> {
            let args = args.iter().map(std::ffi::OsString::from);
            let long = with_long_flags(args).into_iter();
            long.map(|arg| arg.into_string().unwrap()).collect()
        };
        assert_eq!(
            long(&[
                "faultlane",
                "proxy",
                "-host",
                "::1",
                "-port=1",
                "-a",
                "-seed"
            ]),
            [
                "faultlane",
                "proxy",
                "--host",
                "::1",
                "--port=1",
                "-a",
                "--seed"
            ]
        );
        let other = ["faultlane", "guard", "x", "-port"];
        assert_eq!(long(&other), other);
    }
}
