//! Ctrl-C and SIGTERM as a future, for commands that run until they are stopped.

use std::future::Future;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

/// What a process was told to stop by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Ctrl-C: somebody waits at a terminal.
    Interrupt,
    /// SIGTERM: an orchestrator.
    Terminate,
}

/// Resolves at the first Ctrl-C or SIGTERM from now on.
pub(super) fn stop() -> Result<impl Future<Output = Stop> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => Stop::Interrupt,
            _ = terminate.recv() => Stop::Terminate,
        }
    })
}
