//! Refunds that are reported by hand or by another program, instead of by webhook. Called by the API.
//!
//! A report and the provider's webhooks tell of the same refund by (source, refund_ref): whoever comes first is the one that
//! counts. What does not fit the payment is refused here, not recorded: whoever asks gets the answer.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter};

use super::entities::refund;
use super::refunds::{self, Recorded, to_json};
use super::repeating::repeated;
use super::state::RefundStatus;
use super::{Ledger, LedgerError, NamedShare, NewRefund, RefundEvent, RefundView, Source, matching, reads};

/// Who the history names.
const ACTOR: &str = "api";

/// A report's result.
#[derive(Clone, Debug)]
pub struct Reported {
    /// False when the same refund was known before.
    pub created: bool,
    /// The refund as it stands now.
    pub refund: RefundView,
}

impl Ledger {
    /// Takes in a refund that has succeeded, shares it out if its payment is registered, and keeps it until then if not.
    /// Reporting the same again changes nothing. A refund that is known and has not been shared out, because its payment
    /// or its shares did not fit, takes the shares that the report names, and is tried again.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] names the fields, also of a share that does not fit the payment; [`LedgerError::Conflict`]
    /// says what is known of the refund already; [`LedgerError::Database`]: nothing was changed.
    pub async fn report_refund(&self, new: NewRefund) -> Result<Reported, LedgerError> {
        let source = new.source;
        let event = new.checked()?;
        repeated(|| self.try_to_report(source, &event)).await
    }

    async fn try_to_report(&self, source: Source, event: &RefundEvent) -> Result<Reported, LedgerError> {
        let txn = self.begin().await?;
        let (created, row) = match refunds::record(&txn, source, event, ACTOR).await? {
            Recorded::New(row) => (true, row),
            Recorded::Known(row) if same_as_known(&row, event)? => (false, row),
            Recorded::Known(row) => (false, with_shares(&txn, row, event).await?),
        };
        let mut jobs = 0;
        if is_open(&row)
            && let Some(payment) = refunds::payment(&txn, &row).await?
        {
            jobs = matching::try_match(&txn, &payment, &row, self.sweep_grace, ACTOR).await??.len();
        }
        let row = refund::Entity::find_by_id(row.id).one(&txn).await?.unwrap_or(row);
        let refund = reads::refund_view(&txn, row).await?;
        self.commit(txn, jobs).await?;
        tracing::info!(refund_ref = event.refund_ref, created, reversals = jobs, "refund reported");
        Ok(Reported { created, refund })
    }
}

/// Whether it may still be shared out.
fn is_open(row: &refund::Model) -> bool {
    row.failed_at.is_none() && matches!(row.status, RefundStatus::Unmatched | RefundStatus::Conflicting)
}

/// True if `event` says what is known; false if it only adds shares to a refund that has not been shared out yet.
fn same_as_known(row: &refund::Model, event: &RefundEvent) -> Result<bool, LedgerError> {
    let conflict = |what: String| Err(LedgerError::Conflict(format!("refund {} is known {what}", row.refund_ref)));
    if row.payment_ref != event.payment_ref && row.charge_ref.as_ref() != Some(&event.payment_ref) {
        return conflict(format!("as one of payment {}", row.payment_ref));
    }
    if (row.amount, &row.currency) != (event.amount, &event.currency) {
        return conflict(format!("with the amount {} {}", row.amount, row.currency));
    }
    if sorted(row.shares.as_deref()) == event.shares.as_deref().and_then(|shares| sorted(Some(&to_json(shares)))) {
        return Ok(true);
    }
    if row.failed_at.is_some() {
        return conflict("as failed; nothing is taken back for it".to_owned());
    }
    match row.status {
        RefundStatus::Unmatched | RefundStatus::Conflicting => Ok(false),
        RefundStatus::NothingToReverse => conflict("as one whose transfer its provider has reversed itself".to_owned()),
        RefundStatus::Matched => match row.shares {
            None => conflict("and shared out by ratio already".to_owned()),
            Some(_) => conflict("and shared out already, by other shares".to_owned()),
        },
    }
}

/// The shares in an order of their own.
fn sorted(shares: Option<&str>) -> Option<Vec<NamedShare>> {
    let mut shares: Vec<NamedShare> = serde_json::from_str(shares?).ok()?;
    shares.sort_unstable();
    Some(shares)
}

/// The refund, with the shares that `event` names instead of those that it had.
async fn with_shares(
    txn: &DatabaseTransaction,
    row: refund::Model,
    event: &RefundEvent,
) -> Result<refund::Model, LedgerError> {
    let shares = event.shares.as_deref().map(to_json);
    refund::Entity::update_many()
        .col_expr(refund::Column::Shares, Expr::value(shares.clone()))
        .filter(refund::Column::Id.eq(row.id))
        .exec(txn)
        .await?;
    Ok(refund::Model { shares, ..row })
}
