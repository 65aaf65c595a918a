//! The `clawback` binary as a process of its own: one that runs until a test kills it, or one that answers and ends.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};

use super::DEADLINE;

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
        Self { child: command(&[role], settings).env("RUST_LOG", filter).spawn().expect("clawback does not start") }
    }

    /// Starts `clawback <arguments>` with exactly these settings.
    pub(crate) fn start_with(arguments: &[&str], settings: &[(String, String)]) -> Self {
        Self { child: command(arguments, settings).spawn().expect("clawback does not start") }
    }

    /// Starts `clawback <role>` with exactly these settings, and with what it logs in a file.
    pub(crate) fn start_logging(role: &str, settings: &[(String, String)], log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_clawback"))
            .arg(role)
            .env_clear()
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the clawback binary does not start");
        Self { child }
    }

    /// SIGKILL: no goodbye.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and the exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().expect("it has ended by itself");
        let sent = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await.unwrap();
        assert!(sent.success());
        self.child.wait().await.unwrap().code()
    }
}

/// How a run of the binary went.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Runs `clawback <arguments>` with exactly these settings, as the user `ada`, to its end.
    pub(crate) async fn of(arguments: &[&str], settings: &[(String, String)]) -> Self {
        let output = command(arguments, settings).output();
        let output = tokio::time::timeout(DEADLINE, output).await;
        let output = output.unwrap_or_else(|_| panic!("clawback {arguments:?} does not end")).unwrap();
        Self {
            code: output.status.code().expect("it was killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
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
}

fn command(arguments: &[&str], settings: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clawback"));
    command.args(arguments).env_clear().envs(settings.iter().map(|(name, value)| (name, value)));
    command.env("USER", "ada").stdin(Stdio::null()).kill_on_drop(true);
    command
}
