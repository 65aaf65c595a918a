//! Deletes what nobody will ask for any more: old webhooks, and what another system was told long ago.

use std::time::Duration;

use chrono::TimeDelta;
use sea_orm::{ConnectionTrait, DbErr, Statement};
use uuid::Uuid;

use super::db::rowset;
use super::{Ledger, LedgerError, now};

/// Rows that are deleted in one statement.
const BATCH: usize = 1_000;

impl Ledger {
    /// Deletes webhooks that came, and notifications that were taken, longer ago than `retention`, a batch at a time, and
    /// returns how many rows. Claims, debts and history stay, so a webhook that is told again after that changes nothing either.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; what was deleted stays deleted.
    pub async fn forget(&self, retention: Duration) -> Result<u64, LedgerError> {
        let age = TimeDelta::from_std(retention).unwrap_or(TimeDelta::MAX);
        let Some(before) = now().checked_sub_signed(age) else { return Ok(0) };
        // Ids begin with the time.
        let millis = u64::try_from(before.timestamp_millis()).unwrap_or_default();
        let first_kept = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
        let told = "SELECT id FROM notifications WHERE id < $1 AND NOT EXISTS
            (SELECT 1 FROM calls WHERE calls.id = notifications.id AND calls.state <> 'done')";
        let webhooks = self.delete("SELECT id FROM webhook_events WHERE id < $1", first_kept, &["webhook_events"]);
        // The call first: a notification without one is found again.
        Ok(webhooks.await? + self.delete(told, first_kept, &["calls", "notifications"]).await?)
    }

    /// Deletes the rows with the ids that `old` gives from each of `tables`, and returns how many ids there were.
    async fn delete(&self, old: &str, first_kept: Uuid, tables: &[&str]) -> Result<u64, DbErr> {
        let db = &self.store.relay_db;
        let sql = format!("{old} ORDER BY id LIMIT {BATCH}");
        let old = Statement::from_sql_and_values(db.get_database_backend(), sql, [first_kept.into()]);
        let mut deleted = 0;
        loop {
            let rows = db.query_all_raw(old.clone()).await?;
            let ids = rows.iter().map(|row| row.try_get("", "id")).collect::<Result<Vec<Uuid>, _>>()?;
            for table in tables {
                let sql = format!("DELETE FROM {table} WHERE id IN {{ids}}");
                db.execute_raw(rowset::in_sets(db.get_database_backend(), &sql, &ids, &[])).await?;
            }
            deleted += ids.len() as u64;
            if ids.len() < BATCH {
                return Ok(deleted);
            }
        }
    }
}
