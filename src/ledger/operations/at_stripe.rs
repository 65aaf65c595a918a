//! What Stripe said of an operation's rows when it was previewed. Who asks is `reconcile::now`; the ledger keeps the answers.

use std::collections::HashMap;

use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::view::OperationView;
use super::{ItemChange, OperationAction};
use crate::ledger::calls::{Call, CreationTarget, Target, Task};
use crate::ledger::db::rowset::{self, Writes};
use crate::ledger::events::Source;
use crate::ledger::history::Note;
use crate::ledger::read::{CurrencySum, Query, claim_name};
use crate::ledger::schema::{claim, operation_item};
use crate::ledger::{Ledger, LedgerError};

/// Stripe is asked about so many rows, the first ones.
const ASKED: i32 = 100;

words! {
    /// What Stripe says of a row at the moment of the preview.
    pub enum StripeSays {
        /// Enough is left of the transfer, and its account's balance covers it; or the transfer does not exist yet, and the
        /// platform's balance covers it.
        Ready,
        /// Stripe has done this reversal, or nothing is left of the transfer.
        AlreadyReversed,
        /// Stripe has the transfer: a retry only records it.
        AlreadyCreated,
        /// Less is left of the transfer than is owed.
        LessLeft,
        /// The connected account, or for a creation the platform, has less available than is needed.
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
    /// What is asked about it.
    pub about: About,
}

/// What a row is about.
#[derive(Debug)]
pub enum About {
    /// What is taken back, or would be.
    Debts {
        /// The claim, as the metadata of Stripe's reversals names it.
        claim: String,
        /// From each transfer.
        debts: Vec<Debt>,
    },
    /// A transfer to create.
    Creation(Box<(Call, CreationTarget)>),
}

/// What is to be taken from a transfer.
#[derive(Clone, Debug)]
pub struct Debt {
    /// Stripe's id, if the transfer exists there.
    pub stripe_transfer_id: Option<String>,
    /// The connected account.
    pub destination: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
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

impl OperationAction {
    /// Whether a preview asks Stripe: where money moves, or is said to have moved.
    #[must_use]
    pub fn asks_stripe(self) -> bool {
        self.moves_money() || self == Self::CloseReversals
    }
}

#[derive(FromQueryResult)]
struct Owed {
    id: Uuid,
    stripe_transfer_id: Option<String>,
    destination: String,
    currency: String,
    source: Source,
    reference: String,
}

#[derive(FromQueryResult)]
struct Transfer {
    id: Uuid,
    stripe_transfer_id: Option<String>,
    destination: String,
    currency: String,
}

impl Ledger {
    /// The first 100 rows of an operation, in their order, with what they are about.
    pub async fn questions(&self, operation: &OperationView) -> Result<Vec<Question>, LedgerError> {
        let items = operation_item::Entity::find()
            .filter(operation_item::Column::OperationId.eq(operation.id))
            .filter(operation_item::Column::Position.lt(ASKED))
            .order_by_asc(operation_item::Column::Position)
            .all(&self.store.writer)
            .await?;
        let ids: Vec<Uuid> = items.iter().map(|item| item.target_id).collect();
        let mut about = match operation.action {
            OperationAction::RetryTransfers => self.creations(&ids).await?,
            OperationAction::AcceptClaims => self.would_be_owed(&ids).await?,
            _ => self.debts(&items, &ids).await?,
        };
        let question = |item: operation_item::Model| Some(Question { about: about.remove(&item.target_id)?, item });
        Ok(items.into_iter().filter_map(question).collect())
    }

    async fn debts(&self, items: &[operation_item::Model], ids: &[Uuid]) -> Result<HashMap<Uuid, About>, LedgerError> {
        let db = &self.store.writer;
        let mut query = Query::new(db);
        let among = query.among_ids("r.id", ids);
        let sql = format!(
            "SELECT r.id, t.stripe_transfer_id, t.destination, t.currency, cl.source, cl.reference FROM reversals r
            JOIN seller_transfers t ON t.id = r.transfer_id JOIN claims cl ON cl.id = r.claim_id WHERE {among}"
        );
        let amounts: HashMap<Uuid, i64> = items.iter().map(|item| (item.target_id, item.amount)).collect();
        let about = |owed: Owed| {
            let Owed { id, stripe_transfer_id, destination, currency, source, reference } = owed;
            let debt = Debt { stripe_transfer_id, destination, amount: *amounts.get(&id)?, currency };
            Some((id, About::Debts { claim: claim_name(source, &reference), debts: vec![debt] }))
        };
        Ok(query.all::<Owed>(db, sql).await?.into_iter().filter_map(about).collect())
    }

    /// What accepting these claims would ask of transfers, as a transaction says that is rolled back.
    async fn would_be_owed(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, About>, LedgerError> {
        let db = &self.store.writer;
        let acts = self.acts(OperationAction::AcceptClaims, ids, &Note::new("preview", "rolled back")).await?;
        let changes: Vec<ItemChange> = acts.into_iter().map(|act| ItemChange { act, item: None }).collect();
        let answers = self.store.apply_all(&changes, false).await;
        let owed: HashMap<Uuid, Vec<(Uuid, i64)>> =
            ids.iter().copied().zip(answers.into_iter().map(Result::unwrap_or_default)).collect();
        let transfers: Vec<Uuid> = owed.values().flatten().map(|(transfer, _)| *transfer).collect();
        let mut query = Query::new(db);
        let among = query.among_ids("id", &transfers);
        let sql = format!("SELECT id, stripe_transfer_id, destination, currency FROM seller_transfers WHERE {among}");
        let transfers: HashMap<Uuid, Transfer> =
            query.all::<Transfer>(db, sql).await?.into_iter().map(|transfer| (transfer.id, transfer)).collect();
        let claims = rowset::select::<_, claim::Model>(db, "id IN {ids}", ids, &[]).await?;
        let debt = |(transfer, amount): &(Uuid, i64)| {
            let Transfer { stripe_transfer_id, destination, currency, .. } = transfers.get(transfer)?;
            let (stripe_transfer_id, destination) = (stripe_transfer_id.clone(), destination.clone());
            Some(Debt { stripe_transfer_id, destination, amount: *amount, currency: currency.clone() })
        };
        let about = |claim: claim::Model| {
            let debts = owed.get(&claim.id).into_iter().flatten().filter_map(debt).collect();
            (claim.id, About::Debts { claim: claim_name(claim.source, &claim.reference), debts })
        };
        Ok(claims.into_iter().map(about).collect())
    }

    async fn creations(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, About>, LedgerError> {
        let mut about = HashMap::new();
        for id in ids {
            if let Some(Task { call, target: Target::Creation(target), .. }) = self.task(*id).await? {
                about.insert(*id, About::Creation(Box::new((call, target))));
            }
        }
        Ok(about)
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
