//! What Stripe said of an operation's rows when it was previewed. Who asks is `reconcile::now`; the ledger keeps the answers.

use std::collections::HashMap;

use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::OperationAction;
use crate::ledger::db::rowset::Writes;
use crate::ledger::events::Source;
use crate::ledger::read::{CurrencySum, Query, claim_name};
use crate::ledger::schema::operation_item;
use crate::ledger::{Ledger, LedgerError};

/// Stripe is asked about so many rows, the first ones.
const ASKED: i32 = 100;

words! {
    /// What Stripe says of a row at the moment of the preview.
    pub enum StripeSays {
        /// Enough is left of the transfer, and its account's balance covers it.
        Ready,
        /// Stripe has done this reversal, or nothing is left of the transfer.
        AlreadyReversed,
        /// Less is left of the transfer than is owed.
        LessLeft,
        /// The connected account has less available than is owed.
        ShortOfBalance,
        /// Stripe did not say, or not in time.
        Unknown,
    }
}

/// How many rows, and how much, Stripe says the same of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct StripeSum {
    /// What it says.
    pub says: StripeSays,
    /// In each currency.
    pub sums: Vec<CurrencySum>,
}

/// A row that Stripe is asked about.
#[derive(Debug)]
pub struct Question {
    item: operation_item::Model,
    /// Stripe's id, if the transfer exists there.
    pub stripe_transfer_id: Option<String>,
    /// The connected account.
    pub destination: String,
    /// The claim, as the metadata of Stripe's reversal names it.
    pub claim: String,
}

/// What came of a question.
#[derive(Debug)]
pub struct Said {
    /// It.
    pub question: Question,
    /// In one word.
    pub says: StripeSays,
    /// In more.
    pub detail: Option<String>,
}

impl Question {
    /// What is owed, in minor units.
    #[must_use]
    pub fn amount(&self) -> i64 {
        self.item.amount
    }

    /// ISO 4217, lower case.
    #[must_use]
    pub fn currency(&self) -> &str {
        &self.item.currency
    }
}

impl OperationAction {
    /// Whether a preview asks Stripe: where money is, or is said to be, taken back.
    #[must_use]
    pub fn asks_stripe(self) -> bool {
        matches!(self, Self::ReplayReversals | Self::CloseReversals)
    }
}

#[derive(FromQueryResult)]
struct Debt {
    id: Uuid,
    stripe_transfer_id: Option<String>,
    destination: String,
    source: Source,
    reference: String,
}

impl Ledger {
    /// The first 100 rows of an operation on reversals, in their order.
    pub async fn questions(&self, operation: Uuid) -> Result<Vec<Question>, LedgerError> {
        let db = &self.store.writer;
        let items = operation_item::Entity::find()
            .filter(operation_item::Column::OperationId.eq(operation))
            .filter(operation_item::Column::Position.lt(ASKED))
            .order_by_asc(operation_item::Column::Position)
            .all(db)
            .await?;
        let ids: Vec<Uuid> = items.iter().map(|item| item.target_id).collect();
        let mut query = Query::new(db);
        let among = query.among_ids("r.id", &ids);
        let sql = format!(
            "SELECT r.id, t.stripe_transfer_id, t.destination, cl.source, cl.reference FROM reversals r
            JOIN seller_transfers t ON t.id = r.transfer_id JOIN claims cl ON cl.id = r.claim_id WHERE {among}"
        );
        let mut debts: HashMap<Uuid, Debt> =
            query.all::<Debt>(db, sql).await?.into_iter().map(|debt| (debt.id, debt)).collect();
        let question = |item: operation_item::Model| {
            let Debt { stripe_transfer_id, destination, source, reference, .. } = debts.remove(&item.target_id)?;
            Some(Question { item, stripe_transfer_id, destination, claim: claim_name(source, &reference) })
        };
        Ok(items.into_iter().filter_map(question).collect())
    }

    /// Keeps the answers with the rows, unless somebody has worked on one of them meanwhile.
    pub async fn record_said(&self, said: Vec<Said>) -> Result<(), LedgerError> {
        let rows: Vec<_> = said
            .into_iter()
            .map(|Said { question: Question { item, .. }, says, detail }| {
                let answered = operation_item::Model { at_stripe: Some(says), stripe_detail: detail, ..item.clone() };
                (item, answered)
            })
            .collect();
        let rows: Vec<_> = rows.iter().map(|(before, after)| (before, after)).collect();
        let txn = self.store.begin().await?;
        let mut writes = Writes::new(&txn);
        writes.update(&[operation_item::Column::State], &rows)?;
        if writes.run(&txn).await? { self.store.commit(txn, Vec::new()).await } else { Ok(txn.rollback().await?) }
    }
}
