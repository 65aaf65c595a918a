//! The `clawback` binary as a process of its own, for tests that kill it.

use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};

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
        let child = Command::new(env!("CARGO_BIN_EXE_clawback"))
            .arg(role)
            .env_clear()
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .env("RUST_LOG", filter)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the clawback binary does not start");
        Self { child }
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
