//! Previews: which rows an operation would act upon, and what would be refused.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;
use uuid::Uuid;

use super::select::Candidate;
use super::view::{OperationView, Refusal};
use super::{Act, ItemChange, ItemState, MAX_ITEMS, OperationAction, OperationFilter, OperationState, is_refusal};
use crate::ledger::db::rowset::{self, Writes};
use crate::ledger::history::Note;
use crate::ledger::read::normalized;
use crate::ledger::schema::{claim, operation, operation_item};
use crate::ledger::time::now;
use crate::ledger::{Ledger, LedgerError};

/// So many rows are tried, and rolled back.
const CHECKED: usize = 1_000;
/// Rows that are tried in one transaction.
const AT_ONCE: usize = 64;

impl Ledger {
    /// Freezes the rows that match `filter`, at most [`MAX_ITEMS`], oldest first, and tries the first 1,000 of them in
    /// transactions that are rolled back. Changes no row.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`]; [`LedgerError::Database`].
    pub async fn preview_operation(
        &self,
        action: OperationAction,
        filter: &OperationFilter,
    ) -> Result<OperationView, LedgerError> {
        let problems = filter.problems(action);
        if !problems.is_empty() {
            return Err(LedgerError::Invalid(problems));
        }
        let mut found = self.candidates(action, filter).await?;
        let matching = i64::try_from(found.len()).unwrap_or(i64::MAX);
        found.truncate(MAX_ITEMS);
        let (checked, refusals) = self.try_out(action, &found).await?;
        let row = operation::Model {
            id: Uuid::now_v7(),
            action,
            filter: json!(filter).to_string(),
            state: OperationState::Previewed,
            items: i32::try_from(found.len()).unwrap_or(i32::MAX),
            matching,
            checked,
            refusals: json!(refusals).to_string(),
            oldest: found.iter().map(|row| row.since).min(),
            operator: None,
            reason: None,
            spread_seconds: 0,
            cap: None,
            created_at: now(),
            started_at: None,
            finished_at: None,
            lease_owner: None,
            lease_until: None,
        };
        let item = |(position, target): (i32, &Candidate)| operation_item::Model {
            id: Uuid::now_v7(),
            operation_id: row.id,
            position,
            target_id: target.id,
            amount: target.amount,
            currency: target.currency.clone(),
            state: ItemState::Pending,
            problem: None,
            done_at: None,
            at_stripe: None,
            stripe_detail: None,
        };
        let items: Vec<operation_item::Model> = (0..).zip(&found).map(item).collect();
        let txn = self.store.begin().await?;
        // One after the other: the items' rows point to the operation's.
        let mut writes = Writes::new(&txn);
        writes.insert([&row])?;
        writes.run(&txn).await?;
        let mut writes = Writes::new(&txn);
        writes.insert(&items)?;
        writes.run(&txn).await?;
        self.store.commit(txn, Vec::new()).await?;
        self.operation(row.id)
            .await?
            .ok_or_else(|| LedgerError::NotFound { entity: "operation", id: row.id.to_string() })
    }

    /// How many were tried, and what was refused.
    async fn try_out(&self, action: OperationAction, found: &[Candidate]) -> Result<(i32, Vec<Refusal>), LedgerError> {
        let found: Vec<Uuid> = found.iter().take(CHECKED).map(|row| row.id).collect();
        let mut refusals: BTreeMap<String, Refusal> = BTreeMap::new();
        for ids in found.chunks(AT_ONCE) {
            let note = Note::new("preview", "rolled back");
            let changes: Vec<ItemChange> =
                self.acts(action, ids, &note).await?.into_iter().map(|act| ItemChange { act, item: None }).collect();
            for (id, answer) in ids.iter().zip(self.store.apply_all(&changes, false).await) {
                let Err(error) = answer else { continue };
                if let LedgerError::Database(error) = error {
                    return Err(error.into());
                }
                if !is_refusal(&error) {
                    continue;
                }
                let reason = normalized(&error.to_string());
                let new = || Refusal { reason: reason.clone(), count: 0, example: *id };
                refusals.entry(reason.clone()).or_insert_with(new).count += 1;
            }
        }
        let checked = i32::try_from(found.len()).unwrap_or(i32::MAX);
        Ok((checked, refusals.into_values().collect()))
    }

    /// What is to be done with each of these rows, in their order.
    pub(super) async fn acts(
        &self,
        action: OperationAction,
        ids: &[Uuid],
        note: &Note,
    ) -> Result<Vec<Act>, LedgerError> {
        let mut claims: HashMap<Uuid, claim::Model> = HashMap::new();
        if action.is_about_claims() {
            let found = rowset::select::<_, claim::Model>(&self.store.writer, "id IN {ids}", ids, &[]).await?;
            claims.extend(found.into_iter().map(|row| (row.id, row)));
        }
        Ok(ids.iter().map(|id| Act::new(action, *id, claims.get(id), note)).collect())
    }
}
