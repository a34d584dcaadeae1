//! Loads a proxy that was built for release until it shows what it promises, and measures it: resets of thousands of
//! connections, the API beside stalled peers, memory under latency, and every byte of gigabytes.
//!
//! ```text
//! cargo build --release && cargo run --release --example load -- resets
//! ```
//!
//! ```text
//! proxy    the proxy under load, its descriptors and its memory
//! peers    clients and upstreams, in processes of their own: a process has 20,000 descriptors, mostly
//! resets   who hears of a storm of resets, when, and what is left of it
//! stalled  how long the API takes while peers do not read
//! latency  memory and throughput under a delay
//! soak     gigabytes both ways while toxics come and go
//! ```
//!
//! It exits with 1 when something does not hold.

mod latency;
mod peers;
mod proxy;
mod resets;
mod soak;
mod stalled;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reset this many connections at once.
    Resets {
        #[arg(long, default_value_t = 9_000)]
        connections: usize,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        #[command(flatten)]
        proxy: ProxyArgs,
    },
    /// Call the API while so many connections are stalled.
    Stalled {
        #[arg(long, default_value_t = 1_000)]
        connections: usize,
        #[arg(long, default_value_t = 300)]
        rounds: usize,
        #[command(flatten)]
        proxy: ProxyArgs,
    },
    /// Send as fast as it goes under a latency of 100 ms.
    Latency {
        #[command(flatten)]
        proxy: ProxyArgs,
    },
    /// Compare so many gigabytes.
    Soak {
        #[arg(long, default_value_t = 10)]
        gigabytes: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        proxy: ProxyArgs,
    },
    /// A process of this one's.
    #[command(hide = true)]
    Peers(peers::Role),
}

#[derive(Debug, Clone, Args)]
struct ProxyArgs {
    /// The faultlane binary.
    #[arg(long, default_value = "target/release/faultlane")]
    binary: PathBuf,
    /// Processes that share the connections.
    #[arg(long, default_value_t = 1)]
    workers: u16,
}

/// Something went wrong, or does not hold.
type Outcome = Result<bool, Box<dyn std::error::Error>>;

/// On one thread: what measures shall take as little as it can of what the proxy needs.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome: Outcome = match Cli::parse().command {
        Command::Resets {
            connections,
            rounds,
            proxy,
        } => resets::run(&proxy, connections, rounds).await,
        Command::Stalled {
            connections,
            rounds,
            proxy,
        } => stalled::run(&proxy, connections, rounds).await,
        Command::Latency { proxy } => latency::run(&proxy).await,
        Command::Soak {
            gigabytes,
            seed,
            proxy,
        } => soak::run(&proxy, gigabytes, seed).await,
        Command::Peers(role) => peers::main(role).await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("something does not hold");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(4)
        }
    }
}
