//! Parses the command line and hands over.

use clap::Parser;

fn main() -> std::process::ExitCode {
    sessiond::cli::run(sessiond::cli::Cli::parse())
}
