//! Reads a transfer with its reversals from Stripe, in its turn; gives up after half a minute without an answer.

use std::sync::Arc;
use std::time::Duration;

use super::compare::AtStripe;
use super::walk::ReconcileError;
use crate::ledger::{Call, CreationTarget};
use crate::stripe::{self, Meaning, Report, Transfer};
use crate::worker::{Limiter, created};

/// How often a call that Stripe did not answer is made, and how long the first wait in between is; the others double it.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Stripe, read no faster than it allows.
#[derive(Debug)]
pub(super) struct Reader {
    stripe: stripe::Client,
    limiter: Arc<Limiter>,
}

impl Reader {
    pub(super) fn new(stripe: stripe::Client, limiter: Limiter) -> Self {
        Self { stripe, limiter: Arc::new(limiter) }
    }

    /// Reads the transfer, then its list: what the transfer says is reversed must be in a list that is read later.
    /// Where neither side knows of any reversal there is no list to read.
    pub(super) async fn read(&self, id: &str, none_expected: bool) -> Result<Option<AtStripe>, ReconcileError> {
        let transfer = match self.ask(|stripe| async move { stripe.get_transfer(id).await }).await {
            Ok(transfer) => transfer,
            Err(report) if report.meaning == Meaning::NoSuchTransfer => return Ok(None),
            Err(report) => return Err(failed(id, report)),
        };
        let reversals = match none_expected && transfer.amount_reversed == 0 {
            true => Vec::new(),
            false => {
                let listed = self.ask(|stripe| async move { stripe.list_reversals(id).await }).await;
                listed.map_err(|report| failed(id, report))?.items
            }
        };
        Ok(Some(AtStripe { transfer, reversals }))
    }

    /// What Stripe has of a transfer that the ledger says was never created.
    pub(super) async fn created(&self, call: &Call, of: &CreationTarget) -> Result<Option<Transfer>, ReconcileError> {
        let found = self.ask(|stripe| async move { created(&stripe, call, of).await }).await;
        found.map_err(|report| failed(&format!("to {} of payment {}", of.destination, of.payment_ref), report))
    }

    /// Makes a call in its turn, and again where that may help.
    async fn ask<T, F: Future<Output = Result<T, Report>>>(
        &self,
        call: impl Fn(stripe::Client) -> F,
    ) -> Result<T, Report> {
        let mut failures = 0;
        loop {
            self.limiter.turn().await;
            let report = match call(self.limiter.pace(&self.stripe)).await {
                Ok(answer) => {
                    self.limiter.raise();
                    return Ok(answer);
                }
                Err(report) => report,
            };
            if report.meaning == Meaning::RateLimited {
                self.limiter.halve(report.retry_after);
            }
            failures += 1;
            if !passes_by_itself(&report.meaning) || failures == ATTEMPTS {
                return Err(report);
            }
            let wait = (FIRST_WAIT * 2_u32.pow(failures - 1)).max(report.retry_after.unwrap_or_default());
            tracing::info!(?wait, message = report.message, "Stripe did not answer; asking again");
            tokio::time::sleep(wait).await;
        }
    }
}

/// Whether the same call may well go through a little later.
fn passes_by_itself(meaning: &Meaning) -> bool {
    match meaning {
        Meaning::Unreached
        | Meaning::Unavailable
        | Meaning::ServerError
        | Meaning::Unreadable
        | Meaning::RateLimited
        | Meaning::Locked
        | Meaning::KeyInUse => true,
        Meaning::TlsFailed
        | Meaning::Denied
        | Meaning::Forbidden
        | Meaning::NoSuchTransfer
        | Meaning::NoSuchAccount
        | Meaning::Rejected
        | Meaning::Created { .. }
        | Meaning::Reversed { .. }
        | Meaning::Pending { .. }
        | Meaning::Ended { .. }
        | Meaning::AlreadyReversed
        | Meaning::MoreThanLeft
        | Meaning::BalanceInsufficient
        | Meaning::KeyMisused
        | Meaning::NotSent => false,
    }
}

fn failed(transfer_id: &str, report: Report) -> ReconcileError {
    let advice = match report.meaning {
        Meaning::Denied | Meaning::Forbidden => "; check STRIPE_API_KEY, and whether the account is still connected",
        Meaning::TlsFailed => "; check STRIPE_API_BASE",
        Meaning::RateLimited => "; others use up the rate limit, so lower STRIPE_MAX_RPS or run it at a quieter time",
        _ => "; run it again later",
    };
    ReconcileError::Stripe { transfer_id: transfer_id.to_owned(), message: report.message, advice }
}
