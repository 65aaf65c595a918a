//! The processes that a run starts. However the run ends, none of them outlives it.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::process::{Child as Process, Command};

use crate::place::Place;

const STOP_WITHIN: Duration = Duration::from_secs(40);

/// A process with a process group of its own, which ends with this value.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: &'static str,
    pub(crate) pid: u32,
    process: Process,
    log: PathBuf,
    pid_file: PathBuf,
}

impl Child {
    /// Starts `command` with its output in `NAME.log`. scripts/bench.sh ends what `NAME.pid` names, should this process be killed.
    ///
    /// # Errors
    /// When the program can't be started.
    pub(crate) fn start(place: &Place, name: &'static str, command: &mut Command) -> Result<Self> {
        let log = place.dir.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let program = command.as_std().get_program().display().to_string();
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let process = command.spawn().with_context(|| format!("{program} can't be started"))?;
        let pid = process.id().context("a process that was just started has an id")?;
        let pid_file = place.dir.join(format!("{name}.pid"));
        fs::write(&pid_file, pid.to_string())?;
        Ok(Self { name, pid, process, log, pid_file })
    }

    /// # Errors
    /// When it has ended.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; the end of its log:\n{}", self.name, self.log_end()),
        }
    }

    /// Waits until it has ended successfully.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) async fn finish(mut self) -> Result<()> {
        let status = self.process.wait().await?;
        self.ended(status)
    }

    /// Stops it in order, and returns when it is gone.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.ensure_running()?;
        signal("TERM", &self.pid.to_string());
        let waited = tokio::time::timeout(STOP_WITHIN, self.process.wait()).await;
        waited.with_context(|| format!("{} did not stop within {STOP_WITHIN:?}", self.name))??;
        Ok(())
    }

    fn ended(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("{} failed with {status}; the end of its log:\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The whole group: Dramatiq and Celery have processes of their own.
        signal("KILL", &format!("-{}", self.pid));
        let _ = fs::remove_file(&self.pid_file);
    }
}

/// Silent where the process is gone already.
fn signal(name: &str, target: &str) {
    let mut kill = std::process::Command::new("sh");
    let _ = kill.args(["-c", "kill -s \"$0\" -- \"$1\" 2>/dev/null", name, target]).status();
}
