//! Keeps the database's credentials current, and its clock: the file that `DATABASE_URL_FILE` names is read again, and a
//! process that the database goes on refusing ends, so that whoever runs it gives it others.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::ledger::Ledger;

/// How often the file is read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the database is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What is known of the credentials.
#[derive(Debug)]
pub(super) struct Credentials {
    file: Option<PathBuf>,
    url: SecretString,
    patience: Duration,
}

impl Credentials {
    /// Those of `config`. `patience` is how long the database may refuse them.
    pub(super) fn new(config: &Config, patience: Duration) -> Self {
        Self { file: config.database_url_file.clone(), url: config.database_url.clone(), patience }
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// When the database has refused the credentials for too long.
    pub(super) async fn keep(mut self, ledger: Ledger, stop: CancellationToken) -> Result<()> {
        let (mut asked, mut refused_since) = (Instant::now(), None::<Instant>);
        let every = LOOK_EVERY.min(self.patience / 4);
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            self.read_again(&ledger);
            if asked.elapsed() < ASK_EVERY.min(self.patience / 4) {
                continue;
            }
            asked = Instant::now();
            match stop.run_until_cancelled(ledger.ping()).await {
                Some(Err(error)) if error.is_refusal() => {
                    let since = *refused_since.get_or_insert(asked);
                    tracing::warn!(%error, "the database refuses the credentials");
                    if since.elapsed() >= self.patience {
                        bail!(
                            "the database has refused the credentials for {:?}: {error}; check DATABASE_URL",
                            self.patience
                        );
                    }
                }
                // What else may be wrong passes.
                _ => refused_since = None,
            }
        }
        Ok(())
    }

    fn read_again(&mut self, ledger: &Ledger) {
        let Some(url) = self.file.as_deref().and_then(Config::read_again) else { return };
        if url == self.url.expose_secret() {
            return;
        }
        match ledger.reconnect_by(&url) {
            Ok(()) => tracing::info!("DATABASE_URL has changed: new connections are made with it"),
            Err(error) => tracing::error!(%error, "the changed DATABASE_URL can't be used; the one before goes on"),
        }
        self.url = url.into();
    }
}
