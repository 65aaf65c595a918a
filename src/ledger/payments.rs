//! Registers payments and their transfers, and matches the claims that came before them.

use uuid::Uuid;

use super::book::{Book, Reads};
use super::claims::match_or_conflict;
use super::db::Change;
use super::history::Note;
use super::lookups::{self, Subject};
use super::read::{NewPayment, NewTransfer, PaymentView};
use super::schema::{call, claim, payment, transfer};
use super::status::{CallKind, CallState, TransferStatus};
use super::{Ledger, LedgerError};
use crate::trace_context;

const API: &str = "api";
const IMPORT: &str = "import";
/// Who the history names for what a look-up found.
pub(super) const STRIPE: &str = "stripe";

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
        if self.actor != STRIPE {
            lookups::call_off(book, &payment.payment_ref, self.actor);
        }
        self.match_waiting(book, &payment, std::slice::from_ref(&payment.payment_ref))?;
        Ok(true)
    }
}

/// Registers a payment as a look-up found it, and matches its claims. Of the transfers `reversed` something is back
/// already, which is only right where that is known here; `names` are all that are known of the payment. Returns what was
/// done, in words.
///
/// # Errors
/// [`LedgerError::Conflict`], [`LedgerError::Invalid`] when it can't be registered like this; nothing was changed.
pub(super) fn register_found(
    book: &mut Book,
    new: &NewPayment,
    reversed: &[String],
    names: &[String],
    subject: Subject,
    traceparent: Option<&str>,
) -> Result<String, LedgerError> {
    let new = new.clone().checked()?;
    let known = names.iter().find_map(|name| book.payment_by_ref(name)).cloned();
    let registered: Vec<String> =
        known.iter().flat_map(|known| book.transfers_of(known.id)).filter_map(|row| row.stripe_transfer_id).collect();
    let foreign: Vec<&str> = reversed.iter().filter(|id| !registered.contains(id)).map(String::as_str).collect();
    if !foreign.is_empty() {
        let problem =
            format!("{} of payment {} is reversed already, at least in part", foreign.join(", "), new.payment_ref);
        return Err(LedgerError::Conflict(problem));
    }
    let payment_ref = known.as_ref().map_or(&new.payment_ref, |known| &known.payment_ref).clone();
    let change = Registration {
        new: NewPayment { payment_ref: payment_ref.clone(), ..new },
        actor: STRIPE,
        traceparent: traceparent.map(ToOwned::to_owned),
    };
    let Some(known) = known else {
        change.apply(book)?;
        return Ok(format!("payment {payment_ref} is registered with {} transfers", change.new.transfers.len()));
    };
    let unknown = change.unknown_transfers(book);
    if subject == Subject::Transfer && !unknown.is_empty() {
        return change.add_found(book, &known, unknown);
    }
    // Its registration counts. What Stripe shows is only compared.
    let waiting = lookups::waiting(book, names);
    change.match_waiting(book, &known, names)?;
    let Err(LedgerError::Conflict(problem)) = same_as_registered(book, &known, &change.new) else {
        return Ok(format!("payment {payment_ref} was registered already"));
    };
    let problem = format!("{problem}; Stripe shows it otherwise");
    for claim in waiting.iter().filter_map(|claim| book.claims.get(claim.id).cloned()).collect::<Vec<_>>() {
        book.keep_claim(claim::Model { attention: Some(problem.clone()), ..claim });
    }
    Ok(problem)
}

impl Registration {
    /// Matches the claims under any of these names that wait for the payment.
    fn match_waiting(&self, book: &mut Book, payment: &payment::Model, names: &[String]) -> Result<(), LedgerError> {
        for claim in lookups::waiting(book, names) {
            match_or_conflict(book, payment, &claim, self.actor, self.traceparent.as_deref())?;
        }
        Ok(())
    }

    fn unknown_transfers(&self, book: &Book) -> Vec<NewTransfer> {
        let is_known = |new: &NewTransfer| {
            book.transfers
                .all()
                .any(|row| row.stripe_transfer_id.is_some() && row.stripe_transfer_id == new.stripe_transfer_id)
        };
        self.new.transfers.iter().filter(|new| !is_known(new)).cloned().collect()
    }

    /// Adds transfers that Stripe created after the payment was found, unless a claim was shared out without them.
    fn add_found(
        &self,
        book: &mut Book,
        payment: &payment::Model,
        unknown: Vec<NewTransfer>,
    ) -> Result<String, LedgerError> {
        let ids = unknown.iter().filter_map(|new| new.stripe_transfer_id.as_deref()).collect::<Vec<_>>().join(", ");
        let matched: Vec<claim::Model> =
            book.claims.all().filter(|row| row.payment_id == Some(payment.id)).cloned().collect();
        if !payment.found_at_stripe {
            return Ok(format!("payment {} is registered without {ids}", payment.payment_ref));
        }
        if !matched.is_empty() {
            let problem = format!("{ids} was created after a claim of payment {} was shared out", payment.payment_ref);
            for claim in matched {
                book.keep_claim(claim::Model { attention: Some(problem.clone()), ..claim });
            }
            return Ok(problem);
        }
        let place = i32::try_from(book.transfers_of(payment.id).len()).unwrap_or(i32::MAX);
        for (position, new) in (place..).zip(&unknown) {
            self.insert_transfer(book, payment.id, position, new);
        }
        Ok(format!("{ids} is added to payment {}", payment.payment_ref))
    }

    /// What the history says.
    fn note(&self) -> Note {
        Note::new(self.actor, if self.actor == STRIPE { "found at Stripe" } else { "registered" })
    }

    fn stripe_ids(&self) -> impl Iterator<Item = &str> {
        self.new.transfers.iter().filter_map(|transfer| transfer.stripe_transfer_id.as_deref())
    }

    /// Records the payment and its transfers, with a call and a job for each that is to be created.
    fn insert(&self, book: &mut Book) -> payment::Model {
        let payment = payment::Model {
            id: Uuid::now_v7(),
            payment_ref: self.new.payment_ref.clone(),
            amount: self.new.amount,
            currency: self.new.currency.clone(),
            found_at_stripe: self.actor == STRIPE,
            created_at: book.now,
        };
        book.add_payment(payment.clone(), &self.note());
        for (position, new) in (0..).zip(&self.new.transfers) {
            self.insert_transfer(book, payment.id, position, new);
        }
        payment
    }

    fn insert_transfer(&self, book: &mut Book, payment_id: Uuid, position: i32, new: &NewTransfer) {
        let id = Uuid::now_v7();
        let created_by_us = new.stripe_transfer_id.is_none();
        let row = transfer::Model {
            id,
            payment_id,
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
        book.add_transfer(row, &self.note());
        if created_by_us {
            let call = call::Model::new(id, CallKind::Create, CallState::Open, book.now, book.graces);
            book.enqueue(&call, self.traceparent.as_deref());
            book.put_call(call);
        }
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
