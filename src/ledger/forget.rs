//! Deletes what nobody will ask for any more: old webhooks, what another system was told long ago, and previews that were never
//! started.

use std::time::Duration;

use chrono::TimeDelta;
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use uuid::Uuid;

use super::db::rowset;
use super::operations::PREVIEWS_KEPT_FOR;
use super::{Ledger, LedgerError, now};

/// Rows that are deleted in one statement.
const BATCH: usize = 1_000;

impl Ledger {
    /// Deletes webhooks that came, and notifications that were taken, longer ago than `retention`, and previews of operations that were
    /// not started within 7 days; a batch at a time. Returns how many. Claims, debts and history stay, so a webhook that is told again
    /// after that changes nothing either.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; what was deleted stays deleted.
    pub async fn forget(&self, retention: Duration) -> Result<u64, LedgerError> {
        let previews = self.delete(
            "SELECT id FROM operations WHERE state = 'previewed' AND created_at < $1",
            now() - PREVIEWS_KEPT_FOR,
            &["operation_items WHERE operation_id", "operations WHERE id"],
        );
        let deleted = previews.await?;
        let age = TimeDelta::from_std(retention).unwrap_or(TimeDelta::MAX);
        let Some(before) = now().checked_sub_signed(age) else { return Ok(deleted) };
        // Ids begin with the time.
        let millis = u64::try_from(before.timestamp_millis()).unwrap_or_default();
        let first_kept = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
        let told = "SELECT id FROM notifications WHERE id < $1 AND NOT EXISTS
            (SELECT 1 FROM calls WHERE calls.id = notifications.id AND calls.state <> 'done')";
        let webhooks = "SELECT id FROM webhook_events WHERE id < $1";
        let webhooks = self.delete(webhooks, first_kept, &["webhook_events WHERE id"]).await?;
        // The call first: a notification without one is found again.
        let told = self.delete(told, first_kept, &["calls WHERE id", "notifications WHERE id"]).await?;
        Ok(deleted + webhooks + told)
    }

    /// Deletes what belongs to the ids that `old` gives from each of `tables`, and returns how many ids there were.
    async fn delete(&self, old: &str, limit: impl Into<Value>, tables: &[&str]) -> Result<u64, DbErr> {
        let db = &self.store.relay_db;
        let sql = format!("{old} ORDER BY id LIMIT {BATCH}");
        let old = Statement::from_sql_and_values(db.get_database_backend(), sql, [limit.into()]);
        let mut deleted = 0;
        loop {
            let rows = db.query_all_raw(old.clone()).await?;
            let ids = rows.iter().map(|row| row.try_get("", "id")).collect::<Result<Vec<Uuid>, _>>()?;
            for table in tables {
                let sql = format!("DELETE FROM {table} IN {{ids}}");
                db.execute_raw(rowset::in_sets(db.get_database_backend(), &sql, &ids, &[])).await?;
            }
            deleted += ids.len() as u64;
            if ids.len() < BATCH {
                return Ok(deleted);
            }
        }
    }
}
