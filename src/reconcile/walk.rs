//! The walk through the ledger, a page at a time. Nothing stands still: a difference counts if a second look sees it too.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::compare::{Comparison, compare, uncreated};
use super::difference::{Difference, Kind};
use super::reader::Reader;
use super::repair::repair;
use crate::ledger::{Counts, Ledger, LedgerError, RunPage, Target, Task, TransferStatus, TransferView};
use crate::stripe;
use crate::worker::Limiter;

/// Transfers in a page.
const PAGE: u64 = 50;
/// Transfers that are asked about at the same time; the limiter says how fast.
const CONCURRENCY: usize = 16;
/// Between the two looks: longer than a worker takes to record an answer, and than Stripe's lists usually lag.
const MOMENT: Duration = Duration::from_secs(1);
/// When Stripe knows none of so many transfers, the key is not of their account.
const UNKNOWN_AT_FIRST: usize = 10;

/// A walk through the transfers of the ledger.
#[derive(Debug)]
pub struct Walk {
    ledger: Ledger,
    reader: Reader,
    since: Option<DateTime<Utc>>,
    /// Only this transfer.
    only: Option<Uuid>,
    fix: bool,
    after: Option<Uuid>,
    any_known: bool,
    unknown: usize,
}

/// What came of one page of transfers.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// What was compared.
    pub counts: Counts,
    /// What differs, in the order of the transfers.
    pub differences: Vec<Difference>,
    /// The last of its transfers.
    last: Option<Uuid>,
}

impl From<&Page> for RunPage {
    fn from(page: &Page) -> Self {
        Self { after: page.last, counts: page.counts, differences: page.differences.iter().map(Into::into).collect() }
    }
}

/// Why a walk can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The ledger did not do its part.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Stripe refused, or did not answer for half a minute.
    #[error("Stripe can't be asked about transfer {transfer_id}: {message}{advice}")]
    Stripe {
        /// Stripe's id.
        transfer_id: String,
        /// What Stripe or the network said.
        message: String,
        /// What to do, with its punctuation.
        advice: &'static str,
    },
    /// The key is of another account or mode.
    #[error("Stripe knows none of the first {0} transfers; check that STRIPE_API_KEY is of their account and mode")]
    NothingKnown(usize),
}

impl Walk {
    /// A walk through the transfers that have changed since then, or through all; with `fix` it repairs on its way.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        stripe: stripe::Client,
        limiter: Limiter,
        since: Option<DateTime<Utc>>,
        fix: bool,
    ) -> Self {
        Self {
            ledger,
            reader: Reader::new(stripe, limiter),
            since,
            only: None,
            fix,
            after: None,
            any_known: false,
            unknown: 0,
        }
    }

    /// The same, about this transfer alone.
    #[must_use]
    pub fn only(self, transfer_id: Uuid) -> Self {
        Self { only: Some(transfer_id), ..self }
    }

    /// The same, from behind this transfer on.
    #[must_use]
    pub fn resumed(self, after: Option<Uuid>) -> Self {
        Self { after, ..self }
    }

    /// Compares the next page of transfers; none after the last.
    ///
    /// # Errors
    /// [`ReconcileError`]; what was repaired on this page stays repaired, and the page may be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Page>, ReconcileError> {
        let transfers = match self.only {
            Some(_) if self.after.is_some() => Vec::new(),
            Some(id) => self.ledger.transfer(&id.to_string()).await?.into_iter().collect(),
            None => self.ledger.transfers_to_reconcile(self.since, self.after, PAGE).await?,
        };
        let Some(last) = transfers.last().map(|transfer| transfer.id) else { return Ok(None) };
        let mut page = Page { last: Some(last), ..Page::default() };
        let looked = self.look_at(transfers).await?;
        self.check_account(&looked)?;
        let (differing, same): (Vec<_>, Vec<_>) =
            looked.into_iter().partition(|(_, comparison)| !comparison.differences.is_empty());
        for (transfer, comparison) in same {
            count(&mut page.counts, &transfer, &comparison);
        }
        for (transfer, comparison) in self.look_again(differing).await? {
            count(&mut page.counts, &transfer, &comparison);
            for difference in comparison.differences {
                let difference = if self.fix { repair(&self.ledger, difference).await? } else { difference };
                page.differences.push(difference);
            }
        }
        self.after = Some(last);
        Ok(Some(page))
    }

    /// The same transfers, read anew, with the differences that were seen before and are still there.
    async fn look_again(
        &self,
        differing: Vec<(TransferView, Comparison)>,
    ) -> Result<Vec<(TransferView, Comparison)>, ReconcileError> {
        if differing.is_empty() {
            return Ok(Vec::new());
        }
        tokio::time::sleep(MOMENT).await;
        let mut transfers = Vec::new();
        let mut seen = Vec::new();
        for (transfer, comparison) in differing {
            transfers.extend(self.ledger.transfer(&transfer.id.to_string()).await?);
            seen.extend(comparison.differences);
        }
        let mut looked = self.look_at(transfers).await?;
        for (_, comparison) in &mut looked {
            comparison.differences.retain(|now| seen.iter().any(|before| now.is_same_as(before)));
        }
        Ok(looked)
    }

    /// Compares each of `transfers` with what Stripe has now, several at a time, and keeps their order.
    async fn look_at(&self, transfers: Vec<TransferView>) -> Result<Vec<(TransferView, Comparison)>, ReconcileError> {
        let looks = stream::iter(transfers).map(async |transfer| {
            let comparison = self.look(&transfer).await?;
            Ok((transfer, comparison))
        });
        looks.buffered(CONCURRENCY).try_collect().await
    }

    async fn look(&self, ours: &TransferView) -> Result<Comparison, ReconcileError> {
        let Some(id) = ours.stripe_transfer_id.as_deref() else { return self.look_for_created(ours).await };
        let theirs = self.reader.read(id, ours.reversals.is_empty()).await?;
        let reversals = theirs.iter().flat_map(|theirs| &theirs.reversals);
        let refunds: Vec<String> = reversals.filter_map(|reversal| reversal.source_refund.clone()).collect();
        let expected = match refunds.is_empty() {
            true => HashSet::new(),
            false => self.ledger.refunds_reversed_by_stripe(&refunds).await?,
        };
        Ok(compare(ours, theirs.as_ref(), &expected))
    }

    /// A transfer that Clawback gave up creating, or withheld, is not at Stripe, unless the ledger has lost that it was created.
    async fn look_for_created(&self, ours: &TransferView) -> Result<Comparison, ReconcileError> {
        let ended = matches!(ours.status, TransferStatus::PermanentlyFailed | TransferStatus::Reversed);
        let task = if ended { self.ledger.task(ours.id).await? } else { None };
        let Some(Task { call, target: Target::Creation(target), .. }) = task else { return Ok(Comparison::default()) };
        let differences = match self.reader.created(&call, &target).await? {
            Some(theirs) => vec![uncreated(ours, &theirs)],
            None => Vec::new(),
        };
        Ok(Comparison { differences, ..Comparison::default() })
    }

    /// Stops a walk with another account's key before it calls every single transfer unknown.
    fn check_account(&mut self, looked: &[(TransferView, Comparison)]) -> Result<(), ReconcileError> {
        let asked = looked.iter().filter(|(transfer, _)| transfer.stripe_transfer_id.is_some());
        let is_unknown =
            |comparison: &Comparison| comparison.differences.iter().any(|found| found.kind == Kind::UnknownTransfer);
        for (_, comparison) in asked {
            match is_unknown(comparison) {
                true => self.unknown += 1,
                false => self.any_known = true,
            }
        }
        match !self.any_known && self.unknown >= UNKNOWN_AT_FIRST {
            true => Err(ReconcileError::NothingKnown(self.unknown)),
            false => Ok(()),
        }
    }
}

fn count(counts: &mut Counts, transfer: &TransferView, comparison: &Comparison) {
    match transfer.stripe_transfer_id {
        Some(_) => counts.transfers += 1,
        None => counts.transfers_without_stripe_id += 1,
    }
    counts.agreed += comparison.agreed;
    counts.on_their_way += comparison.on_their_way;
    counts.given_up += comparison.given_up;
}
