//! Registers payments and their transfers, and matches the refunds that came before them. Called by the API and by
//! `clawback payments import`.

use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DatabaseTransaction, EntityTrait, ExprTrait, IntoActiveModel, QueryFilter,
    QueryOrder,
};
use uuid::Uuid;

use super::database::lock_payment_ref;
use super::entities::{payment, refund, transfer};
use super::history::{self, Entity, Note};
use super::jobs::{self, Job};
use super::repeating::repeated;
use super::state::{RefundStatus, TransferStatus};
use super::time::{in_future, now};
use super::{Ledger, LedgerError, NewPayment, NewTransfer, PaymentView, matching, reads};

const API: &str = "api";
const IMPORT: &str = "import";
/// More transfers than any real payment has; a limit on what one request can make the database do.
pub(crate) const MAX_TRANSFERS: usize = 1_000;
/// Stripe's own limit is 255.
const MAX_REF_BYTES: usize = 255;

/// A registration's result.
#[derive(Clone, Debug)]
pub struct Registered {
    /// False when the same payment was registered before.
    pub created: bool,
    /// The payment as it stands now.
    pub payment: PaymentView,
}

impl Ledger {
    /// Registers a payment with its transfers, has those created that have no Stripe id, and matches refunds that were
    /// reported before. Registering the same again changes nothing.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] names the field; [`LedgerError::Conflict`] says what is registered already;
    /// [`LedgerError::Database`]: nothing was changed.
    pub async fn register_payment(&self, new: NewPayment) -> Result<Registered, LedgerError> {
        let new = normalized(new)?;
        repeated(|| self.try_to_register(&new)).await
    }

    async fn try_to_register(&self, new: &NewPayment) -> Result<Registered, LedgerError> {
        let txn = self.begin().await?;
        let (created, jobs) = self.register(&txn, new, API).await?;
        let payment = reads::payment(&txn, &new.payment_ref).await?.ok_or_else(|| {
            LedgerError::Database(sea_orm::DbErr::RecordNotFound(format!("payment {}", new.payment_ref)))
        })?;
        self.commit(txn, jobs).await?;
        Ok(Registered { created, payment })
    }

    /// [`Self::register_payment`] for a payment from a file, with `import` as its actor in the history. Says whether it
    /// is new. A dry run does and finds the same, and then takes it back.
    ///
    /// # Errors
    /// As [`Self::register_payment`].
    pub async fn import_payment(&self, new: NewPayment, dry_run: bool) -> Result<bool, LedgerError> {
        let new = normalized(new)?;
        repeated(|| self.try_to_import(&new, dry_run)).await
    }

    /// [`Self::import_payment`] for a set of payments: one answer for each, in their order.
    ///
    /// # Errors
    /// [`LedgerError::Database`] when the set could not be finished. Some of it may be registered, so importing it again is
    /// right.
    pub async fn import_payments(
        &self,
        payments: Vec<NewPayment>,
        dry_run: bool,
    ) -> Result<Vec<Result<bool, LedgerError>>, LedgerError> {
        let mut answers = Vec::with_capacity(payments.len());
        for payment in payments {
            match self.import_payment(payment, dry_run).await {
                Err(error @ (LedgerError::Database(_) | LedgerError::Stale { .. })) => return Err(error),
                answer => answers.push(answer),
            }
        }
        Ok(answers)
    }

    async fn try_to_import(&self, new: &NewPayment, dry_run: bool) -> Result<bool, LedgerError> {
        let txn = self.begin().await?;
        let (created, jobs) = self.register(&txn, new, IMPORT).await?;
        if dry_run {
            txn.rollback().await?;
        } else {
            self.commit(txn, jobs).await?;
        }
        Ok(created)
    }

    /// Whether the payment is new, and how many jobs its earlier refunds have made.
    async fn register(
        &self,
        txn: &DatabaseTransaction,
        new: &NewPayment,
        actor: &str,
    ) -> Result<(bool, usize), LedgerError> {
        lock_payment_ref(txn, &new.payment_ref).await?;
        let existing =
            payment::Entity::find().filter(payment::Column::PaymentRef.eq(&new.payment_ref)).one(txn).await?;
        match existing {
            Some(existing) => {
                same_as_registered(txn, &existing, new).await?;
                Ok((false, 0))
            }
            None => {
                let (payment, to_create) = insert(txn, new, actor, in_future(self.creation_grace)).await?;
                Ok((true, to_create + self.match_earlier_refunds(txn, &payment, actor).await?))
            }
        }
    }

    async fn match_earlier_refunds(
        &self,
        txn: &DatabaseTransaction,
        payment: &payment::Model,
        actor: &str,
    ) -> Result<usize, LedgerError> {
        let refunds = refund::Entity::find()
            .filter(refund::Column::Status.eq(RefundStatus::Unmatched))
            .filter(
                refund::Column::PaymentRef
                    .eq(&payment.payment_ref)
                    .or(refund::Column::ChargeRef.eq(&payment.payment_ref)),
            )
            .order_by_asc(refund::Column::Id)
            .all(txn)
            .await?;
        let mut jobs = 0;
        for refund in refunds {
            jobs += matching::match_refund(txn, payment, &refund, self.sweep_grace, actor).await?.len();
        }
        Ok(jobs)
    }
}

/// Writes the payment and its transfers, with a job for each that is to be created, and returns how many those are.
async fn insert(
    txn: &DatabaseTransaction,
    new: &NewPayment,
    actor: &str,
    sweep_after: DateTime<Utc>,
) -> Result<(payment::Model, usize), LedgerError> {
    let ids: Vec<&str> = new.transfers.iter().filter_map(|t| t.stripe_transfer_id.as_deref()).collect();
    let taken = transfer::Entity::find().filter(transfer::Column::StripeTransferId.is_in(ids)).one(txn).await?;
    if let Some(taken) = taken {
        let id = taken.stripe_transfer_id.unwrap_or_default();
        return Err(LedgerError::Conflict(format!("transfer {id} is registered with another payment")));
    }
    let created_at = now();
    let payment = payment::Model {
        id: Uuid::now_v7(),
        payment_ref: new.payment_ref.clone(),
        amount: new.amount,
        currency: new.currency.clone(),
        created_at,
    };
    payment::Entity::insert(payment.clone().into_active_model()).exec_without_returning(txn).await?;
    let note = Note::new(actor, "registered");
    history::append(txn, Entity::Payment, payment.id, None, "registered", &note).await?;
    let mut to_create = Vec::new();
    for new in &new.transfers {
        let id = Uuid::now_v7();
        let is_new = new.stripe_transfer_id.is_none();
        let status = if is_new { TransferStatus::Pending } else { TransferStatus::Completed };
        let row = transfer::ActiveModel {
            id: Set(id),
            payment_id: Set(payment.id),
            seller_id: Set(new.seller_id.clone()),
            stripe_transfer_id: Set(new.stripe_transfer_id.clone()),
            destination: Set(new.destination.clone()),
            amount: Set(new.amount),
            amount_reversed: Set(0),
            currency: Set(new.currency.clone()),
            status: Set(status),
            retry_count: Set(0),
            next_retry_at: Set(None),
            failure_code: Set(None),
            failure_message: Set(None),
            created_at: Set(created_at),
            updated_at: Set(created_at),
            epoch: Set(0),
            epoch_started_at: Set(is_new.then_some(created_at)),
            doubtful_since: Set(None),
            absent_since: Set(None),
            sweep_after: Set(is_new.then_some(sweep_after)),
            sweep_count: Set(0),
        };
        transfer::Entity::insert(row).exec_without_returning(txn).await?;
        history::append(txn, Entity::Transfer, id, None, &status.to_string(), &note).await?;
        if is_new {
            to_create.push(Job::create(id));
        }
    }
    jobs::append(txn, to_create.iter().copied()).await?;
    Ok((payment, to_create.len()))
}

/// Errors unless `new` says what is registered.
async fn same_as_registered(
    txn: &DatabaseTransaction,
    existing: &payment::Model,
    new: &NewPayment,
) -> Result<(), LedgerError> {
    let conflict = |what: &str, registered: &str| {
        let payment_ref = &existing.payment_ref;
        Err(LedgerError::Conflict(format!("payment {payment_ref} is registered with {what} {registered}")))
    };
    if (existing.amount, &existing.currency) != (new.amount, &new.currency) {
        return conflict("the amount", &format!("{} {}", existing.amount, existing.currency));
    }
    let registered = transfer::Entity::find()
        .filter(transfer::Column::PaymentId.eq(existing.id))
        .order_by_asc(transfer::Column::Id)
        .all(txn)
        .await?;
    if registered.len() != new.transfers.len() {
        return conflict("a number of transfers of", &registered.len().to_string());
    }
    for (row, new) in registered.into_iter().zip(&new.transfers) {
        // One that Clawback creates was registered without an id. It may be named by its id now, too.
        let without_id = row.epoch_started_at.is_some() && new.stripe_transfer_id.is_none();
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

impl NewPayment {
    /// Whether every field is acceptable by itself; [`Ledger::register_payment`] looks at this first.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] names the first field that is not.
    pub fn check(&self) -> Result<(), LedgerError> {
        normalized(self.clone()).map(drop)
    }
}

/// Checks every field, and brings currencies into lower case, as Stripe writes them.
fn normalized(mut new: NewPayment) -> Result<NewPayment, LedgerError> {
    check_ref("payment_ref", &new.payment_ref)?;
    check_amount("amount", new.amount)?;
    new.currency = check_currency("currency", &new.currency)?;
    if new.transfers.is_empty() || new.transfers.len() > MAX_TRANSFERS {
        let problem = format!("has {} entries; from 1 to {MAX_TRANSFERS} are allowed", new.transfers.len());
        return invalid("transfers", problem);
    }
    let mut seen = std::collections::HashSet::new();
    for (index, transfer) in new.transfers.iter_mut().enumerate() {
        let field = |name: &str| format!("transfers[{index}].{name}");
        check_ref(&field("seller_id"), &transfer.seller_id)?;
        check_ref(&field("destination"), &transfer.destination)?;
        check_amount(&field("amount"), transfer.amount)?;
        transfer.currency = check_currency(&field("currency"), &transfer.currency)?;
        let Some(id) = &transfer.stripe_transfer_id else { continue };
        check_ref(&field("stripe_transfer_id"), id)?;
        if !seen.insert(id.clone()) {
            return invalid(&field("stripe_transfer_id"), format!("{id} is there twice"));
        }
    }
    Ok(new)
}

pub(super) fn check_ref(field: &str, value: &str) -> Result<(), LedgerError> {
    if value.is_empty() || value.len() > MAX_REF_BYTES || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let problem = format!("{value:?} is not an id: 1 to {MAX_REF_BYTES} bytes without spaces are allowed");
        return invalid(field, problem);
    }
    Ok(())
}

pub(super) fn check_amount(field: &str, value: i64) -> Result<(), LedgerError> {
    if value <= 0 {
        return invalid(field, format!("{value} is not an amount: minor units, at least 1, are allowed"));
    }
    Ok(())
}

pub(super) fn check_currency(field: &str, value: &str) -> Result<String, LedgerError> {
    if value.len() != 3 || !value.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return invalid(field, format!("{value:?} is not a currency: three letters (ISO 4217) are allowed"));
    }
    Ok(value.to_ascii_lowercase())
}

fn invalid<T>(field: &str, problem: String) -> Result<T, LedgerError> {
    Err(LedgerError::Invalid { field: field.to_owned(), problem })
}
