//! What an operator of agents can type.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// How an agent is started.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The agent's own configuration: where it listens, whom it lets in, and how far.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "config_stdin",
        required_unless_present = "config_stdin"
    )]
    pub(crate) config: Option<PathBuf>,
    /// Take the configuration from the first line on stdin, and end when stdin does: how a drill starts it.
    #[arg(long)]
    pub(crate) config_stdin: bool,
}

/// Certificates for agents and those who call them.
#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Make an authority, and the certificates named. Nothing that is there is written over.
    Init(PkiArgs),
    /// Issue more certificates of the authority that `init` has made.
    Add(PkiArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PkiArgs {
    /// The folder of the certificates. Whoever can read `ca.key` there can do anything to any agent.
    pub(crate) dir: PathBuf,
    /// An agent, and the hosts and addresses at which it is called beside its name. May be repeated.
    #[arg(long = "agent", value_name = "NAME[=HOST,…]")]
    pub(crate) agents: Vec<String>,
    /// Somebody who drives drills: may observe and inject. May be repeated.
    #[arg(long = "conductor", value_name = "NAME")]
    pub(crate) conductors: Vec<String>,
    /// Somebody who looks on. May be repeated.
    #[arg(long = "observer", value_name = "NAME")]
    pub(crate) observers: Vec<String>,
    /// Somebody who has the lever: may observe and halt. May be repeated.
    #[arg(long = "operator", value_name = "NAME")]
    pub(crate) operators: Vec<String>,
    /// How long the certificates are valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
}

/// Which agents, and what they are shown.
#[derive(Debug, Args)]
pub(crate) struct Whom {
    /// The agents, how each is reached, and the certificate that is shown.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["agents", "ca", "certificate", "key", "token"])]
    pub(crate) inventory: Option<PathBuf>,
    /// An agent: HOST:PORT, or the path of its unix socket. May be repeated.
    #[arg(
        long = "agent",
        value_name = "ADDR",
        required_unless_present = "inventory"
    )]
    pub(crate) agents: Vec<String>,
    /// Authorities of the agents' certificates, as PEM.
    #[arg(long, value_name = "FILE", requires_all = ["certificate", "key"])]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate that is shown, as PEM.
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    pub(crate) certificate: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires_all = ["ca", "certificate"])]
    pub(crate) key: Option<PathBuf>,
    /// The file `token` of an agent that listens on loopback without TLS.
    #[arg(long, value_name = "FILE", conflicts_with = "ca")]
    pub(crate) token: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct HaltArgs {
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// End the halt: new work is taken on again.
    #[arg(long)]
    pub(crate) clear: bool,
}
