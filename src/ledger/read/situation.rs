//! What every door shows while jobs wait: who is alive, what an operator has paused, and since when Stripe can't be used.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::ledger::{Ledger, LedgerError, Pause, Process, Processes};

/// How old it may be.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Why jobs wait, or that nothing keeps them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Situation {
    /// Who is alive.
    pub processes: Processes,
    /// The pauses that are in force.
    pub pauses: Vec<Pause>,
}

impl Situation {
    /// Why calls about this connected account wait; with `None`, why all of them do.
    #[must_use]
    pub fn why_waiting(&self, destination: Option<&str>) -> Option<String> {
        let is_about = |pause: &&Pause| pause.seller.is_none() || pause.seller.as_deref() == destination;
        if let Some(pause) = self.pauses.iter().find(is_about) {
            let Pause { operator, reason, created_at, .. } = pause;
            return Some(format!("{} is paused since {} by {operator}: {reason}", pause.what(), short(*created_at)));
        }
        if let Some(outage) = self.processes.outage() {
            return Some(self::outage(outage));
        }
        self.processes.workers().next().is_none().then(|| "no worker is alive".to_owned())
    }
}

/// What a worker says of Stripe's outage.
fn outage(process: &Process) -> String {
    let since = process.outage_since.map(|since| format!(" since {}", short(since))).unwrap_or_default();
    let why = process.outage_reason.as_deref().unwrap_or("unknown");
    let about = process.outage_about.as_ref().map(|about| format!(", noticed at {about}")).unwrap_or_default();
    let next = process.next_probe_at.map(|at| format!("; next probe {}", short(at))).unwrap_or_default();
    format!("Stripe can't be used{since} ({why}{about}){next}")
}

fn short(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl Ledger {
    /// Who is alive, and what keeps jobs waiting, as of a second ago at most.
    pub async fn situation(&self) -> Result<Arc<Situation>, LedgerError> {
        let look = async {
            let (processes, pauses) = tokio::try_join!(self.processes(), self.pauses())?;
            Ok(Situation { processes, pauses })
        };
        self.figures.situation.get_within(FRESH_FOR, look).await
    }
}
