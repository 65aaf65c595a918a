//! Refunds that another program or a person reports directly, deduplicated against webhooks by (source, reference). What
//! does not fit the payment is refused, not recorded: the caller gets the answer.

use uuid::Uuid;

use super::discovery::look_for_payment;
use super::intake::{self, refuse_unless_locked};
use super::matching::{self, payment_of};
use crate::ledger::book::{Book, Reads};
use crate::ledger::db::Change;
use crate::ledger::events::{NamedShare, RefundEvent, Source};
use crate::ledger::read::{NewRefund, RefundView};
use crate::ledger::schema::claim;
use crate::ledger::status::ClaimStatus;
use crate::ledger::{Ledger, LedgerError};
use crate::trace_context;

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

/// A refund that is reported directly.
#[derive(Debug)]
struct ReportedRefund {
    source: Source,
    event: RefundEvent,
    traceparent: Option<String>,
}

/// The claim's id, whether it is new, and how many reversals this report made.
#[derive(Debug)]
struct Done {
    id: Uuid,
    created: bool,
    reversals: usize,
}

impl Ledger {
    /// Takes in a refund that has succeeded, shares it out if its payment is registered, and keeps it until then if not.
    /// Reporting the same again changes nothing. A known refund that has not been shared out, because its payment or its
    /// shares did not fit, takes the shares that the report names, and is tried again.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] names the field, also of a share that does not fit the payment; [`LedgerError::Conflict`]
    /// says what is known of the refund already; [`LedgerError::Database`]: nothing was changed.
    pub async fn report_refund(&self, new: NewRefund) -> Result<Reported, LedgerError> {
        let source = new.source;
        let change = ReportedRefund { source, event: new.checked()?, traceparent: trace_context::current() };
        let Done { id, created, reversals } = self.store.apply(&change).await?;
        tracing::info!(refund_ref = change.event.refund_ref, created, reversals, "refund reported");
        let refund = self.refund(&id.to_string()).await?;
        let refund = refund.ok_or(LedgerError::NotFound { entity: "refund", id: id.to_string() })?;
        Ok(Reported { created, refund })
    }
}

impl Change for ReportedRefund {
    type Answer = Done;

    fn reads(&self, reads: &mut Reads) {
        reads.claims.insert((self.source, self.event.refund_ref.clone()));
        reads.names.extend(self.event.names().map(ToOwned::to_owned));
    }

    fn apply(&self, book: &mut Book) -> Result<Done, LedgerError> {
        refuse_unless_locked(book, self.source, &self.event)?;
        let known = intake::find(book, self.source, &self.event.refund_ref);
        if let Some(known) = &known
            && same_as_known(known, &self.event)?
        {
            let reversals = if is_open(known) { self.match_if_registered(book, known.clone())? } else { 0 };
            return Ok(Done { id: known.id, created: false, reversals });
        }
        if let Some(known) = known {
            let claim = claim::Model { shares: self.event.shares.as_deref().map(to_json), ..known };
            if let Some(payment) = payment_of(book, &claim) {
                matching::plan(book, &payment, &claim)?;
            }
            book.keep_claim(claim.clone());
            let (id, reversals) = (claim.id, self.match_if_registered(book, claim)?);
            return Ok(Done { id, created: false, reversals });
        }
        let claim = intake::unrecorded(book, self.source, &self.event);
        if let Some(payment) = payment_of(book, &claim) {
            matching::plan(book, &payment, &claim)?;
        }
        intake::add(book, &claim, ACTOR);
        let (id, reversals) = (claim.id, self.match_if_registered(book, claim)?);
        Ok(Done { id, created: true, reversals })
    }
}

impl ReportedRefund {
    /// How many reversals it makes.
    fn match_if_registered(&self, book: &mut Book, claim: claim::Model) -> Result<usize, LedgerError> {
        let Some(payment) = payment_of(book, &claim) else {
            look_for_payment(book, &claim, true, None, self.traceparent.as_deref());
            return Ok(0);
        };
        let plan = matching::plan(book, &payment, &claim)?;
        Ok(matching::carry_out(book, &payment, &claim, &plan, ACTOR, self.traceparent.as_deref())?.len())
    }
}

/// Whether it may still be shared out.
fn is_open(row: &claim::Model) -> bool {
    matches!(row.status, ClaimStatus::Unmatched | ClaimStatus::Conflicting)
}

/// True if `event` says what is known; false if it only adds shares to a refund that has not been shared out yet.
fn same_as_known(row: &claim::Model, event: &RefundEvent) -> Result<bool, LedgerError> {
    let conflict = |what: String| Err(LedgerError::Conflict(format!("refund {} is known {what}", row.reference)));
    if !row.names().any(|name| name == event.payment_ref) {
        return conflict(format!("as one of payment {}", row.payment_ref));
    }
    if (row.amount, &row.currency) != (event.amount, &event.currency) {
        return conflict(format!("with the amount {} {}", row.amount, row.currency));
    }
    if sorted(row.shares.as_deref()) == event.shares.as_deref().and_then(|shares| sorted(Some(&to_json(shares)))) {
        return Ok(true);
    }
    match row.status {
        ClaimStatus::Unmatched | ClaimStatus::Conflicting | ClaimStatus::Held => Ok(false),
        ClaimStatus::Failed => conflict("as failed; nothing is taken back for it".to_owned()),
        ClaimStatus::NothingToReverse => conflict("as one whose transfer its provider has reversed itself".to_owned()),
        ClaimStatus::Matched => match row.shares {
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

/// As `claims.shares` has it.
pub(super) fn to_json(shares: &[NamedShare]) -> String {
    serde_json::json!(shares).to_string()
}
