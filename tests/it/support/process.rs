//! The `clawback` binary as a process that runs until a test stops or kills it.

use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::command;

/// A running `clawback`. Killed when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `clawback <role>` with exactly these settings.
    pub(crate) fn start(role: &str, settings: &[(String, String)]) -> Self {
        Self::start_filtered(role, settings, "warn")
    }

    /// The same, with another filter for log lines and traces.
    pub(crate) fn start_filtered(role: &str, settings: &[(String, String)], filter: &str) -> Self {
        Self { child: shown(&[role], settings).env("RUST_LOG", filter).spawn().expect("clawback does not start") }
    }

    /// Starts `clawback <arguments>` with exactly these settings.
    pub(crate) fn start_with(arguments: &[&str], settings: &[(String, String)]) -> Self {
        Self { child: shown(arguments, settings).spawn().expect("clawback does not start") }
    }

    /// Starts `clawback <role>` with exactly these settings, and with what it logs in a file.
    pub(crate) fn start_logging(role: &str, settings: &[(String, String)], log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let child = shown(&[role], settings).stderr(log).spawn().expect("clawback does not start");
        Self { child }
    }

    /// SIGKILL: no goodbye.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends it a signal: `STOP`, `CONT`, `TERM`.
    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it has ended by itself");
        let sent = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().await.unwrap();
        assert!(sent.success());
    }

    /// SIGTERM, and the exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        self.signal("TERM").await;
        self.child.wait().await.unwrap().code()
    }
}

/// As in `command`, with its output in the test's own.
fn shown(arguments: &[&str], settings: &[(String, String)]) -> Command {
    let mut command = command(arguments, settings);
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    command
}
