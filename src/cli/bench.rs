//! What can be typed after `faultlane bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// The proxy beside `HAProxy` and toxiproxy-server, where they are on the PATH, and beside no proxy at all.
    ///
    /// Takes about five minutes. What counts are the medians of the rounds' ratios, with their 95 % intervals.
    Proxy(BenchProxyArgs),
    /// The server behind the proxies.
    #[command(hide = true)]
    Sink,
}

#[derive(Debug, Args)]
pub(crate) struct BenchProxyArgs {
    /// A smoke run of seconds: whether it works, not how fast.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds of each comparison [default: 15, of a smoke run 3].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: Option<u16>,
    /// Only what has this in its name, such as `throughput`, `requests`, `new connections`, `idle`, `delay`, `bandwidth`.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Write everything that was measured to this file, as JSON.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", hide_default_value = true)]
    pub(crate) json: Option<PathBuf>,
    /// Measure this build instead of the one that runs.
    #[arg(long, value_name = "BIN")]
    pub(crate) build: Option<PathBuf>,
}
