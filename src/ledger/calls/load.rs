//! Reads calls with their targets. What is asked for while a query runs shares the next one.

use std::collections::HashMap;

use chrono::Utc;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, QueryResult};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{Call, CreationTarget, LookUpTarget, NotificationTarget, ReversalTarget, Target, Task};
use crate::ledger::db::{Store, rowset};
use crate::ledger::pauses::IS_PAUSED;
use crate::ledger::schema::transfer;
use crate::ledger::status::{CallKind, ClaimStatus};
use crate::ledger::time::set_clock;
use crate::ledger::{Ledger, LedgerError};

const LARGEST_QUERY: usize = 256;
const QUEUE: usize = 1_024;

type Waiting = (Uuid, oneshot::Sender<Result<Option<Task>, LedgerError>>);

/// Collects ids, and reads them together. Its task ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Loader {
    queue: mpsc::Sender<Waiting>,
}

impl Loader {
    pub(in crate::ledger) fn start(store: Store) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Waiting>(QUEUE);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(LARGEST_QUERY);
            while waiting.recv_many(&mut batch, LARGEST_QUERY).await > 0 {
                let ids: Vec<Uuid> = batch.iter().map(|(id, _)| *id).collect();
                let found = store.tasks(&ids).await;
                for (id, caller) in batch.drain(..) {
                    let task = match &found {
                        Ok(found) => Ok(found.get(&id).cloned()),
                        Err(error) => Err(LedgerError::Database(error.clone())),
                    };
                    let _ = caller.send(task);
                }
            }
        });
        Self { queue }
    }

    pub(super) async fn load(&self, id: Uuid) -> Result<Option<Task>, LedgerError> {
        let (caller, answer) = oneshot::channel();
        let closed = || sea_orm::DbErr::Custom("the ledger is closed".to_owned());
        self.queue.send((id, caller)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// A transfer of a payment, as far as it tells which one it is at Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredTransfer {
    /// Stripe's id, once it is known.
    pub stripe_transfer_id: Option<String>,
    /// The seller's connected account.
    pub destination: String,
    /// Minor units that were registered.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Which of the payment's equal transfers to create it is, from 0.
    pub ordinal: i32,
}

impl Ledger {
    /// The payment's transfers.
    pub async fn registered_transfers(&self, payment_ref: &str) -> Result<Vec<RegisteredTransfer>, LedgerError> {
        let of_payment = "payment_id IN (SELECT id FROM payments WHERE payment_ref IN {texts})";
        let rows = rowset::select::<_, transfer::Model>(&self.store.db, of_payment, &[], &[payment_ref]).await?;
        let registered = |row: transfer::Model| RegisteredTransfer {
            stripe_transfer_id: row.stripe_transfer_id,
            destination: row.destination,
            amount: row.amount,
            currency: row.currency,
            ordinal: row.ordinal,
        };
        Ok(rows.into_iter().map(registered).collect())
    }
}

/// With `{paused}` in the place of what says whether it is.
const TASKS: &str = "SELECT c.*, p.payment_ref, p.currency AS payment_currency, t.id AS transfer_id, t.ordinal,
        t.stripe_transfer_id, t.destination, t.refund_application_fee, t.amount AS transfer_amount,
        t.currency AS transfer_currency, t.withheld, r.amount AS reversal_amount, cl.source,
        cl.reference AS claim_ref, cl.status AS claim_status, cl.provider_created_at, l.subject,
        l.reference AS lookup_ref, n.topic, n.body, CURRENT_TIMESTAMP AS read_at, {paused} AS paused
    FROM calls c
    LEFT JOIN reversals r ON r.id = c.id
    LEFT JOIN claims cl ON cl.id = r.claim_id
    LEFT JOIN seller_transfers t ON t.id = COALESCE(r.transfer_id, c.id)
    LEFT JOIN payments p ON p.id = t.payment_id
    LEFT JOIN lookups l ON l.id = c.id
    LEFT JOIN notifications n ON n.id = c.id
    WHERE c.id IN {ids}";

impl Store {
    async fn tasks(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Task>, sea_orm::DbErr> {
        let sql = TASKS.replace("{paused}", IS_PAUSED);
        let statement = rowset::in_sets(self.db.get_database_backend(), &sql, ids, &[]);
        let asked = Utc::now();
        let rows = self.writer.query_all_raw(statement).await?;
        let tasks: HashMap<Uuid, Task> =
            rows.iter().map(|row| task(row).map(|task| (task.call.id, task))).collect::<Result<_, _>>()?;
        // SQLite's is this machine's, and in whole seconds.
        if let (DbBackend::Postgres, Some(task)) = (self.db.get_database_backend(), tasks.values().next()) {
            set_clock(task.read_at, asked);
        }
        Ok(tasks)
    }
}

fn task(row: &QueryResult) -> Result<Task, sea_orm::DbErr> {
    let call = Call::from_query_result(row, "")?;
    let target = match call.kind {
        CallKind::Reverse => Target::Reversal(ReversalTarget {
            source: row.try_get("", "source")?,
            claim_ref: row.try_get("", "claim_ref")?,
            claim_created_at: row.try_get("", "provider_created_at")?,
            payment_ref: row.try_get("", "payment_ref")?,
            transfer_id: row.try_get("", "transfer_id")?,
            stripe_transfer_id: row.try_get("", "stripe_transfer_id")?,
            amount: row.try_get("", "reversal_amount")?,
            currency: row.try_get("", "transfer_currency")?,
            refund_application_fee: row.try_get("", "refund_application_fee")?,
            claim_stands: !row.try_get::<ClaimStatus>("", "claim_status")?.takes_nothing(),
            transfer_amount: to_create(row)?,
            destination: row.try_get("", "destination")?,
        }),
        CallKind::Create => Target::Creation(CreationTarget {
            payment_ref: row.try_get("", "payment_ref")?,
            payment_currency: row.try_get("", "payment_currency")?,
            destination: row.try_get("", "destination")?,
            registered: row.try_get("", "transfer_amount")?,
            ordinal: row.try_get("", "ordinal")?,
            amount: to_create(row)?,
            currency: row.try_get("", "transfer_currency")?,
        }),
        CallKind::LookUp => Target::LookUp(LookUpTarget {
            subject: row.try_get("", "subject")?,
            reference: row.try_get("", "lookup_ref")?,
        }),
        CallKind::Notify => Target::Notification(NotificationTarget {
            topic: row.try_get("", "topic")?,
            body: row.try_get("", "body")?,
        }),
    };
    // Telling another system is no call to Stripe.
    let paused = call.kind != CallKind::Notify && row.try_get("", "paused")?;
    Ok(Task { call, target, read_at: row.try_get("", "read_at")?, paused })
}

/// What the transfer is at Stripe: what was withheld for earlier claims never got there.
fn to_create(row: &QueryResult) -> Result<i64, sea_orm::DbErr> {
    Ok(row.try_get::<i64>("", "transfer_amount")? - row.try_get::<i64>("", "withheld")?)
}
