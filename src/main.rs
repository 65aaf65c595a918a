//! The `clawback` program. Everything it does is in the library; `clawback --help` tells what that is.

use std::process::ExitCode;

use clap::Parser;
use clawback::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(Cli::parse().execute()).await {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where the program's last words go to the terminal")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
