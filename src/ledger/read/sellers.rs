//! What each seller was paid, what was taken back, and what is owed, currency by currency; and each currency as a line of CSV.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;
use serde::Serialize;
use strum::Display;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ReversalView;
use super::found::ReversalFilter;
use super::lists::{Page, cut};
use super::one::reversal_views;
use super::query::Query;
use crate::ledger::calls::WITHHELD;
use crate::ledger::{Ledger, LedgerError};
use crate::lines::Line;

/// A reversal `r` that is owed: pending, or failed permanently for a claim that is not over.
pub(in crate::ledger) const OPEN: &str = "(r.status IN ('pending') OR r.status IN ('permanently_failed') AND NOT EXISTS \
    (SELECT 1 FROM claims o WHERE o.id = r.claim_id AND o.status IN ('failed', 'nothing_to_reverse')))";
/// An open reversal `r` that Stripe refuses for lack of balance.
pub(super) const WAITS_FOR_BALANCE: &str = "(r.status IN ('pending') AND EXISTS \
    (SELECT 1 FROM calls c WHERE c.id = r.id AND c.state = 'open' AND c.refused_since IS NOT NULL))";

/// A seller: the marketplace's id, and the money in each currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SellerView {
    /// The marketplace's id.
    #[schema(examples("s1"))]
    pub seller_id: String,
    /// One for each currency. They are never added up.
    pub currencies: Vec<SellerMoney>,
}

/// What a seller got and owes in one currency, in its minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SellerMoney {
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// How many transfers are registered.
    pub transfers: i64,
    /// What was transferred to the seller.
    #[schema(examples(9_000))]
    pub paid: i64,
    /// What of it is back, also from before the registration.
    pub taken_back: i64,
    /// What is still to be taken back.
    pub owed: i64,
    /// Of `owed`: Stripe refuses it for lack of balance, and it is tried again.
    pub waiting_for_balance: i64,
    /// Of `owed`: failed permanently, an operator must decide.
    pub failed: i64,
    /// What was owed and settled elsewhere, as operators recorded.
    pub closed: i64,
    /// What the seller was not paid, since creating the transfer failed permanently.
    pub unpaid: i64,
    /// When the oldest debt was recorded that is still owed.
    pub oldest_open: Option<DateTime<Utc>>,
}

/// A seller's money in one currency as a line.
#[derive(Debug, Serialize)]
pub struct SellerLine {
    seller_id: String,
    #[serde(flatten)]
    money: SellerMoney,
}

impl Line for SellerLine {
    const COLUMNS: &'static [&'static str] = &[
        "seller_id",
        "currency",
        "transfers",
        "paid",
        "taken_back",
        "owed",
        "waiting_for_balance",
        "failed",
        "closed",
        "unpaid",
        "oldest_open",
    ];
}

impl SellerView {
    /// One for each currency.
    pub fn into_lines(self) -> impl Iterator<Item = SellerLine> {
        let seller_id = self.seller_id;
        self.currencies.into_iter().map(move |money| SellerLine { seller_id: seller_id.clone(), money })
    }
}

/// Which sellers.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, sea_orm::EnumIter, ToSchema)]
#[strum(serialize_all = "snake_case")]
#[schema(rename_all = "snake_case")]
pub enum SellerDebt {
    /// Those that owe anything.
    Open,
    /// Those whose debts Stripe refuses for lack of balance.
    WaitingForBalance,
    /// Those with debts that failed permanently.
    Failed,
}

#[derive(FromQueryResult)]
struct Paid {
    seller_id: String,
    currency: String,
    transfers: i64,
    paid: i64,
    taken_back: i64,
    unpaid: i64,
}

#[derive(FromQueryResult)]
struct Owed {
    seller_id: String,
    currency: String,
    owed: i64,
    waiting: i64,
    failed: i64,
    closed: i64,
    oldest: Option<DateTime<Utc>>,
}

impl Ledger {
    /// At most `limit` sellers with ids greater than `after`, in the order of their ids, and the cursor to those that follow;
    /// only those with such debts, if `debt` is given.
    pub async fn find_sellers(
        &self,
        debt: Option<SellerDebt>,
        after: Option<String>,
        limit: u64,
    ) -> Result<Page<SellerView, String>, LedgerError> {
        let db = &self.store.reader;
        let (mut query, one_more) = (Query::new(db), limit.saturating_add(1));
        let after = query.bind(after.unwrap_or_default());
        // From one id to the next, however many transfers or debts each has.
        let with = debt.map(|debt| match debt {
            SellerDebt::Open => OPEN.to_owned(),
            SellerDebt::WaitingForBalance => WAITS_FOR_BALANCE.to_owned(),
            SellerDebt::Failed => format!("({OPEN} AND r.status IN ('permanently_failed'))"),
        });
        let open = "reversals r WHERE r.status IN ('pending', 'permanently_failed') AND";
        let (next, owes) = match with {
            None => ("SELECT MIN(t.seller_id) FROM seller_transfers t WHERE t.seller_id >".to_owned(), String::new()),
            // No EXISTS: PostgreSQL would make a join of it, for which it looks at all sellers.
            Some(with) => (
                format!("SELECT MIN(r.seller_id) FROM {open} r.seller_id >"),
                format!("AND (SELECT 1 FROM {open} r.seller_id = s.seller_id AND {with} LIMIT 1) IS NOT NULL"),
            ),
        };
        let sql = format!(
            "WITH RECURSIVE s(seller_id) AS ({next} {after}
                UNION ALL SELECT ({next} s.seller_id) FROM s WHERE s.seller_id IS NOT NULL)
            SELECT seller_id FROM (SELECT seller_id FROM s WHERE seller_id IS NOT NULL {owes} LIMIT {one_more}) page
            ORDER BY seller_id"
        );
        let rows = query.rows(db, sql).await?;
        let ids = rows.iter().map(|row| row.try_get("", "seller_id")).collect::<Result<Vec<String>, _>>()?;
        let (ids, next) = cut(ids, limit, String::clone);
        Ok((self.sellers(&ids).await?, next))
    }

    /// The seller with this id of the marketplace's.
    pub async fn seller(&self, id: &str) -> Result<Option<SellerView>, LedgerError> {
        let found = self.sellers(&[id.to_owned()]).await?.pop();
        Ok(found.filter(|seller| !seller.currencies.is_empty()))
    }

    /// At most `limit` reversals of this seller's transfers, newest first, older than `after`.
    pub async fn reversals_of_seller(
        &self,
        seller_id: &str,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Page<ReversalView>, LedgerError> {
        let db = &self.store.reader;
        let theirs = ReversalFilter { seller: Some(seller_id.to_owned()), ..ReversalFilter::default() };
        let (found, next) = theirs.list(None).page(db, after, limit).await?;
        Ok((reversal_views(db, found).await?, next))
    }

    /// These sellers, in this order.
    async fn sellers(&self, ids: &[String]) -> Result<Vec<SellerView>, LedgerError> {
        let (paid, owed) = tokio::try_join!(self.paid(ids), self.owed(ids))?;
        let mut money: BTreeMap<(String, String), SellerMoney> = BTreeMap::new();
        for row in paid {
            let of_currency = SellerMoney {
                transfers: row.transfers,
                paid: row.paid,
                taken_back: row.taken_back,
                unpaid: row.unpaid,
                ..nothing(&row.currency)
            };
            money.insert((row.seller_id, row.currency), of_currency);
        }
        for row in owed {
            let of_currency = money.entry((row.seller_id, row.currency.clone()));
            let of_currency = of_currency.or_insert_with(|| nothing(&row.currency));
            of_currency.owed += row.owed;
            of_currency.waiting_for_balance += row.waiting;
            of_currency.failed += row.failed;
            of_currency.closed += row.closed;
            of_currency.oldest_open = of_currency.oldest_open.or(row.oldest);
        }
        let mut by_seller: BTreeMap<String, Vec<SellerMoney>> = BTreeMap::new();
        for ((seller_id, _), of_currency) in money {
            by_seller.entry(seller_id).or_default().push(of_currency);
        }
        let view =
            |id: &String| SellerView { seller_id: id.clone(), currencies: by_seller.remove(id).unwrap_or_default() };
        Ok(ids.iter().map(view).collect())
    }

    async fn paid(&self, ids: &[String]) -> Result<Vec<Paid>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let of_sellers = query.among_texts("t.seller_id", &ids.iter().map(String::as_str).collect::<Vec<_>>());
        let paid = query.sum("CASE WHEN t.stripe_transfer_id IS NOT NULL THEN t.amount - t.withheld END");
        let taken_back = query.sum("t.amount_reversed - t.withheld");
        let is_unpaid = "t.created_by_us AND t.stripe_transfer_id IS NULL AND t.status IN ('permanently_failed')";
        let unpaid = query.sum(&format!("CASE WHEN {is_unpaid} THEN t.amount - t.withheld END"));
        let sql = format!(
            "SELECT t.seller_id, t.currency, COUNT(*) AS transfers, {paid} AS paid, {taken_back} AS taken_back,
                {unpaid} AS unpaid
            FROM seller_transfers t WHERE {of_sellers} GROUP BY t.seller_id, t.currency"
        );
        Ok(query.all(db, sql).await?)
    }

    async fn owed(&self, ids: &[String]) -> Result<Vec<Owed>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let of_sellers = query.among_texts("r.seller_id", &ids.iter().map(String::as_str).collect::<Vec<_>>());
        let if_so = |condition: &str| query.sum(&format!("CASE WHEN {condition} THEN r.amount END"));
        let (owed, waiting) = (if_so(OPEN), if_so(WAITS_FOR_BALANCE));
        let failed = if_so(&format!("r.status IN ('permanently_failed') AND {OPEN}"));
        let is_withheld = format!("EXISTS (SELECT 1 FROM calls w WHERE w.id = r.id AND w.failure_code = '{WITHHELD}')");
        let is_closed = format!("r.status = 'closed' AND NOT {is_withheld}");
        let closed = query.sum(&format!("r.amount_closed + CASE WHEN {is_closed} THEN r.amount ELSE 0 END"));
        // Each part has an index of its own.
        let sql = format!(
            "SELECT r.seller_id, r.currency, {owed} AS owed, {waiting} AS waiting, {failed} AS failed, 0 AS closed,
                MIN(CASE WHEN {OPEN} THEN r.created_at END) AS oldest
            FROM reversals r
            WHERE r.status IN ('pending', 'permanently_failed') AND {of_sellers} GROUP BY r.seller_id, r.currency
            UNION ALL SELECT r.seller_id, r.currency, 0, 0, 0, {closed}, NULL FROM reversals r
            WHERE (r.status IN ('closed') OR r.amount_closed > 0) AND {of_sellers} GROUP BY r.seller_id, r.currency"
        );
        Ok(query.all(db, sql).await?)
    }
}

fn nothing(currency: &str) -> SellerMoney {
    SellerMoney {
        currency: currency.to_owned(),
        transfers: 0,
        paid: 0,
        taken_back: 0,
        owed: 0,
        waiting_for_balance: 0,
        failed: 0,
        closed: 0,
        unpaid: 0,
        oldest_open: None,
    }
}
