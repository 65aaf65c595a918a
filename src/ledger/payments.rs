//! Registers payments and their transfers, amends them, and matches the claims that came before.

mod amend;
mod found;
mod same;

use uuid::Uuid;

use super::book::{Book, Reads};
use super::claims::match_or_conflict;
use super::db::Change;
use super::history::Note;
use super::input::{CorrectedPayment, NewPayment, NewTransfer, NewTransfers};
use super::lookups;
use super::read::PaymentView;
use super::schema::{call, payment, transfer};
use super::status::{CallKind, CallState, TransferStatus};
use super::{Ledger, LedgerError};
use crate::trace_context;

pub(super) use found::register_found;

const API: &str = "api";
const IMPORT: &str = "import";
/// Who the history names for what a look-up found.
pub(super) const STRIPE: &str = "stripe";

/// What became of a registration, or of an amendment.
#[derive(Clone, Debug)]
pub struct Registered {
    /// False when all of it was registered before, exactly so.
    pub created: bool,
    /// The payment as it stands now.
    pub payment: PaymentView,
}

/// A registration or an amendment, checked.
#[derive(Debug)]
pub(super) struct Registration {
    what: What,
    actor: &'static str,
    traceparent: Option<String>,
}

#[derive(Debug)]
enum What {
    New(NewPayment),
    Add { payment_ref: String, new: NewTransfers },
    Correct(NewPayment),
}

impl Ledger {
    /// Registers a payment with its transfers, has those created that ask for it, and matches refunds that were reported
    /// before. Registering the same again changes nothing, whatever the order of the transfers. What was found at Stripe may be
    /// registered with more transfers than were found, which are added, and with other ids of the sellers than their accounts'.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] names the fields; [`LedgerError::Conflict`] says what is registered already;
    /// [`LedgerError::Overloaded`]; [`LedgerError::Database`]: nothing was changed.
    pub async fn register_payment(&self, new: NewPayment) -> Result<Registered, LedgerError> {
        self.register(What::New(new.checked()?)).await
    }

    /// Adds transfers that were made later to a payment, named by its reference or by Clawback's id. They owe their part of
    /// the refunds that were shared out by ratio before. A transfer that is registered with it already stays as it is.
    ///
    /// # Errors
    /// As [`Self::register_payment`], and [`LedgerError::NotFound`].
    pub async fn add_transfers(&self, payment: &str, new: NewTransfers) -> Result<Registered, LedgerError> {
        let (payment_ref, new) = (self.payment_ref(payment).await?, new.checked()?);
        self.register(What::Add { payment_ref, new }).await
    }

    /// Corrects what a payment was registered as, while no refund was matched to it and nothing of it was created.
    ///
    /// # Errors
    /// As [`Self::register_payment`]; [`LedgerError::NotFound`]; [`LedgerError::Conflict`] says why it is too late.
    pub async fn correct_payment(&self, payment: &str, new: CorrectedPayment) -> Result<Registered, LedgerError> {
        let payment_ref = self.payment_ref(payment).await?;
        self.register(What::Correct(new.of(&payment_ref)?)).await
    }

    async fn register(&self, what: What) -> Result<Registered, LedgerError> {
        let payment_ref = what.payment_ref().to_owned();
        let change = Registration { what, actor: API, traceparent: trace_context::current() };
        let created = self.registrations.submit(change).await?;
        let payment = self.payment(&payment_ref).await?;
        let payment = payment.ok_or(LedgerError::NotFound { entity: "payment", id: payment_ref })?;
        Ok(Registered { created, payment })
    }

    async fn payment_ref(&self, id: &str) -> Result<String, LedgerError> {
        let found = self.payment(id).await?;
        found
            .map(|found| found.payment_ref)
            .ok_or_else(|| LedgerError::NotFound { entity: "payment", id: id.to_owned() })
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
                    changes.push(Registration { what: What::New(new), actor: IMPORT, traceparent: None });
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

impl What {
    fn payment_ref(&self) -> &str {
        match self {
            Self::New(new) | Self::Correct(new) => &new.payment_ref,
            Self::Add { payment_ref, .. } => payment_ref,
        }
    }

    fn transfers(&self) -> &[NewTransfer] {
        match self {
            Self::New(new) | Self::Correct(new) => &new.transfers,
            Self::Add { new, .. } => &new.transfers,
        }
    }
}

impl Change for Registration {
    type Answer = bool;

    /// The payment's name keeps refunds of it out until this is committed.
    fn reads(&self, reads: &mut Reads) {
        reads.names.insert(self.what.payment_ref().to_owned());
        let ids = self.what.transfers().iter().filter_map(|new| new.stripe_transfer_id.clone());
        reads.stripe_transfers.extend(ids);
    }

    fn apply(&self, book: &mut Book) -> Result<bool, LedgerError> {
        let payment_ref = self.what.payment_ref();
        match (&self.what, book.payment_by_ref(payment_ref).cloned()) {
            // Stripe shows what was paid so far, and to whose accounts; the marketplace knows of what is yet to be created, and who
            // the sellers are.
            (What::New(new), Some(found)) if found.found_at_stripe => {
                let named = same::name_sellers(book, &found, &new.transfers, self.actor);
                if same::says_more(book, &found, new) {
                    let (transfers, allow_excess) = (new.transfers.clone(), new.allow_excess);
                    return self.add(book, &found, &NewTransfers { transfers, allow_excess });
                }
                same::as_registered(book, &found, new).map(|()| named)
            }
            (What::New(new), Some(existing)) => same::as_registered(book, &existing, new).map(|()| false),
            (What::New(new), None) => self.insert(book, new).map(|()| true),
            (What::Add { new, .. }, Some(existing)) => {
                let named = existing.found_at_stripe && same::name_sellers(book, &existing, &new.transfers, self.actor);
                self.add(book, &existing, new).map(|added| added || named)
            }
            (What::Correct(new), Some(existing)) => self.correct(book, existing, new),
            (_, None) => Err(LedgerError::NotFound { entity: "payment", id: payment_ref.to_owned() }),
        }
    }
}

impl Registration {
    fn insert(&self, book: &mut Book, new: &NewPayment) -> Result<(), LedgerError> {
        refuse_others(book, Uuid::nil(), &new.transfers)?;
        let payment = self.add_rows(book, new);
        lookups::call_off(book, &payment.payment_ref, self.actor);
        self.match_waiting(book, &payment, std::slice::from_ref(&payment.payment_ref))
    }

    /// Records a payment that is new, with its transfers.
    fn add_rows(&self, book: &mut Book, new: &NewPayment) -> payment::Model {
        let payment = payment::Model {
            id: Uuid::now_v7(),
            payment_ref: new.payment_ref.clone(),
            amount: new.amount,
            currency: new.currency.clone(),
            found_at_stripe: self.actor == STRIPE,
            created_at: book.now,
        };
        book.add_payment(payment.clone(), &Note::new(self.actor, self.what_happened()));
        for (position, transfer) in (0..).zip(&new.transfers) {
            self.insert_transfer(book, payment.id, position, transfer);
        }
        payment
    }

    /// Matches the claims under any of these names that wait for the payment.
    fn match_waiting(&self, book: &mut Book, payment: &payment::Model, names: &[String]) -> Result<(), LedgerError> {
        for claim in lookups::waiting(book, names) {
            match_or_conflict(book, payment, &claim, self.actor, self.traceparent.as_deref())?;
        }
        Ok(())
    }

    fn what_happened(&self) -> &'static str {
        if self.actor == STRIPE { "found at Stripe" } else { "registered" }
    }

    /// Records a transfer and, if it is to be created, the call and the job. Returns Clawback's id.
    fn insert_transfer(&self, book: &mut Book, payment_id: Uuid, position: i32, new: &NewTransfer) -> Uuid {
        let id = Uuid::now_v7();
        let is_equal = |row: &&transfer::Model| {
            let its = (row.payment_id, &row.destination, row.amount, &row.currency);
            row.created_by_us && its == (payment_id, &new.destination, new.amount, &new.currency)
        };
        let created_by_us = new.create || new.made_by_clawback;
        let equal = if created_by_us { book.transfers.all().filter(is_equal).count() } else { 0 };
        let mut note = Note::new(self.actor, self.what_happened());
        if new.amount_reversed > 0 {
            let (back, amount, currency) = (new.amount_reversed, new.amount, &new.currency);
            note.reason.push_str(&format!("; {back} of its {amount} {currency} were taken back before"));
        }
        let row = transfer::Model {
            id,
            payment_id,
            position,
            ordinal: i32::try_from(equal).unwrap_or(i32::MAX),
            seller_id: new.seller_id.clone(),
            stripe_transfer_id: new.stripe_transfer_id.clone(),
            destination: new.destination.clone(),
            amount: new.amount,
            amount_reversed: new.amount_reversed,
            reversed_before: new.amount_reversed,
            adopted: None,
            withheld: 0,
            currency: new.currency.clone(),
            status: match new.amount_reversed {
                _ if new.create => TransferStatus::Pending,
                0 => TransferStatus::Completed,
                back if back == new.amount => TransferStatus::Reversed,
                _ => TransferStatus::PartiallyReversed,
            },
            created_by_us,
            refund_application_fee: new.refund_application_fee,
            created_at: book.now,
            updated_at: book.now,
        };
        book.add_transfer(row, &note);
        if new.create {
            let call = call::Model::new(id, CallKind::Create, CallState::Open, book.now, book.graces);
            book.enqueue(&call, self.traceparent.as_deref());
            book.put_call(call);
        }
        id
    }
}

/// Errors if another payment than `payment_id` has one of these transfers.
fn refuse_others(book: &Book, payment_id: Uuid, new: &[NewTransfer]) -> Result<(), LedgerError> {
    for id in new.iter().filter_map(|new| new.stripe_transfer_id.as_deref()) {
        let is_it = |row: &transfer::Model| row.stripe_transfer_id.as_deref() == Some(id);
        if book.transfers.all().any(|row| is_it(row) && row.payment_id != payment_id) {
            return Err(LedgerError::Conflict(format!("transfer {id} is registered with another payment")));
        }
    }
    Ok(())
}
