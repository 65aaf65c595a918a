//! Takes verified webhooks in: dedupe, record, match, all in one transaction. Called by the ingress.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, TryInsertResult};
use uuid::Uuid;

use super::entities::{refund, webhook_event};
use super::failing::{self, Failed};
use super::refunds::{self, Recorded};
use super::repeating::repeated;
use super::state::RefundStatus;
use super::time::now;
use super::{EventContent, Ledger, LedgerError, Receipt, RefundEvent, RefundProgress, Source, WebhookEvent, matching};

/// Who the history names for what a webhook brought about.
const ACTOR: &str = "ingress";
const BY_THE_PROVIDER: &str = "the provider reversed the transfer together with the refund";

/// What became of one refund of an event.
enum Taken {
    Matched { reversals: Vec<Uuid> },
    Failed(Failed),
    Unmatched,
    Known,
    NoEffect(String),
}

impl Ledger {
    /// Takes in a verified webhook. When this returns, what it said is committed.
    ///
    /// An event that was seen before changes nothing, nor does a second event about a refund that is matched already.
    ///
    /// # Errors
    /// [`LedgerError::Database`]: nothing was recorded, and the sender should send it again.
    pub async fn receive(&self, event: WebhookEvent) -> Result<Receipt, LedgerError> {
        repeated(|| self.try_to_receive(&event)).await
    }

    async fn try_to_receive(&self, event: &WebhookEvent) -> Result<Receipt, LedgerError> {
        let txn = self.begin().await?;
        let Some(inbox_id) = record_event(&txn, event).await? else {
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
        match (refunds::record(txn, source, event, ACTOR).await?, &event.progress) {
            (Recorded::New(_), RefundProgress::Failed(status)) => {
                // Events come in any order: an older one that says "succeeded" may follow.
                Ok(Taken::NoEffect(format!("the refund is {status}; nothing will be taken back for it")))
            }
            (Recorded::Known(refund), RefundProgress::Failed(_)) if refund.failed_at.is_some() => Ok(Taken::Known),
            (Recorded::Known(refund), RefundProgress::Failed(status)) => {
                Ok(Taken::Failed(failing::fail(txn, &refund, status, ACTOR).await?))
            }
            (Recorded::Known(refund), _) if refund.failed_at.is_some() => {
                Ok(Taken::NoEffect("the refund has failed since; nothing is taken back for it".to_owned()))
            }
            (Recorded::Known(refund), _) if refund.status == RefundStatus::NothingToReverse => Ok(Taken::Known),
            (Recorded::Known(refund), _) if event.transfer_already_reversed => {
                // Whoever told of the refund first did not know, or did not say.
                let Failed { called_off, attention } = failing::provider_reversed(txn, &refund, ACTOR).await?;
                tracing::warn!(refund_ref = refund.refund_ref, called_off, attention, "{BY_THE_PROVIDER}");
                let reason = format!("{BY_THE_PROVIDER}; {called_off} reversals were called off");
                Ok(Taken::NoEffect([Some(reason), attention].into_iter().flatten().collect::<Vec<_>>().join(". ")))
            }
            (Recorded::Known(refund), _) if refund.status == RefundStatus::Unmatched => {
                let refund = refunds::with_names(txn, refund, event).await?;
                Ok(self.matched(txn, &refund).await?.unwrap_or(Taken::Known))
            }
            (Recorded::Known(_), _) => Ok(Taken::Known),
            (Recorded::New(_), _) if event.transfer_already_reversed => Ok(Taken::NoEffect(BY_THE_PROVIDER.to_owned())),
            (Recorded::New(refund), _) => Ok(self.matched(txn, &refund).await?.unwrap_or(Taken::Unmatched)),
        }
    }

    /// `None` while no payment of the refund's is registered.
    async fn matched(&self, txn: &DatabaseTransaction, refund: &refund::Model) -> Result<Option<Taken>, LedgerError> {
        let Some(payment) = refunds::payment(txn, refund).await? else { return Ok(None) };
        let reversals = matching::match_refund(txn, &payment, refund, self.sweep_grace, ACTOR).await?;
        Ok(Some(Taken::Matched { reversals }))
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
    let inserted = insert.try_insert().exec_without_returning(txn).await?;
    Ok(matches!(inserted, TryInsertResult::Inserted(1..)).then_some(id))
}

async fn conclude_event(txn: &DatabaseTransaction, id: Uuid, receipt: &Receipt) -> Result<(), DbErr> {
    let (outcome, detail) = match receipt {
        Receipt::Accepted { .. } => ("accepted", None),
        Receipt::Failed { called_off, attention: None } => ("accepted", Some(format!("{called_off} called off"))),
        Receipt::Failed { attention: Some(attention), .. } => ("accepted", Some(attention.clone())),
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

/// One receipt for all refunds of an event; the job ids go into `jobs`.
fn sum_up(taken: Vec<Taken>, jobs: &mut Vec<Uuid>) -> Receipt {
    let (mut matched, mut unmatched, mut known, mut no_effect) = (false, false, false, None);
    let mut failed: Option<Failed> = None;
    for taken in taken {
        match taken {
            Taken::Matched { reversals } => {
                matched = true;
                jobs.extend(reversals);
            }
            Taken::Failed(more) => {
                tracing::warn!(called_off = more.called_off, attention = more.attention, "a refund has failed");
                failed = Some(match failed {
                    None => more,
                    Some(failed) => failed.and(more),
                });
            }
            Taken::Unmatched => unmatched = true,
            Taken::Known => known = true,
            Taken::NoEffect(reason) => no_effect = Some(reason),
        }
    }
    match (failed, matched, unmatched, known, no_effect) {
        (Some(Failed { called_off, attention }), ..) => Receipt::Failed { called_off, attention },
        (_, true, ..) => Receipt::Accepted { reversals: jobs.len() },
        (_, _, true, ..) => Receipt::Unmatched,
        (.., true, _) => Receipt::Duplicate,
        (.., Some(reason)) => Receipt::Ignored { reason },
        (.., None) => Receipt::Ignored { reason: "the event carries no refund".to_owned() },
    }
}
