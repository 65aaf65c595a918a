//! Refunds that another program or a person reports directly, deduplicated against webhooks by (source, reference). What
//! does not fit the payment is refused, not recorded: the caller gets the answer.

use uuid::Uuid;

use super::matching::{By, Match, bring_together, payment_of, plan, waits_for};
use super::record::{self, refuse_unless_locked};
use super::{again, withdrawn};
use crate::ledger::book::{Book, Reads};
use crate::ledger::db::Change;
use crate::ledger::events::{ClaimKind, NamedShare, RefundEvent, Source};
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
    /// Reporting the same again changes nothing, and without shares it leaves them as they are. A known refund takes the
    /// shares that the report names as long as Stripe was asked for nothing, unless the provider's own word named others.
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
        let withdrawn = match record::find(book, self.source, &self.event) {
            Some(known) if !known.is_withdrawn() => {
                let (id, reversals) = (known.id, self.known(book, known)?);
                return Ok(Done { id, created: false, reversals });
            }
            Some(withdrawn) => Some(withdrawn),
            None => {
                refuse_other_accounts(book, self.source, &self.event)?;
                None
            }
        };
        let claim = record::new_claim(book, self.source, &self.event, false);
        let claim = record::anew(withdrawn.as_ref(), claim);
        self.refuse_unless_fitting(book, &claim)?;
        record::add(book, &claim, ACTOR);
        let waits = claim.names().any(|name| waits_for(book, &claim, name));
        let reversals = if waits { self.bring_together(book, &claim)? } else { 0 };
        Ok(Done { id: claim.id, created: true, reversals })
    }
}

impl ReportedRefund {
    fn by(&self) -> By<'_> {
        By { actor: ACTOR, event: None, traceparent: self.traceparent.as_deref() }
    }

    /// Takes in a report of a known refund, and returns how many reversals it makes.
    fn known(&self, book: &mut Book, known: claim::Model) -> Result<usize, LedgerError> {
        refuse_other_refund(&known, &self.event)?;
        if !names_other_shares(&known, &self.event) {
            return self.same_shares(book, known);
        }
        refuse_other_shares(book, &known)?;
        let mut claim = claim::Model { shares: self.event.shares.as_deref().map(to_json), ..known };
        match claim.status {
            // A report that does not fit is an error, which takes back what is called off here.
            ClaimStatus::Matched => claim = withdrawn::supersede(book, &claim, ACTOR)?,
            ClaimStatus::NothingToReverse => claim.attention = None,
            _ => {}
        }
        self.refuse_unless_fitting(book, &claim)?;
        book.keep_claim(claim.clone());
        if claim.status == ClaimStatus::Held { Ok(0) } else { self.bring_together(book, &claim) }
    }

    fn same_shares(&self, book: &mut Book, known: claim::Model) -> Result<usize, LedgerError> {
        if self.event.provider_reversal.is_some() && known.provider_reversal.is_none() && !known.takes_nothing() {
            let next = claim::Model { provider_reversal: Some(String::new()), ..known.clone() };
            again::provider_reversed(book, &known, next, &self.event, self.by())?;
            return Ok(0);
        }
        if !matches!(known.status, ClaimStatus::Unmatched | ClaimStatus::Conflicting) {
            return Ok(0);
        }
        self.refuse_unless_fitting(book, &known)?;
        self.bring_together(book, &known)
    }

    fn refuse_unless_fitting(&self, book: &Book, claim: &claim::Model) -> Result<(), LedgerError> {
        match payment_of(book, claim)? {
            Some(payment) => Ok(plan(book, &payment, claim).map(drop)?),
            None => Ok(()),
        }
    }

    /// How many reversals it makes.
    fn bring_together(&self, book: &mut Book, claim: &claim::Model) -> Result<usize, LedgerError> {
        match bring_together(book, claim, self.by())? {
            Match::Reversals(ids) => Ok(ids.len()),
            Match::NothingToReverse | Match::Conflict(_) | Match::Unmatched => Ok(0),
        }
    }
}

/// Errors if the reference is known of another account's refund, and the report does not say which account it means.
fn refuse_other_accounts(book: &Book, source: Source, event: &RefundEvent) -> Result<(), LedgerError> {
    let is_it =
        |row: &&claim::Model| (row.kind, row.source, &row.reference) == (ClaimKind::Refund, source, &event.refund_ref);
    match book.claims.all().find(is_it) {
        Some(known) if event.account.is_empty() => Err(LedgerError::Conflict(format!(
            "refund {} is known as one of payment {}; if it is another account's, name the account",
            known.reference, known.payment_ref
        ))),
        _ => Ok(()),
    }
}

/// Errors unless `event` is about the refund that is known.
fn refuse_other_refund(row: &claim::Model, event: &RefundEvent) -> Result<(), LedgerError> {
    let conflict = |what: String| Err(LedgerError::Conflict(format!("refund {} is known {what}", row.reference)));
    if !row.names().any(|name| name == event.payment_ref) {
        return conflict(format!("as one of payment {} (got {})", row.payment_ref, event.payment_ref));
    }
    if (row.amount, &row.currency) != (event.amount, &event.currency) {
        let (known, got) = (format!("{} {}", row.amount, row.currency), format!("{} {}", event.amount, event.currency));
        return conflict(format!(
            "with the amount {known} (got {got}); `clawback refunds withdraw` takes back a report that was wrong"
        ));
    }
    Ok(())
}

/// Whether `event` names shares, and others than those that are known. Without shares it leaves them as they are.
fn names_other_shares(row: &claim::Model, event: &RefundEvent) -> bool {
    let named = event.shares.as_deref().map(to_json);
    named.is_some() && sorted(named.as_deref()) != sorted(row.shares.as_deref())
}

/// Errors unless the claim may be shared out otherwise: what the provider's own word names stays, unless it does not fit, and
/// so does what Stripe was asked for.
fn refuse_other_shares(book: &Book, row: &claim::Model) -> Result<(), LedgerError> {
    let conflict = |what: &str| Err(LedgerError::Conflict(format!("refund {} is known {what}", row.reference)));
    match row.status {
        ClaimStatus::Failed => conflict("as failed; nothing is taken back for it"),
        ClaimStatus::NothingToReverse if row.attention.is_none() => {
            conflict("as one of which nothing is to be taken back")
        }
        ClaimStatus::Conflicting | ClaimStatus::NothingToReverse => Ok(()),
        _ if row.signed_shares.is_some() && row.shares == row.signed_shares => {
            conflict("with the shares that its metadata names")
        }
        ClaimStatus::Matched if withdrawn::is_requested(book, row)? => match row.shares {
            None => conflict("and shared out by ratio, and Stripe has been asked for it already"),
            Some(_) => conflict("and shared out by other shares, and Stripe has been asked for them already"),
        },
        ClaimStatus::Unmatched | ClaimStatus::Held | ClaimStatus::Matched => Ok(()),
    }
}

/// The shares in an order of their own.
pub(super) fn sorted(shares: Option<&str>) -> Option<Vec<NamedShare>> {
    let mut shares: Vec<NamedShare> = serde_json::from_str(shares?).ok()?;
    shares.sort_unstable();
    Some(shares)
}

/// As `claims.shares` has it.
pub(super) fn to_json(shares: &[NamedShare]) -> String {
    serde_json::json!(shares).to_string()
}
