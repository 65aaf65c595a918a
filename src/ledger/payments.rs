//! Registers payments and their transfers, and matches the claims that came before them.

use uuid::Uuid;

use super::book::{Book, Reads};
use super::claims::match_or_conflict;
use super::db::Change;
use super::history::Note;
use super::read::{NewPayment, NewTransfer, PaymentView};
use super::schema::{call, claim, payment, transfer};
use super::status::{CallKind, CallState, ClaimStatus, TransferStatus};
use super::{Ledger, LedgerError};
use crate::trace_context;

const API: &str = "api";
const IMPORT: &str = "import";

/// A registration's result.
#[derive(Clone, Debug)]
pub struct Registered {
    /// False when the same payment was registered before.
    pub created: bool,
    /// The payment as it stands now.
    pub payment: PaymentView,
}

/// A payment to register, checked.
#[derive(Debug)]
struct Registration {
    new: NewPayment,
    actor: &'static str,
    traceparent: Option<String>,
}

impl Ledger {
    /// Registers a payment with its transfers, has those created that have no Stripe id, and matches refunds that were
    /// reported before. Registering the same again changes nothing.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] names the fields; [`LedgerError::Conflict`] says what is registered already;
    /// [`LedgerError::Database`]: nothing was changed.
    pub async fn register_payment(&self, new: NewPayment) -> Result<Registered, LedgerError> {
        let change = Registration { new: new.checked()?, actor: API, traceparent: trace_context::current() };
        let created = self.store.apply(&change).await?;
        let payment_ref = change.new.payment_ref;
        let payment = self.payment(&payment_ref).await?;
        let payment = payment.ok_or(LedgerError::NotFound { entity: "payment", id: payment_ref })?;
        Ok(Registered { created, payment })
    }

    /// [`Self::register_payment`] for many, with `import` as the actor in the history, in one transaction where that works.
    /// Each payment gets its own answer: true when it is new. A dry run does and finds the same, and then takes it back.
    ///
    /// # Errors
    /// [`LedgerError::Database`]: nothing was changed.
    pub async fn import_payments(
        &self,
        new: Vec<NewPayment>,
        dry_run: bool,
    ) -> Result<Vec<Result<bool, LedgerError>>, LedgerError> {
        let checked = new.into_iter().map(NewPayment::checked);
        let mut refused = Vec::new();
        let mut changes = Vec::new();
        for new in checked {
            match new {
                Ok(new) => {
                    changes.push(Registration { new, actor: IMPORT, traceparent: None });
                    refused.push(None);
                }
                Err(error) => refused.push(Some(error)),
            }
        }
        let mut answers = self.store.apply_all(&changes, !dry_run).await.into_iter();
        let answer = |refused: Option<LedgerError>| match refused {
            Some(error) => Some(Err(error)),
            None => answers.next(),
        };
        let answers: Vec<_> = refused.into_iter().filter_map(answer).collect();
        match answers.iter().position(|answer| matches!(answer, Err(LedgerError::Database(_)))) {
            Some(at) => Err(answers.into_iter().nth(at).and_then(Result::err).unwrap_or(LedgerError::Overloaded)),
            None => Ok(answers),
        }
    }
}

impl Change for Registration {
    type Answer = bool;

    fn reads(&self, reads: &mut Reads) {
        reads.names.insert(self.new.payment_ref.clone());
        reads.stripe_transfers.extend(self.stripe_ids().map(ToOwned::to_owned));
    }

    fn apply(&self, book: &mut Book) -> Result<bool, LedgerError> {
        if let Some(existing) = book.payment_by_ref(&self.new.payment_ref).cloned() {
            same_as_registered(book, &existing, &self.new)?;
            return Ok(false);
        }
        for id in self.stripe_ids() {
            if book.transfers.all().any(|row| row.stripe_transfer_id.as_deref() == Some(id)) {
                return Err(LedgerError::Conflict(format!("transfer {id} is registered with another payment")));
            }
        }
        let payment = self.insert(book);
        let is_earlier = |row: &&claim::Model| {
            row.status == ClaimStatus::Unmatched && row.names().any(|name| name == payment.payment_ref)
        };
        let earlier: Vec<claim::Model> = book.claims.all().filter(is_earlier).cloned().collect();
        for claim in earlier {
            match_or_conflict(book, &payment, &claim, self.actor, self.traceparent.as_deref())?;
        }
        Ok(true)
    }
}

impl Registration {
    fn stripe_ids(&self) -> impl Iterator<Item = &str> {
        self.new.transfers.iter().filter_map(|transfer| transfer.stripe_transfer_id.as_deref())
    }

    /// Records the payment and its transfers, with a call and a job for each that is to be created.
    fn insert(&self, book: &mut Book) -> payment::Model {
        let note = Note::new(self.actor, "registered");
        let payment = payment::Model {
            id: Uuid::now_v7(),
            payment_ref: self.new.payment_ref.clone(),
            amount: self.new.amount,
            currency: self.new.currency.clone(),
            created_at: book.now,
        };
        book.add_payment(payment.clone(), &note);
        for (position, new) in (0..).zip(&self.new.transfers) {
            let id = Uuid::now_v7();
            let created_by_us = new.stripe_transfer_id.is_none();
            let row = transfer::Model {
                id,
                payment_id: payment.id,
                position,
                seller_id: new.seller_id.clone(),
                stripe_transfer_id: new.stripe_transfer_id.clone(),
                destination: new.destination.clone(),
                amount: new.amount,
                amount_reversed: 0,
                currency: new.currency.clone(),
                status: if created_by_us { TransferStatus::Pending } else { TransferStatus::Completed },
                created_by_us,
                created_at: book.now,
                updated_at: book.now,
            };
            book.add_transfer(row, &note);
            if created_by_us {
                let call = call::Model::new(id, CallKind::Create, CallState::Open, book.now, book.graces);
                book.enqueue(&call, self.traceparent.as_deref());
                book.put_call(call);
            }
        }
        payment
    }
}

/// Errors unless `new` says what is registered.
fn same_as_registered(book: &Book, existing: &payment::Model, new: &NewPayment) -> Result<(), LedgerError> {
    let conflict = |what: &str, registered: &str| {
        let payment_ref = &existing.payment_ref;
        Err(LedgerError::Conflict(format!("payment {payment_ref} is registered with {what} {registered}")))
    };
    if (existing.amount, &existing.currency) != (new.amount, &new.currency) {
        return conflict("the amount", &format!("{} {}", existing.amount, existing.currency));
    }
    let registered = book.transfers_of(existing.id);
    if registered.len() != new.transfers.len() {
        return conflict("a number of transfers of", &registered.len().to_string());
    }
    for (row, new) in registered.into_iter().zip(&new.transfers) {
        // One that Clawback creates was registered without an id. It may be named by its id now, too.
        let without_id = row.created_by_us && new.stripe_transfer_id.is_none();
        let registered = NewTransfer {
            seller_id: row.seller_id,
            stripe_transfer_id: row.stripe_transfer_id.filter(|_| !without_id),
            destination: row.destination,
            amount: row.amount,
            currency: row.currency,
        };
        if registered != *new {
            let id = registered.stripe_transfer_id.as_deref().unwrap_or("without a Stripe id");
            return conflict("another transfer", &format!("{id} to seller {}", registered.seller_id));
        }
    }
    Ok(())
}
