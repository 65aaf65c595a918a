//! The calls behind parked messages, and remarks in their histories: what operators do to messages leaves the rows as they are.

use std::collections::HashMap;

use uuid::Uuid;

use crate::ledger::calls::Call;
use crate::ledger::db::rowset::{self, Writes};
use crate::ledger::history::{self, Note};
use crate::ledger::schema::{reversal, transfer};
use crate::ledger::status::CallKind;
use crate::ledger::time::now;
use crate::ledger::{Ledger, LedgerError};

impl Ledger {
    /// The calls with these ids, each with the status of what it is for; those that the ledger has not are left out.
    pub async fn calls(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, (Call, String)>, LedgerError> {
        let db = &self.store.db;
        let calls = rowset::select::<_, Call>(db, "id IN {ids}", ids, &[]).await?;
        let reversals = rowset::select::<_, reversal::Model>(db, "id IN {ids}", ids, &[]).await?;
        let transfers = rowset::select::<_, transfer::Model>(db, "id IN {ids}", ids, &[]).await?;
        let reversals = reversals.into_iter().map(|row| (row.id, row.status.to_string()));
        let mut statuses: HashMap<Uuid, String> =
            reversals.chain(transfers.into_iter().map(|row| (row.id, row.status.to_string()))).collect();
        Ok(calls
            .into_iter()
            .filter_map(|call| {
                let status = match call.kind {
                    CallKind::Reverse | CallKind::Create => statuses.remove(&call.id)?,
                    CallKind::LookUp | CallKind::Notify => call.state.to_string(),
                };
                Some((call.id, (status, call)))
            })
            .map(|(id, (status, call))| (id, (call, status)))
            .collect())
    }

    /// Appends a row to the history of what a call is for. Its status stays.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Database`].
    pub async fn remark(&self, kind: CallKind, id: Uuid, note: &Note) -> Result<(), LedgerError> {
        let (_, status) = self
            .calls(&[id])
            .await?
            .remove(&id)
            .ok_or_else(|| LedgerError::NotFound { entity: kind.entity(), id: id.to_string() })?;
        let row = history::row(kind.entity().to_owned(), id, Some(status.clone()), status, note, now());
        let txn = self.store.begin().await?;
        let mut writes = Writes::new(&txn);
        writes.insert([&row])?;
        writes.run(&txn).await?;
        self.store.commit(txn, Vec::new()).await
    }
}
