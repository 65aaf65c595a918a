//! `clawback trace`: one timeline of everything that hangs together with an id, and how it stands now.

mod timeline;

use anyhow::{Result, bail};
use clap::Args;

use super::operator::{self, Output};
use super::output::{Format, json};
use super::terminal::print;
use crate::config::Config;
use crate::ledger::Situation;

#[derive(Debug, Args)]
#[command(after_help = "What ID may be:\n  \
                        re_…             a refund (Hyperswitch's ids, too)\n  \
                        pi_…, ch_…       a payment, as its provider or its registration names it\n  \
                        tr_…             a transfer\n  \
                        trr_…            a reversal\n  \
                        evt_…            a webhook event\n  \
                        req_…            a Request-Id of Stripe's\n  \
                        0199e2c4-…       Clawback's own id of a payment, refund, transfer, reversal or look-up\n\n\
                        Each entry has the time (UTC), what it is about, the change of status, who did it and why, and \
                        Stripe's Request-Id, which Stripe's support asks for. It all comes from the database; neither \
                        Stripe nor the broker is asked.\n\n\
                        --format json prints {\"events\", \"payments\", \"refunds\", \"transfers\", \"reversals\", \"lookups\", \"complete\"}; each \
                        event has at, entity, entity_id, provider_id, from, to, actor, reason and stripe_request_id.\n\n\
                        Examples:\n  \
                        clawback trace re_3Qx4\n  \
                        clawback trace req_9fK2 --format json | jq '.events[].reason'\n\n\
                        Exit codes: 0 found, 1 failed or nothing has that id, 2 wrong usage.")]
pub(super) struct Trace {
    /// The id of anything that has to do with it
    id: String,
    #[command(flatten)]
    output: Output,
}

/// A trace as text of at most 80 columns.
#[must_use]
pub fn story(trace: &crate::ledger::Trace, situation: &Situation) -> String {
    let mut out = Vec::new();
    // Writing into memory does not fail.
    let _ = timeline::write(&mut out, trace, situation);
    String::from_utf8_lossy(&out).into_owned()
}

impl Trace {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let ledger = operator::ledger(config).await?;
        let Some(trace) = ledger.trace(self.id.trim(), crate::ledger::Trace::MOST).await? else {
            bail!(
                "nothing here has the id {:?}; understood are refunds (re_…), payments (pi_…, ch_…), transfers (tr_…), \
                 reversals (trr_…), webhook events (evt_…), Stripe's Request-Ids (req_…), and Clawback's own ids",
                self.id
            )
        };
        let mut out = Vec::new();
        match self.output.format {
            Format::Table => timeline::write(&mut out, &trace, &*ledger.situation().await?)?,
            Format::Json => json(&mut out, &trace)?,
        }
        Ok(print(&out)?)
    }
}
