//! The `clawback` binary as a command that ends: what it writes, and its exit code.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::DEADLINE;

/// What a command wrote, and its exit code.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it printed, without its line breaks.
    pub(crate) fn words(&self) -> String {
        self.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What it printed, when it succeeded and kept to what a terminal shows.
    pub(crate) fn table(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{self:?}");
        assert!(!self.stdout.contains('\x1b'), "colours are for terminals: {self:?}");
        for line in self.stdout.lines() {
            assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
        }
        &self.stdout
    }

    /// Both streams and the exit code, with what differs from run to run replaced.
    pub(crate) fn shown(&self, replaced: &[(&str, &str)]) -> String {
        let stderr = if self.stderr.is_empty() { String::new() } else { format!("--- stderr ---\n{}", self.stderr) };
        let text = format!("{}{stderr}--- exit code {} ---", self.stdout, self.code);
        replaced.iter().fold(text, |text, (from, to)| text.replace(from, to))
    }
}

/// Runs `clawback` with these arguments and exactly these settings, and with nothing on stdin.
pub(crate) async fn clawback(arguments: &[&str], settings: &[(String, String)]) -> Finished {
    clawback_reading(arguments, settings, b"").await
}

/// [`clawback`], with `input` on stdin.
pub(crate) async fn clawback_reading(arguments: &[&str], settings: &[(String, String)], input: &[u8]) -> Finished {
    let mut child = command(arguments, settings).stdin(Stdio::piped()).spawn().expect("clawback does not start");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // It may end without reading it all.
    let writing = tokio::spawn(async move { _ = stdin.write_all(&input).await });
    let output =
        tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("clawback does not end").unwrap();
    writing.await.unwrap();
    Finished {
        code: output.status.code().expect("it was killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The command, run by the user `ada`, its output captured. Killed when dropped.
pub(crate) fn command(arguments: &[&str], settings: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clawback"));
    command.args(arguments).env_clear().env("RUST_LOG", "warn").env("USER", "ada");
    command.envs(settings.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Settings by name.
pub(crate) fn settings(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
