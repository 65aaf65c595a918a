//! Everything that the ledger knows of one thing, for `clawback trace`: an id is looked for in every column that holds one, and
//! what was found is widened to what hangs together with it.

mod shapes;

use std::collections::BTreeSet;

use sea_orm::{
    ColumnTrait, Condition, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
};
use uuid::Uuid;

pub use self::shapes::{Trace, TraceEvent, TracedLookup, TracedPayment, TracedRefund, TracedReversal, TracedTransfer};
use self::shapes::{heard, published, step};
use super::one::{reversal_views, transfer_views};
use crate::ledger::db::rowset;
use crate::ledger::schema::{call, claim, history, lookup, outbox, payment, reversal, transfer, webhook_event};
use crate::ledger::{Ledger, LedgerError};

/// Of each row's changes, so many are read on average.
const EVENTS_OF_A_ROW: usize = 10;

/// The ids of the rows that hang together.
#[derive(Default)]
struct Scope {
    /// No more of them are read from any place.
    most: usize,
    /// There were more.
    is_cut: bool,
    payments: BTreeSet<Uuid>,
    refunds: BTreeSet<Uuid>,
    transfers: BTreeSet<Uuid>,
    reversals: BTreeSet<Uuid>,
    webhooks: BTreeSet<Uuid>,
    lookups: BTreeSet<Uuid>,
}

impl Scope {
    /// One more row than may be, which tells whether there are more.
    fn limit(&self) -> u64 {
        self.most as u64 + 1
    }

    fn at_most<T>(&mut self, mut rows: Vec<T>) -> Vec<T> {
        self.is_cut |= rows.len() > self.most;
        rows.truncate(self.most);
        rows
    }

    async fn ids<E: EntityTrait>(&mut self, found: Select<E>, db: &DatabaseConnection) -> Result<Vec<Uuid>, DbErr> {
        let rows = found.limit(self.limit()).into_tuple().all(db).await?;
        Ok(self.at_most(rows))
    }

    fn is_empty(&self) -> bool {
        [&self.payments, &self.refunds, &self.transfers, &self.reversals, &self.webhooks, &self.lookups]
            .iter()
            .all(|ids| ids.is_empty())
    }
}

impl Ledger {
    /// Everything about the refund, payment, transfer, reversal, look-up, webhook event or request to Stripe with this id;
    /// Clawback's id, or the provider's. `None` when nothing here has it. Where more than `most` rows of a kind hang together,
    /// the trace is not complete, and says so.
    pub async fn trace(&self, id: &str, most: usize) -> Result<Option<Trace>, LedgerError> {
        let mut scope = self.scope_of(id, most).await?;
        if scope.is_empty() {
            return Ok(None);
        }
        self.widen(&mut scope).await?;
        Ok(Some(self.told(&scope).await?))
    }

    async fn scope_of(&self, id: &str, most: usize) -> Result<Scope, DbErr> {
        let scope = Scope { most, ..Scope::default() };
        match id.parse() {
            Ok(id) => self.rows_with_our_id(scope, id).await,
            Err(_) => self.rows_with_their_id(scope, id).await,
        }
    }

    /// Clawback's ids of what hangs together with this id; none if nothing here has it.
    pub(in crate::ledger::read) async fn related_ids(&self, id: &str) -> Result<Vec<Uuid>, LedgerError> {
        let mut scope = self.scope_of(id, Trace::MOST).await?;
        if scope.is_empty() {
            // What has a history and no row of its own here.
            return Ok(id.parse::<Uuid>().into_iter().collect());
        }
        self.widen(&mut scope).await?;
        let Scope { payments, refunds, transfers, reversals, lookups, .. } = scope;
        Ok([payments, refunds, transfers, reversals, lookups].into_iter().flatten().collect())
    }

    async fn rows_with_our_id(&self, mut scope: Scope, id: Uuid) -> Result<Scope, DbErr> {
        scope.payments.extend(payment::Entity::find_by_id(id).one(&self.store.db).await?.map(|row| row.id));
        scope.refunds.extend(claim::Entity::find_by_id(id).one(&self.store.db).await?.map(|row| row.id));
        scope.transfers.extend(transfer::Entity::find_by_id(id).one(&self.store.db).await?.map(|row| row.id));
        scope.reversals.extend(reversal::Entity::find_by_id(id).one(&self.store.db).await?.map(|row| row.id));
        scope.lookups.extend(lookup::Entity::find_by_id(id).one(&self.store.db).await?.map(|row| row.id));
        Ok(scope)
    }

    async fn rows_with_their_id(&self, mut scope: Scope, id: &str) -> Result<Scope, DbErr> {
        let events = webhook_event::Entity::find().filter(webhook_event::Column::EventId.eq(id));
        let events = events.limit(scope.limit()).all(&self.store.db).await?;
        scope.webhooks.extend(events.iter().map(|row| row.id));
        let mut refs: Vec<&str> = events.iter().filter_map(|row| row.object_id.as_deref()).collect();
        refs.push(id);
        let asked = lookup::Entity::find().select_only().column(lookup::Column::Id);
        let about = lookup::Column::Reference.is_in(refs.iter().copied());
        let found = scope.ids(asked.filter(about), &self.store.db).await?;
        scope.lookups.extend(found);
        use claim::Column as R;
        let is_it = Condition::any()
            .add(R::Reference.is_in(refs.iter().copied()))
            .add(R::PaymentRef.is_in(refs.iter().copied()))
            .add(R::ChargeRef.is_in(refs));
        let found = claim::Entity::find().select_only().column(R::Id).filter(is_it);
        let found = scope.ids(found, &self.store.db).await?;
        scope.refunds.extend(found);
        let found = payment::Entity::find().select_only().column(payment::Column::Id);
        let found = scope.ids(found.filter(payment::Column::PaymentRef.eq(id)), &self.store.db).await?;
        scope.payments.extend(found);
        let found = transfer::Entity::find().select_only().column(transfer::Column::Id);
        let found = scope.ids(found.filter(transfer::Column::StripeTransferId.eq(id)), &self.store.db).await?;
        scope.transfers.extend(found);
        let found = reversal::Entity::find().select_only().column(reversal::Column::Id);
        let is_it = reversal::Column::StripeReversalId.eq(id);
        let found = scope.ids(found.filter(is_it), &self.store.db).await?;
        scope.reversals.extend(found);
        let accepted = call::Entity::find().select_only().column(call::Column::Id);
        let found = scope.ids(accepted.filter(call::Column::AcceptedId.eq(id)), &self.store.db).await?;
        scope.reversals.extend(found);
        let asked = history::Entity::find().filter(history::Column::StripeRequestId.eq(id));
        let asked = asked.limit(scope.limit()).all(&self.store.db).await?;
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
        let payments: Vec<Uuid> = scope.payments.iter().copied().collect();
        let found = claim::Entity::find().select_only().column(claim::Column::Id);
        let found = found.filter(claim::Column::PaymentId.is_in(payments.iter().copied()));
        let refunds = scope.ids(found, &self.store.db).await?;
        let found = transfer::Entity::find().select_only().column(transfer::Column::Id);
        let found = found.filter(transfer::Column::PaymentId.is_in(payments));
        let transfers = scope.ids(found, &self.store.db).await?;
        scope.refunds.extend(refunds);
        scope.transfers.extend(transfers);

        let owed = Condition::any()
            .add(reversal::Column::Id.is_in(scope.reversals.iter().copied()))
            .add(reversal::Column::ClaimId.is_in(scope.refunds.iter().copied()))
            .add(reversal::Column::TransferId.is_in(scope.transfers.iter().copied()));
        let owed = reversal::Entity::find().filter(owed).limit(scope.limit()).all(&self.store.db).await?;
        for row in scope.at_most(owed) {
            scope.reversals.insert(row.id);
            scope.refunds.insert(row.claim_id);
            scope.transfers.insert(row.transfer_id);
        }
        let of_transfers = transfer::Entity::find()
            .select_only()
            .column(transfer::Column::PaymentId)
            .filter(transfer::Column::Id.is_in(scope.transfers.iter().copied()));
        let found = scope.ids(of_transfers, &self.store.db).await?;
        scope.payments.extend(found);
        let refunds = claim::Entity::find().filter(claim::Column::Id.is_in(scope.refunds.iter().copied()));
        let (mut refs, mut payment_refs) = (Vec::new(), Vec::new());
        for row in refunds.all(&self.store.db).await? {
            scope.payments.extend(row.payment_id);
            refs.extend([Some(row.reference), row.charge_ref].into_iter().flatten());
            payment_refs.push(row.payment_ref);
        }
        let asked = lookup::Entity::find().select_only().column(lookup::Column::Id);
        let about = lookup::Column::Reference.is_in(refs.iter().chain(&payment_refs).map(String::as_str));
        let found = scope.ids(asked.filter(about), &self.store.db).await?;
        scope.lookups.extend(found);
        let told = webhook_event::Entity::find().select_only().column(webhook_event::Column::Id);
        let found = scope.ids(told.filter(webhook_event::Column::ObjectId.is_in(refs)), &self.store.db).await?;
        scope.webhooks.extend(found);
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
        // Without an order, which would have all rows of them read: those of one id come in their order.
        let rows = history::Entity::find().filter(history::Column::EntityId.is_in(all));
        let most = scope.most * EVENTS_OF_A_ROW;
        let mut rows = rows.limit(most as u64 + 1).all(&self.store.db).await?;
        let complete = !scope.is_cut && rows.len() <= most;
        rows.truncate(most);
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
        let of_them = format!("entity_id IN {{ids}} LIMIT {most}");
        let mut jobs = rowset::select::<_, outbox::Model>(&self.store.db, &of_them, &called, &[]).await?;
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
            complete,
        })
    }
}
