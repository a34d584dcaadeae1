//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::ids::{ClientId, Lane};
use model::quantity::{Rate, Share, Span};
use model::target::Wire;

pub(crate) mod bench;
pub(crate) mod operating;
pub(crate) mod proxy;

use self::bench::BenchCommand;
use self::operating::{AgentArgs, HaltArgs, PkiCommand, Whom};
use self::proxy::ProxyArgs;

/// Chaos drills for real-time sync services, with a verdict that can be recomputed from its evidence.
///
/// Exit codes: 0 go, 1 no-go, 2 usage or invalid scenario, 3 inconclusive, 4 could not run, 130 interrupted twice.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The standard drill: restart, partition, token-expiry-storm and reconnect-storm, on every lane of the target.
    Drill {
        /// These scenarios instead: names of library scenarios, or YAML files.
        scenarios: Vec<String>,
        #[command(flatten)]
        drill: DrillArgs,
    },
    /// One scenario.
    Run {
        /// The name of a library scenario, or a YAML file.
        scenario: Option<String>,
        #[command(flatten)]
        drill: DrillArgs,
    },
    /// Validate scenarios and target files, with source snippets.
    Check {
        /// YAML files, or names of library scenarios. A file with `lanes` is a target file.
        #[arg(required_unless_present = "target")]
        files: Vec<String>,
        /// Check scenarios against this target file.
        #[arg(long, value_name = "FILE")]
        target: Option<PathBuf>,
        /// Override a setting, as for `run`.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Write a target file to begin with, check it, and try whether the target can be drilled so.
    Init(InitArgs),
    /// Remove what a run that was killed has left in the streams of a target; other runs clean up after themselves.
    CleanUp(CleanUpArgs),
    /// Try whether a target can be drilled as its file describes it. Nothing is written to it.
    Preflight {
        /// The target file.
        #[arg(default_value = "target.yaml")]
        target: PathBuf,
        /// The agent's own configuration, where tokens come from a command that it names.
        #[arg(long, value_name = "FILE")]
        agent_config: Option<PathBuf>,
    },
    /// The exact timeline of a scenario, and what each step does and undoes.
    Plan {
        /// The name of a library scenario, or a YAML file.
        scenario: String,
        #[command(flatten)]
        plan: PlanArgs,
        /// The lane [default: the first that the target has].
        #[arg(long)]
        lane: Option<Lane>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The scenarios of the library.
    Scenarios,
    /// Recompute the verdict from an evidence folder.
    Gate {
        /// The folder that a drill wrote.
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Why a client fared as it did: what was found about it, and its last moments.
    Why(WhyArgs),
    /// The supervisor of a node: faults, leases, journal, children.
    Agent(AgentArgs),
    /// How agents are: protocol, clocks, faults, whether they are halted.
    Agents(Whom),
    /// The lever: every agent undoes everything, and refuses new work until the halt is cleared.
    Halt(HaltArgs),
    /// An authority and certificates for agents and those who call them.
    Pki {
        #[command(subcommand)]
        command: PkiCommand,
    },
    /// The fault-injecting proxy: a server with Toxiproxy's API, or one proxy before an upstream. Its subcommands speak
    /// to a server that runs.
    Proxy(Box<ProxyArgs>),
    /// A slice of the client fleet, a publisher, or probes.
    Shard(ConfigStdin),
    /// An embedded lane server.
    Lane {
        /// Which protocol.
        lane: Lane,
        #[command(flatten)]
        config: ConfigStdin,
        #[command(flatten)]
        lane_args: LaneArgs,
    },
    /// A real spacetimedb server, under guard, with the sync module published to it.
    Spacetimedb {
        #[command(flatten)]
        config: ConfigStdin,
        /// The server: spacetimedb-standalone, by its path.
        #[arg(long, value_name = "BIN", default_value = "spacetimedb-standalone")]
        server: PathBuf,
        /// Where to listen for clients.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Where its data and keys live.
        #[arg(long, required_unless_present = "config_stdin")]
        data_dir: Option<PathBuf>,
        /// The database to which the module is published.
        #[arg(long, default_value = "sync")]
        database: String,
    },
    /// The embedded token service.
    Tokens {
        #[command(flatten)]
        config: ConfigStdin,
        #[command(flatten)]
        tokens: TokensArgs,
    },
    /// How the proxy compares with its peers, in one run.
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Undo what an agent left in force, each fault when its lease lapses, once stdin has ended. Agents start one for
    /// themselves.
    Watchdog {
        /// The agent's journal.
        #[arg(long, value_name = "FILE")]
        journal: PathBuf,
    },
    /// The worker of a fault that takes up cores or memory. Agents start it, and say on its stdin what it is to do.
    #[command(hide = true)]
    Pressure {
        /// The journal of its agent, for whoever looks at processes.
        #[arg(long, value_name = "FILE")]
        journal: PathBuf,
        /// Its fault, for the same.
        #[arg(long, value_name = "ID")]
        fault: String,
    },
    /// Start an operator's node. Agents and watchdogs start one of these for that.
    #[command(hide = true)]
    Launch {
        /// How long the program may take.
        #[arg(long, value_name = "SPAN")]
        within: Span,
        /// The program and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Run a program that ends when this process's stdin does.
    Guard {
        /// The program and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
}

impl Command {
    /// Processes log what they do; commands that a person runs keep quiet.
    pub(crate) const fn default_log_filter(&self) -> &'static str {
        match self {
            Self::Agent(_)
            | Self::Proxy(_)
            | Self::Shard(_)
            | Self::Lane { .. }
            | Self::Spacetimedb { .. }
            | Self::Tokens { .. }
            | Self::Watchdog { .. }
            | Self::Pressure { .. }
            | Self::Launch { .. }
            | Self::Guard { .. } => "info",
            _ => "error",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The folder that a drill wrote.
    pub(crate) dir: PathBuf,
    /// Who, such as c0042.
    #[arg(long, value_name = "ID")]
    pub(crate) client: ClientId,
    /// Only trials of this scenario [default: all].
    #[arg(long, value_name = "NAME")]
    pub(crate) scenario: Option<String>,
    /// Only trials on this lane [default: both].
    #[arg(long)]
    pub(crate) lane: Option<Lane>,
    /// Only trials of this number [default: all].
    #[arg(long, value_name = "N")]
    pub(crate) trial: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a child process of an agent is started.
#[derive(Debug, Args)]
pub(crate) struct ConfigStdin {
    /// Take the configuration from the first line on stdin, and end when stdin does.
    #[arg(long)]
    pub(crate) config_stdin: bool,
}

fn wire(text: &str) -> Result<Wire, String> {
    match text {
        "json" => Ok(Wire::Json),
        "bsatn" => Ok(Wire::Bsatn),
        _ => Err("it is json or bsatn".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The seed of every random choice.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many clients, on each lane.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients: Option<u32>,
    /// Override a setting of the scenario, such as bounds.recovery.p99=5s. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// A short form with few clients, for CI: the whole drill ends within 40 s.
    #[arg(long)]
    pub(crate) quick: bool,
    /// How spacetime messages are encoded: json or bsatn [default: json, or what the target file says].
    #[arg(long, value_parser = wire)]
    pub(crate) wire: Option<Wire>,
    /// The agents by which faults are done, and which run parts of the drill.
    #[arg(long, value_name = "FILE")]
    pub(crate) inventory: Option<PathBuf>,
    /// What is drilled: embedded, spacetimedb (a real server, which the drill starts), or a target file.
    #[arg(long, value_name = "FILE|NAME", default_value = "embedded")]
    pub(crate) target: String,
}

/// Part of an id is another run's mark too: only a whole one is taken.
fn run_id(text: &str) -> Result<String, String> {
    let digits = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let stamped = text.split_once('-').is_some_and(|(stamp, pid)| {
        let time = stamp
            .strip_suffix('Z')
            .and_then(|time| time.split_once('T'));
        time.is_some_and(|(day, time)| digits(day, 8) && digits(time, 6))
            && (1..=10).any(|count| digits(pid, count))
    });
    if stamped {
        Ok(text.to_owned())
    } else {
        Err("a run is YYYYMMDDTHHMMSSZ-PID, as `run` in its folder's run.json".to_owned())
    }
}

#[derive(Debug, Args)]
pub(crate) struct CleanUpArgs {
    /// The target file.
    #[arg(default_value = "target.yaml")]
    pub(crate) target: PathBuf,
    /// The run, as `run` in its run.json names it.
    #[arg(long, value_name = "RUN", value_parser = run_id)]
    pub(crate) run: String,
    /// The agent's own configuration, where tokens come from a command that it names.
    #[arg(long, value_name = "FILE")]
    pub(crate) agent_config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where to write it. An existing file is not overwritten.
    #[arg(default_value = "target.yaml")]
    pub(crate) file: PathBuf,
    /// What the target is called in the evidence.
    #[arg(long, default_value = "staging")]
    pub(crate) name: String,
    /// The lane's URL: ws://, wss://, http:// or https://, and what stands before the lane's own paths.
    #[arg(long)]
    pub(crate) url: String,
    /// Which lane it is.
    #[arg(long, default_value_t = Lane::Spacetime)]
    pub(crate) lane: Lane,
    /// Where to connect, when that is not what the URL says.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) dial: Option<String>,
    /// The PEM file of a private authority, seen from the target file's folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<String>,
    /// The database, on the spacetime lane [default: sync].
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Where tokens are issued [default: the embedded token service].
    #[arg(long, value_name = "URL")]
    pub(crate) token_url: Option<String>,
    /// What is presented there, such as 'Bearer ${NAME}': write the variable's name, not what it holds.
    #[arg(long, value_name = "VALUE", requires = "token_url")]
    pub(crate) token_authorization: Option<String>,
    /// How much later p95 delivery may be than before the cutover.
    #[arg(long, value_name = "TIME")]
    pub(crate) migration_buffer: Option<Span>,
    /// Within which time the fleet has to be whole after a reconnect storm.
    #[arg(long, value_name = "TIME")]
    pub(crate) storm_target: Option<Span>,
    /// The largest share of clients that may use the legacy lane as a fallback.
    #[arg(long, value_name = "SHARE")]
    pub(crate) fallback_threshold: Option<Share>,
    /// Within which time a rollback has to be complete.
    #[arg(long, value_name = "TIME")]
    pub(crate) rollback_slo: Option<Span>,
    /// The agent's own configuration, where tokens come from a command that it names.
    #[arg(long, value_name = "FILE")]
    pub(crate) agent_config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// The run's folder, which must not hold a run yet [default: output/chaos/spacetime/TIMESTAMP].
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// The server of `--target spacetimedb`: a path, or a name on the PATH.
    #[arg(
        long,
        value_name = "BIN",
        env = "FAULTLANE_SPACETIMEDB",
        default_value = "spacetimedb-standalone"
    )]
    pub(crate) spacetimedb: PathBuf,
    /// Only this lane [default: all that the target has].
    #[arg(long)]
    pub(crate) lane: Option<Lane>,
    /// How often each scenario is run on each lane.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) trials: u32,
    /// Plant a defect that the drill must catch; `list` names them.
    #[arg(long, value_name = "NAME")]
    pub(crate) defect: Option<String>,
    /// A YAML file of anomalies that somebody answers for, for a while.
    #[arg(long, value_name = "FILE")]
    pub(crate) waivers: Option<PathBuf>,
    /// A YAML file of the commands that agents may run for probes: the agent's own configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) agent_config: Option<PathBuf>,
    /// Print the decision and the rows as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What publishers present where nothing else is asked for. Good on loopback only.
pub(crate) const PUBLISH_SECRET: &str = "publish";
/// As [`PUBLISH_SECRET`], for session credentials.
pub(crate) const SESSION_SECRET: &str = "session";

/// Which of the embedded lane's manners to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// The field's numbers scaled to seconds, and stricter than a real server.
    Embedded,
    /// As a real server behaves, with the field's numbers.
    Real,
}

#[derive(Debug, Args)]
pub(crate) struct LaneArgs {
    /// Where to listen for clients.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Where the log lives.
    #[arg(long, required_unless_present = "config_stdin")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Its manners.
    #[arg(long, value_enum, default_value_t = ProfileArg::Embedded)]
    pub(crate) profile: ProfileArg,
    /// How long past its expiry a token is still accepted [default: the profile's].
    #[arg(long)]
    pub(crate) skew: Option<Span>,
    /// Upgrades per second beyond which 503 is answered.
    #[arg(long)]
    pub(crate) accept_rate: Option<Rate>,
    /// The database name in spacetime URLs.
    #[arg(long, default_value = "sync")]
    pub(crate) database: String,
    /// The base URL of the token service.
    #[arg(long, default_value = "http://127.0.0.1:4000")]
    pub(crate) issuer: String,
    /// The token service's shared keys (khala).
    #[arg(long, default_value = "keys.json")]
    pub(crate) key_file: PathBuf,
    /// What publishers present as Bearer token.
    #[arg(
        long,
        env = "FAULTLANE_PUBLISH_SECRET",
        hide_env_values = true,
        default_value = PUBLISH_SECRET
    )]
    pub(crate) publish_secret: String,
}

#[derive(Debug, Args)]
pub(crate) struct TokensArgs {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:4000")]
    pub(crate) listen: SocketAddr,
    /// Where to write the keys that the khala lane shares.
    #[arg(long, default_value = "keys.json")]
    pub(crate) key_file: PathBuf,
    /// Lifetime of a token where a request names none.
    #[arg(long, default_value = "300s")]
    pub(crate) ttl: Span,
    /// A token is to be refreshed so long before it expires.
    #[arg(long, default_value = "30s")]
    pub(crate) refresh_lead: Span,
    /// A token is valid from so long before it was issued, for lanes whose clock is behind.
    #[arg(long, default_value = "30s")]
    pub(crate) skew: Span,
    /// Tokens per second beyond which 429 is answered.
    #[arg(long)]
    pub(crate) rate: Option<Rate>,
    /// Tokens that may be issued at once before the rate bites.
    #[arg(long, default_value_t = 50)]
    pub(crate) burst: u32,
    /// From which session credentials are derived.
    #[arg(
        long,
        env = "FAULTLANE_SESSION_SECRET",
        hide_env_values = true,
        default_value = SESSION_SECRET
    )]
    pub(crate) session_secret: String,
    /// ORG=STREAM[,STREAM…]: which organisation owns which streams. May be repeated.
    #[arg(long = "tenant", value_name = "ORG=STREAMS")]
    pub(crate) tenants: Vec<String>,
}
