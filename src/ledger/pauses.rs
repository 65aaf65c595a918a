//! Pauses: operators stop the calls to Stripe about one seller, or all of them. A paused call is not authorized, and stays open;
//! resuming has the sweeper make new jobs.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, FromQueryResult};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::db::rowset::{self, Writes};
use super::history::{self, Note};
use super::input::FieldProblem;
use super::read::Query;
use super::status::CallKind;
use super::{Ledger, LedgerError, now};

/// What pauses `t.destination`, or, without a transfer, everything.
pub(super) const IS_PAUSED: &str =
    "EXISTS (SELECT 1 FROM pauses WHERE ended_at IS NULL AND destination IN ('', COALESCE(t.destination, '')))";
/// Calls of this kind are no calls to Stripe.
const NEVER_PAUSED: &str = "c.kind <> 'notify'";

/// Calls to Stripe that an operator has paused.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult, Serialize, ToSchema)]
pub struct Pause {
    /// Its id.
    pub id: Uuid,
    /// The connected account that it is about; null: all calls are paused.
    #[schema(examples("acct_1"))]
    pub seller: Option<String>,
    /// Who paused them.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

impl Pause {
    /// What is paused, in words.
    #[must_use]
    pub fn what(&self) -> String {
        self.seller.clone().unwrap_or_else(|| "everything".to_owned())
    }
}

/// Checks what names a seller's account at Stripe.
///
/// # Errors
/// What is wrong with it.
pub fn parse_account(text: &str) -> Result<String, String> {
    let text = text.trim();
    let rest = text.strip_prefix("acct_").filter(|rest| !rest.is_empty());
    let is_plain = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if text.len() <= 255 && rest.is_some_and(is_plain) {
        return Ok(text.to_owned());
    }
    Err("must be Stripe's id of a connected account, like acct_1".to_owned())
}

impl Ledger {
    /// Pauses the calls to Stripe about the connected account `seller`, or all of them. Calls that are on their way go on. Without
    /// `force`, a transfer to the account must be registered: a slip of the pen pauses nothing, and looks as if it did.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`]; [`LedgerError::Conflict`] when that is paused already; [`LedgerError::Database`].
    pub async fn pause(&self, seller: Option<&str>, force: bool, note: &Note) -> Result<Pause, LedgerError> {
        let invalid = |problem| LedgerError::Invalid(vec![FieldProblem::new("seller", problem)]);
        let seller = seller.map(parse_account).transpose().map_err(invalid)?;
        if let (Some(account), false) = (&seller, force)
            && !self.is_known(account).await
        {
            let must = "must be the account of a transfer that is registered";
            return Err(invalid(format!("{must} (got {account:?}); force pauses it all the same")));
        }
        let (operator, reason) = (note.actor.clone(), note.reason.clone());
        let pause = Pause { id: Uuid::now_v7(), seller, operator, reason, created_at: now() };
        let txn = self.store.begin().await?;
        let mut query = Query::new(&txn);
        let values = [
            query.bind(pause.id),
            query.bind(pause.seller.as_deref().unwrap_or_default()),
            query.bind(pause.operator.as_str()),
            query.bind(pause.reason.as_str()),
            query.bind(pause.created_at),
        ];
        let sql = format!(
            "INSERT INTO pauses (id, destination, operator, reason, created_at) VALUES ({})
            ON CONFLICT (destination) WHERE ended_at IS NULL DO NOTHING RETURNING id",
            values.join(", ")
        );
        if query.rows(&txn, sql).await?.is_empty() {
            txn.rollback().await?;
            let problem = format!("{} is paused already; GET /v1/pauses says by whom and why", pause.what());
            return Err(LedgerError::Conflict(problem));
        }
        record(&txn, &pause, None, "paused", note).await?;
        self.store.commit(txn, Vec::new()).await?;
        self.figures.situation.forget().await;
        Ok(pause)
    }

    /// Whether a transfer to this account is registered. No index says so: where that takes too long, it counts as known, since a
    /// pause may be urgent.
    async fn is_known(&self, account: &str) -> bool {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let account = query.bind(account);
        let found = query.rows(db, format!("SELECT 1 FROM seller_transfers WHERE destination = {account} LIMIT 1"));
        found.await.map_or(true, |rows| !rows.is_empty())
    }

    /// Ends a pause. The sweeper of this process then makes new jobs at once for what is due; without one,
    /// [`Self::bring_back`] does. Returns how many calls it had held up.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when no such pause is in force; [`LedgerError::Database`].
    pub async fn resume(&self, id: Uuid, note: &Note) -> Result<(Pause, u64), LedgerError> {
        let txn = self.store.begin().await?;
        let mut query = Query::new(&txn);
        let (ended_at, of) = (query.bind(now()), query.bind(id));
        let sql = format!(
            "UPDATE pauses SET ended_at = {ended_at} WHERE id = {of} AND ended_at IS NULL
            RETURNING id, NULLIF(destination, '') AS seller, operator, reason, created_at"
        );
        let rows = query.rows(&txn, sql).await?;
        let Some(row) = rows.first() else {
            txn.rollback().await?;
            return Err(LedgerError::NotFound { entity: "pause in force", id: id.to_string() });
        };
        let pause = Pause::from_query_result(row, "")?;
        record(&txn, &pause, Some("paused"), "resumed", note).await?;
        let held_up = make_due(&txn, &pause).await?;
        self.store.commit(txn, Vec::new()).await?;
        self.figures.situation.forget().await;
        self.store.resumed.send_modify(|times| *times = times.wrapping_add(1));
        Ok((pause, held_up))
    }

    /// [`Self::resume`] of what is paused for this connected account, or of the pause of everything.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub async fn resume_seller(&self, seller: Option<&str>, note: &Note) -> Result<(Pause, u64), LedgerError> {
        let pauses = self.pauses().await?;
        match pauses.iter().find(|pause| pause.seller.as_deref() == seller) {
            Some(pause) => self.resume(pause.id, note).await,
            None => {
                let id = seller.unwrap_or("everything").to_owned();
                Err(LedgerError::NotFound { entity: "pause in force of", id })
            }
        }
    }

    /// Makes new jobs for calls that are due and have none: for a process without a sweeper, after [`Self::resume`].
    ///
    /// # Errors
    /// [`LedgerError::Database`]; the sweepers of other processes do the rest at their intervals.
    pub async fn bring_back(&self) -> Result<(), LedgerError> {
        const AT_ONCE: u64 = 500;
        for kind in CallKind::all().filter(|kind| *kind != CallKind::Notify) {
            while self.sweep(kind, AT_ONCE).await?.looked_at as u64 >= AT_ONCE {}
        }
        Ok(())
    }

    /// The pauses that are in force, oldest first.
    pub async fn pauses(&self) -> Result<Vec<Pause>, LedgerError> {
        let db = &self.store.db;
        let sql = "SELECT id, NULLIF(destination, '') AS seller, operator, reason, created_at FROM pauses
            WHERE ended_at IS NULL ORDER BY id";
        Ok(Query::new(db).all(db, sql.to_owned()).await?)
    }
}

/// Those of these calls that are paused.
pub(super) async fn paused_among(txn: &DatabaseTransaction, calls: &[Uuid]) -> Result<Vec<Uuid>, DbErr> {
    let sql = format!(
        "SELECT c.id FROM calls c LEFT JOIN reversals r ON r.id = c.id
            LEFT JOIN seller_transfers t ON t.id = COALESCE(r.transfer_id, c.id)
        WHERE c.id IN {{ids}} AND {NEVER_PAUSED} AND {IS_PAUSED}"
    );
    let rows = txn.query_all_raw(rowset::in_sets(txn.get_database_backend(), &sql, calls, &[])).await?;
    rows.iter().map(|row| row.try_get("", "id")).collect()
}

/// Has the sweeper take the calls first that the pause held up. A call that another transaction changes meanwhile has news.
async fn make_due(txn: &DatabaseTransaction, pause: &Pause) -> Result<u64, DbErr> {
    let lock = match txn.get_database_backend() {
        sea_orm::DbBackend::Postgres => " FOR UPDATE OF c SKIP LOCKED",
        _ => "",
    };
    let mut query = Query::new(txn);
    let at = query.bind(now());
    let of = match &pause.seller {
        Some(seller) => {
            let seller = query.bind(seller.as_str());
            format!(
                "AND EXISTS (SELECT 1 FROM seller_transfers t WHERE t.destination = {seller} AND
                    t.id = COALESCE((SELECT r.transfer_id FROM reversals r WHERE r.id = c.id), c.id))"
            )
        }
        None => String::new(),
    };
    let sql = format!(
        "UPDATE calls SET sweep_after = created_at, sweep_count = 0 WHERE id IN
            (SELECT c.id FROM calls c WHERE c.state = 'open' AND {NEVER_PAUSED}
                AND (c.next_attempt_at IS NULL OR c.next_attempt_at <= {at}) {of}{lock})
        RETURNING id"
    );
    Ok(query.rows(txn, sql).await?.len() as u64)
}

async fn record(
    txn: &DatabaseTransaction,
    pause: &Pause,
    from: Option<&str>,
    to: &str,
    note: &Note,
) -> Result<(), DbErr> {
    let note = note.because(format!("{}: {}", pause.what(), note.reason));
    let row = history::row("pause".to_owned(), pause.id, from.map(str::to_owned), to.to_owned(), &note, now());
    let mut writes = Writes::new(txn);
    writes.insert([&row])?;
    writes.run(txn).await.map(drop)
}
