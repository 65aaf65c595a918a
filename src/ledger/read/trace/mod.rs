//! Everything that the ledger knows of one thing, for `clawback trace`: an id is looked for in every column that holds one, and
//! what was found is widened to what hangs together with it.

mod shapes;

use std::collections::BTreeSet;

use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

pub use self::shapes::{Trace, TraceEvent, TracedLookup, TracedPayment, TracedRefund, TracedReversal, TracedTransfer};
use self::shapes::{heard, published, step};
use super::one::{reversal_views, transfer_views};
use crate::ledger::db::rowset;
use crate::ledger::schema::{call, claim, history, lookup, outbox, payment, reversal, transfer, webhook_event};
use crate::ledger::{Ledger, LedgerError};

/// The ids of the rows that hang together.
#[derive(Default)]
struct Scope {
    payments: BTreeSet<Uuid>,
    refunds: BTreeSet<Uuid>,
    transfers: BTreeSet<Uuid>,
    reversals: BTreeSet<Uuid>,
    webhooks: BTreeSet<Uuid>,
    lookups: BTreeSet<Uuid>,
}

impl Scope {
    fn is_empty(&self) -> bool {
        [&self.payments, &self.refunds, &self.transfers, &self.reversals, &self.webhooks, &self.lookups]
            .iter()
            .all(|ids| ids.is_empty())
    }
}

impl Ledger {
    /// Everything about the refund, payment, transfer, reversal, look-up, webhook event or request to Stripe with this id;
    /// Clawback's id, or the provider's. `None` when nothing here has it.
    pub async fn trace(&self, id: &str) -> Result<Option<Trace>, LedgerError> {
        let mut scope = match id.parse() {
            Ok(id) => self.rows_with_our_id(id).await?,
            Err(_) => self.rows_with_their_id(id).await?,
        };
        if scope.is_empty() {
            return Ok(None);
        }
        self.widen(&mut scope).await?;
        Ok(Some(self.told(&scope).await?))
    }

    /// Clawback's ids of what hangs together with this id; none if nothing here has it.
    pub(in crate::ledger::read) async fn related_ids(&self, id: &str) -> Result<Vec<Uuid>, LedgerError> {
        let our_id = id.parse::<Uuid>().ok();
        let mut scope = match our_id {
            Some(id) => self.rows_with_our_id(id).await?,
            None => self.rows_with_their_id(id).await?,
        };
        if scope.is_empty() {
            // What has a history and no row of its own here.
            return Ok(our_id.into_iter().collect());
        }
        self.widen(&mut scope).await?;
        let Scope { payments, refunds, transfers, reversals, webhooks: _, lookups } = scope;
        Ok([payments, refunds, transfers, reversals, lookups].into_iter().flatten().collect())
    }

    async fn rows_with_our_id(&self, id: Uuid) -> Result<Scope, DbErr> {
        let mut scope = Scope::default();
        scope.payments.extend(payment::Entity::find_by_id(id).one(&self.store.db).await?.map(|row| row.id));
        scope.refunds.extend(claim::Entity::find_by_id(id).one(&self.store.db).await?.map(|row| row.id));
        scope.transfers.extend(transfer::Entity::find_by_id(id).one(&self.store.db).await?.map(|row| row.id));
        scope.reversals.extend(reversal::Entity::find_by_id(id).one(&self.store.db).await?.map(|row| row.id));
        scope.lookups.extend(lookup::Entity::find_by_id(id).one(&self.store.db).await?.map(|row| row.id));
        Ok(scope)
    }

    async fn rows_with_their_id(&self, id: &str) -> Result<Scope, DbErr> {
        let mut scope = Scope::default();
        let events =
            webhook_event::Entity::find().filter(webhook_event::Column::EventId.eq(id)).all(&self.store.db).await?;
        scope.webhooks.extend(events.iter().map(|row| row.id));
        let mut refs: Vec<&str> = events.iter().filter_map(|row| row.object_id.as_deref()).collect();
        refs.push(id);
        let asked = lookup::Entity::find().select_only().column(lookup::Column::Id);
        let about = lookup::Column::Reference.is_in(refs.iter().copied());
        scope.lookups.extend(ids(asked.filter(about), &self.store.db).await?);
        use claim::Column as R;
        let is_it = Condition::any()
            .add(R::Reference.is_in(refs.iter().copied()))
            .add(R::PaymentRef.is_in(refs.iter().copied()))
            .add(R::ChargeRef.is_in(refs));
        scope
            .refunds
            .extend(ids(claim::Entity::find().select_only().column(R::Id).filter(is_it), &self.store.db).await?);
        let found = payment::Entity::find().select_only().column(payment::Column::Id);
        scope.payments.extend(ids(found.filter(payment::Column::PaymentRef.eq(id)), &self.store.db).await?);
        let found = transfer::Entity::find().select_only().column(transfer::Column::Id);
        scope.transfers.extend(ids(found.filter(transfer::Column::StripeTransferId.eq(id)), &self.store.db).await?);
        let found = reversal::Entity::find().select_only().column(reversal::Column::Id);
        let is_it = reversal::Column::StripeReversalId.eq(id);
        scope.reversals.extend(ids(found.filter(is_it), &self.store.db).await?);
        let accepted = call::Entity::find().select_only().column(call::Column::Id);
        scope.reversals.extend(ids(accepted.filter(call::Column::AcceptedId.eq(id)), &self.store.db).await?);
        let asked = history::Entity::find().filter(history::Column::StripeRequestId.eq(id)).all(&self.store.db).await?;
        for row in asked {
            match row.entity.as_str() {
                "transfer" => scope.transfers.insert(row.entity_id),
                "payment" => scope.payments.insert(row.entity_id),
                "refund" | "dispute" => scope.refunds.insert(row.entity_id),
                "lookup" => scope.lookups.insert(row.entity_id),
                _ => scope.reversals.insert(row.entity_id),
            };
        }
        // One answer of Stripe's ends a reversal and moves its transfer: the reversal is meant, not the whole transfer.
        if !scope.reversals.is_empty() {
            scope.transfers.clear();
        }
        Ok(scope)
    }

    async fn widen(&self, scope: &mut Scope) -> Result<(), DbErr> {
        let payments = || scope.payments.iter().copied();
        let found = claim::Entity::find().select_only().column(claim::Column::Id);
        let refunds = ids(found.filter(claim::Column::PaymentId.is_in(payments())), &self.store.db).await?;
        let found = transfer::Entity::find().select_only().column(transfer::Column::Id);
        let transfers = ids(found.filter(transfer::Column::PaymentId.is_in(payments())), &self.store.db).await?;
        scope.refunds.extend(refunds);
        scope.transfers.extend(transfers);

        let owed = Condition::any()
            .add(reversal::Column::Id.is_in(scope.reversals.iter().copied()))
            .add(reversal::Column::ClaimId.is_in(scope.refunds.iter().copied()))
            .add(reversal::Column::TransferId.is_in(scope.transfers.iter().copied()));
        for row in reversal::Entity::find().filter(owed).all(&self.store.db).await? {
            scope.reversals.insert(row.id);
            scope.refunds.insert(row.claim_id);
            scope.transfers.insert(row.transfer_id);
        }
        let of_transfers = transfer::Entity::find()
            .select_only()
            .column(transfer::Column::PaymentId)
            .filter(transfer::Column::Id.is_in(scope.transfers.iter().copied()));
        scope.payments.extend(ids(of_transfers, &self.store.db).await?);
        let refunds = claim::Entity::find().filter(claim::Column::Id.is_in(scope.refunds.iter().copied()));
        let (mut refs, mut payment_refs) = (Vec::new(), Vec::new());
        for row in refunds.all(&self.store.db).await? {
            scope.payments.extend(row.payment_id);
            refs.extend([Some(row.reference), row.charge_ref].into_iter().flatten());
            payment_refs.push(row.payment_ref);
        }
        let asked = lookup::Entity::find().select_only().column(lookup::Column::Id);
        let about = lookup::Column::Reference.is_in(refs.iter().chain(&payment_refs).map(String::as_str));
        scope.lookups.extend(ids(asked.filter(about), &self.store.db).await?);
        let told = webhook_event::Entity::find().select_only().column(webhook_event::Column::Id);
        scope.webhooks.extend(ids(told.filter(webhook_event::Column::ObjectId.is_in(refs)), &self.store.db).await?);
        Ok(())
    }

    async fn told(&self, scope: &Scope) -> Result<Trace, DbErr> {
        fn among(column: impl ColumnTrait, ids: &BTreeSet<Uuid>) -> sea_orm::sea_query::SimpleExpr {
            column.is_in(ids.iter().copied())
        }
        let payments = payment::Entity::find().filter(among(payment::Column::Id, &scope.payments));
        let payments = payments.order_by_asc(payment::Column::Id).all(&self.store.db).await?;
        let refunds = claim::Entity::find().filter(among(claim::Column::Id, &scope.refunds));
        let refunds = refunds.order_by_asc(claim::Column::Id).all(&self.store.db).await?;
        let transfers = transfer::Entity::find().filter(among(transfer::Column::Id, &scope.transfers));
        let transfers = transfers.order_by_asc(transfer::Column::Id).all(&self.store.db).await?;
        let reversals = reversal::Entity::find().filter(among(reversal::Column::Id, &scope.reversals));
        let reversals = reversals.order_by_asc(reversal::Column::Id).all(&self.store.db).await?;
        let webhooks = webhook_event::Entity::find().filter(among(webhook_event::Column::Id, &scope.webhooks));
        let webhooks = webhooks.all(&self.store.db).await?;

        let lookups = lookup::Entity::find().filter(among(lookup::Column::Id, &scope.lookups));
        let lookups = lookups.order_by_asc(lookup::Column::Id).all(&self.store.db).await?;
        let calls = call::Entity::find().filter(among(call::Column::Id, &scope.lookups)).all(&self.store.db).await?;

        let all = [&scope.payments, &scope.refunds, &scope.transfers, &scope.reversals, &scope.lookups];
        let all = all.into_iter().flatten().copied();
        let rows = history::Entity::find().filter(history::Column::EntityId.is_in(all)).all(&self.store.db).await?;
        let provider_id = |id: Uuid| {
            let payment = payments.iter().find(|row| row.id == id).map(|row| row.payment_ref.clone());
            let refund = || refunds.iter().find(|row| row.id == id).map(|row| row.reference.clone());
            let transfer = || transfers.iter().find(|row| row.id == id)?.stripe_transfer_id.clone();
            let reversal = || reversals.iter().find(|row| row.id == id)?.stripe_reversal_id.clone();
            let lookup = || lookups.iter().find(|row| row.id == id).map(|row| row.reference.clone());
            payment.or_else(refund).or_else(transfer).or_else(reversal).or_else(lookup)
        };
        let steps = rows.into_iter().map(|row| (row.id, step(row, provider_id)));
        let called: Vec<Uuid> = scope.transfers.iter().chain(&scope.reversals).chain(&scope.lookups).copied().collect();
        let mut jobs = rowset::select::<_, outbox::Model>(&self.store.db, "entity_id IN {ids}", &called, &[]).await?;
        jobs.sort_by_key(|job| job.id);
        let confirmed = jobs.iter().filter_map(|job| Some((job.id, published(job, job.published_at?, provider_id))));
        let mut events: Vec<(Uuid, TraceEvent)> =
            webhooks.into_iter().map(|row| (row.id, heard(row))).chain(steps).chain(confirmed).collect();
        // Several processes write; each one's ids ascend.
        events.sort_by_key(|(id, event)| (event.at, *id));

        let job_waiting_since = |id| {
            let is_it = |job: &&outbox::Model| job.entity_id == id && job.published_at.is_none();
            jobs.iter().find(is_it).map(|job| job.created_at)
        };
        let reversals = reversal_views(&self.store.db, reversals).await?;
        let transfers = transfer_views(&self.store.db, transfers).await?;
        Ok(Trace {
            events: events.into_iter().map(|(_, event)| event).collect(),
            payments: payments.into_iter().map(TracedPayment::from).collect(),
            refunds: refunds.into_iter().map(TracedRefund::from).collect(),
            transfers: transfers
                .into_iter()
                .map(|row| TracedTransfer { job_waiting_since: job_waiting_since(row.id), ..row.into() })
                .collect(),
            reversals: reversals
                .into_iter()
                .map(|row| TracedReversal { job_waiting_since: job_waiting_since(row.id), reversal: row })
                .collect(),
            lookups: lookups
                .into_iter()
                .filter_map(|row| {
                    let call = calls.iter().find(|call| call.id == row.id)?;
                    let waiting = job_waiting_since(row.id);
                    Some(TracedLookup::of(row, call, waiting))
                })
                .collect(),
        })
    }
}

async fn ids<E: EntityTrait>(found: sea_orm::Select<E>, db: &sea_orm::DatabaseConnection) -> Result<Vec<Uuid>, DbErr> {
    found.into_tuple().all(db).await
}
