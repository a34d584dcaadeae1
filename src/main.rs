//! faultlane: chaos drills for real-time sync services.
//!
//! This crate is the command line: it parses, calls a crate, and maps what came of it to an exit code.

use std::process::ExitCode;

use clap::Parser as _;

mod cli;
mod commands;
mod exit;
mod progress;

fn main() -> ExitCode {
    let cli = cli::Cli::parse_from(cli::proxy::with_long_flags(std::env::args_os()));
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("FAULTLANE_LOG")
                .unwrap_or_else(|_| cli.command.default_log_filter().into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match commands::execute(cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("faultlane: {}", error.message);
            error.exit.into()
        }
    }
}
