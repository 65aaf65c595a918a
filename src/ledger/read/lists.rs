//! Lists a page at a time, newest or oldest first, and how long they are. Ids are UUIDv7: the last one of a page is the cursor to the next.

use sea_orm::sea_query::{Alias, Asterisk, Expr, Func, Query};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait, ModelTrait, Order, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait, Select,
};
use uuid::Uuid;

use super::ReversalView;
use super::one::reversal_views;
use crate::ledger::schema::reversal;
use crate::ledger::{Ledger, LedgerError};

/// Rows that are looked at for one page where no index finds those that match.
const LOOKED_AT: u64 = 20_000;
/// The most rows that are counted for people.
const COUNTED: u64 = 10_000;

/// Rows, and the cursor to those that follow; `None` on the last page.
pub type Page<T, C = Uuid> = (Vec<T>, Option<C>);

/// The page out of `limit` rows and one more, which tells whether there is a next page.
pub(in crate::ledger) fn cut<T, C>(mut rows: Vec<T>, limit: u64, cursor: impl Fn(&T) -> C) -> Page<T, C> {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let there_is_more = rows.len() > wanted;
    rows.truncate(wanted);
    let next = rows.last().filter(|_| there_is_more).map(cursor);
    (rows, next)
}

/// What a list is of: what an index finds, and what is asked of each of these rows.
#[derive(Debug)]
pub(super) struct Listed<E: EntityTrait> {
    /// Found by an index, in the order of the ids.
    pub(super) found: Select<E>,
    /// The same with all conditions; `None` where these are all.
    pub(super) narrowed: Option<Select<E>>,
    pub(super) id: E::Column,
    /// Oldest first, instead of newest first.
    pub(super) oldest: bool,
}

impl<E: EntityTrait> Listed<E> {
    /// At most `limit` rows after `after`, and the cursor to those that follow. Where few rows match, a page may
    /// be short, or even empty, and yet not be the last one.
    pub(super) async fn page(
        self,
        db: &DatabaseConnection,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Page<E::Model>, DbErr>
    where
        E::Model: Send + Sync,
    {
        let (id, order) = (self.id, self.order());
        let rest = |query: Select<E>| {
            query.apply_if(after, |query, after| query.filter(if self.oldest { id.gt(after) } else { id.lt(after) }))
        };
        let last_looked_at = self.last_looked_at(db, rest(self.found.clone())).await?;
        let matching = rest(self.narrowed.clone().unwrap_or_else(|| self.found.clone()));
        let rows =
            self.as_far_as(last_looked_at, matching).order_by(id, order).limit(limit.saturating_add(1)).all(db).await?;
        let (rows, next) = cut(rows, limit, |row| match row.get(id) {
            sea_orm::Value::Uuid(id) => id,
            _ => None,
        });
        Ok((rows, next.flatten().or(last_looked_at)))
    }

    /// How many there are, in words: `7`, or `10,000+`. Of rows that no index finds, the first are counted.
    pub(super) async fn count(self, db: &DatabaseConnection) -> Result<String, DbErr> {
        let id = self.id;
        let last_looked_at = self.last_looked_at(db, self.found.clone()).await?;
        let matching = self.narrowed.clone().unwrap_or_else(|| self.found.clone());
        let matching = self.as_far_as(last_looked_at, matching);
        let ids = matching.select_only().column(id).limit(COUNTED + 1).into_query();
        let count =
            Query::select().expr(Func::count(Expr::col(Asterisk))).from_subquery(ids, Alias::new("counted")).to_owned();
        let row = db.query_one_raw(db.get_database_backend().build(&count)).await?;
        let number: i64 = row.map(|row| row.try_get_by_index(0)).transpose()?.unwrap_or_default();
        let number = u64::try_from(number).unwrap_or_default();
        Ok(if number > COUNTED {
            "10,000+".to_owned()
        } else if last_looked_at.is_some() {
            format!("{number}+")
        } else {
            number.to_string()
        })
    }

    fn order(&self) -> Order {
        if self.oldest { Order::Asc } else { Order::Desc }
    }

    /// The last row of `found` that is looked at, where more are than are looked at.
    async fn last_looked_at(&self, db: &DatabaseConnection, found: Select<E>) -> Result<Option<Uuid>, DbErr> {
        if self.narrowed.is_none() {
            return Ok(None);
        }
        let ids = found.select_only().column(self.id).order_by(self.id, self.order());
        ids.offset(LOOKED_AT - 1).limit(1).into_tuple().one(db).await
    }

    fn as_far_as(&self, last: Option<Uuid>, query: Select<E>) -> Select<E> {
        query
            .apply_if(last, |query, last| query.filter(if self.oldest { self.id.lte(last) } else { self.id.gte(last) }))
    }
}

impl Ledger {
    /// The reversal with this id: Clawback's or Stripe's (`trr_…`).
    pub async fn reversal(&self, id: &str) -> Result<Option<ReversalView>, LedgerError> {
        let is_it = match id.parse::<Uuid>() {
            Ok(id) => reversal::Column::Id.eq(id),
            Err(_) => reversal::Column::StripeReversalId.eq(id),
        };
        let found = reversal::Entity::find().filter(is_it).order_by_asc(reversal::Column::Id).limit(1);
        let found = found.all(&self.store.db).await?;
        Ok(reversal_views(&self.store.db, found).await?.pop())
    }
}
