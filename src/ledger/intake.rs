//! Takes verified webhooks in: dedupe, record, match, all in one transaction. Called by the ingress.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, IntoActiveModel, QueryFilter,
    TryInsertResult,
};
use uuid::Uuid;

use super::database::lock_payment_ref;
use super::entities::{payment, refund, webhook_event};
use super::history::{self, Entity, Note};
use super::state::RefundStatus;
use super::time::now;
use super::{EventContent, Ledger, LedgerError, Receipt, RefundEvent, RefundProgress, Source, WebhookEvent, matching};

/// Who the history names for what a webhook brought about.
const ACTOR: &str = "ingress";

/// What became of one refund of an event.
enum Taken {
    Matched { reversals: Vec<Uuid> },
    Unmatched,
    Known,
    NoEffect(String),
}

impl Ledger {
    /// Takes in a verified webhook. When this returns, what it said is committed.
    ///
    /// An event that was seen before changes nothing, nor does a second event about a refund that is recorded already.
    ///
    /// # Errors
    /// [`LedgerError::Database`]: nothing was recorded, and the sender should send it again.
    pub async fn receive(&self, event: WebhookEvent) -> Result<Receipt, LedgerError> {
        let txn = self.begin().await?;
        let Some(inbox_id) = record_event(&txn, &event).await? else {
            txn.rollback().await?;
            return Ok(Receipt::Duplicate);
        };
        let mut jobs = Vec::new();
        let receipt = match &event.content {
            EventContent::Irrelevant { reason } => Receipt::Ignored { reason: reason.clone() },
            EventContent::Refunds(refunds) => {
                let mut taken = Vec::new();
                for refund in refunds {
                    taken.push(self.take_refund(&txn, event.source, refund).await?);
                }
                sum_up(taken, &mut jobs)
            }
        };
        conclude_event(&txn, inbox_id, &receipt).await?;
        self.commit(txn, jobs.len()).await?;
        tracing::info!(event_id = event.event_id, event_type = event.event_type, outcome = ?receipt, "webhook received");
        Ok(receipt)
    }

    async fn take_refund(
        &self,
        txn: &DatabaseTransaction,
        source: Source,
        event: &RefundEvent,
    ) -> Result<Taken, LedgerError> {
        if let RefundProgress::Other(status) = &event.progress {
            return Ok(Taken::NoEffect(format!("the refund is {status}; only succeeded refunds count")));
        }
        // In a fixed order, so that two transactions never wait for each other.
        let mut refs: Vec<&str> =
            [Some(event.payment_ref.as_str()), event.charge_ref.as_deref()].into_iter().flatten().collect();
        refs.sort_unstable();
        refs.dedup();
        for payment_ref in &refs {
            lock_payment_ref(txn, payment_ref).await?;
        }

        let Some(refund) = record_refund(txn, source, event).await? else { return Ok(Taken::Known) };
        if event.transfer_already_reversed {
            let reason = "the provider reversed the transfer together with the refund".to_owned();
            return Ok(Taken::NoEffect(reason));
        }
        // The payment intent's registration wins over the charge's.
        let mut payments = payment::Entity::find().filter(payment::Column::PaymentRef.is_in(refs)).all(txn).await?;
        payments.sort_by_key(|payment| payment.payment_ref != event.payment_ref);
        match payments.into_iter().next() {
            None => Ok(Taken::Unmatched),
            Some(payment) => {
                let reversals = matching::match_refund(txn, &payment, &refund, self.sweep_grace, ACTOR).await?;
                Ok(Taken::Matched { reversals })
            }
        }
    }
}

/// Writes the event into the inbox; `None` when it is there already.
async fn record_event(txn: &DatabaseTransaction, event: &WebhookEvent) -> Result<Option<Uuid>, DbErr> {
    let id = Uuid::now_v7();
    let row = webhook_event::ActiveModel {
        id: Set(id),
        source: Set(event.source),
        event_id: Set(event.event_id.clone()),
        event_type: Set(event.event_type.clone()),
        object_id: Set(event.object_id.clone()),
        outcome: Set("accepted".to_owned()),
        detail: Set(None),
        received_at: Set(now()),
    };
    let insert = webhook_event::Entity::insert(row).on_conflict(
        OnConflict::columns([webhook_event::Column::Source, webhook_event::Column::EventId]).do_nothing().to_owned(),
    );
    Ok(was_inserted(insert.try_insert().exec_without_returning(txn).await?).then_some(id))
}

async fn conclude_event(txn: &DatabaseTransaction, id: Uuid, receipt: &Receipt) -> Result<(), DbErr> {
    let (outcome, detail) = match receipt {
        Receipt::Accepted { .. } => ("accepted", None),
        Receipt::Unmatched => ("unmatched", None),
        Receipt::Duplicate => ("duplicate", None),
        Receipt::Ignored { reason } => ("ignored", Some(reason.clone())),
    };
    webhook_event::Entity::update_many()
        .col_expr(webhook_event::Column::Outcome, Expr::value(outcome))
        .col_expr(webhook_event::Column::Detail, Expr::value(detail))
        .filter(webhook_event::Column::Id.eq(id))
        .exec(txn)
        .await?;
    Ok(())
}

/// Writes the refund; `None` when it is there already: another event has told of it.
async fn record_refund(
    txn: &DatabaseTransaction,
    source: Source,
    event: &RefundEvent,
) -> Result<Option<refund::Model>, LedgerError> {
    let (status, reason) = if event.transfer_already_reversed {
        (RefundStatus::NothingToReverse, "the provider reversed the transfer itself")
    } else {
        (RefundStatus::Unmatched, "reported before its payment was registered")
    };
    let refund = refund::Model {
        id: Uuid::now_v7(),
        source,
        refund_ref: event.refund_ref.clone(),
        payment_ref: event.payment_ref.clone(),
        charge_ref: event.charge_ref.clone(),
        payment_id: None,
        amount: event.amount,
        currency: event.currency.clone(),
        status,
        status_reason: Some(reason.to_owned()),
        created_at: now(),
        matched_at: None,
        shares: None,
        failed_at: None,
        attention: None,
    };
    let row = refund.clone().into_active_model();
    let insert = refund::Entity::insert(row)
        .on_conflict(OnConflict::columns([refund::Column::Source, refund::Column::RefundRef]).do_nothing().to_owned());
    if !was_inserted(insert.try_insert().exec_without_returning(txn).await?) {
        return Ok(None);
    }
    let note = Note::new(ACTOR, reason);
    history::append(txn, Entity::Refund, refund.id, None, &status.to_string(), &note).await?;
    Ok(Some(refund))
}

fn was_inserted(result: TryInsertResult<u64>) -> bool {
    matches!(result, TryInsertResult::Inserted(1..))
}

/// One receipt for all refunds of an event; the job ids go into `jobs`.
fn sum_up(taken: Vec<Taken>, jobs: &mut Vec<Uuid>) -> Receipt {
    let (mut matched, mut unmatched, mut known, mut no_effect) = (false, false, false, None);
    for taken in taken {
        match taken {
            Taken::Matched { reversals } => {
                matched = true;
                jobs.extend(reversals);
            }
            Taken::Unmatched => unmatched = true,
            Taken::Known => known = true,
            Taken::NoEffect(reason) => no_effect = Some(reason),
        }
    }
    match (matched, unmatched, known, no_effect) {
        (true, ..) => Receipt::Accepted { reversals: jobs.len() },
        (_, true, ..) => Receipt::Unmatched,
        (_, _, true, _) => Receipt::Duplicate,
        (.., Some(reason)) => Receipt::Ignored { reason },
        (.., None) => Receipt::Ignored { reason: "the event carries no refund".to_owned() },
    }
}
