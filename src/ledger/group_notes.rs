//! What operators say about a group of failures: "asked Stripe, ticket 4711". Notes are only ever added.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::db::rowset::Writes;
use super::history::Note;
use super::read::Query;
use super::schema::group_note;
use super::status::CallKind;
use super::time::now;
use super::{Ledger, LedgerError};

/// So many of a group are shown, the newest.
const SHOWN: usize = 3;

/// A note on a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromQueryResult, ToSchema)]
pub struct GroupNote {
    /// What is to be known.
    pub text: String,
    /// Who wrote it.
    pub operator: String,
    /// When.
    pub created_at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct Noted {
    group_key: String,
    #[sea_orm(nested)]
    note: GroupNote,
}

impl Ledger {
    /// Adds a note to a group of failures of this kind; `note` is who, and the text.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when there is no such group now; [`LedgerError::Database`].
    pub async fn note_on_group(&self, kind: CallKind, key: &str, note: &Note) -> Result<GroupNote, LedgerError> {
        let groups = self.failure_groups(kind).await?;
        if !groups.groups.iter().any(|group| group.key == key) {
            return Err(LedgerError::NotFound { entity: "group of failures", id: key.to_owned() });
        }
        let row = group_note::Model {
            id: Uuid::now_v7(),
            group_key: key.to_owned(),
            text: note.reason.clone(),
            operator: note.actor.clone(),
            created_at: now(),
        };
        let txn = self.store.begin().await?;
        let mut writes = Writes::new(&txn);
        writes.insert([&row])?;
        writes.run(&txn).await?;
        self.store.commit(txn, Vec::new()).await?;
        self.figures.forget_groups().await;
        Ok(GroupNote { text: row.text, operator: row.operator, created_at: row.created_at })
    }

    /// The newest notes of each of these groups.
    pub(in crate::ledger) async fn group_notes(
        &self,
        keys: &[&str],
    ) -> Result<HashMap<String, Vec<GroupNote>>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let among = query.among_texts("group_key", keys);
        let sql =
            format!("SELECT group_key, text, operator, created_at FROM group_notes WHERE {among} ORDER BY id DESC");
        let mut notes: HashMap<String, Vec<GroupNote>> = HashMap::new();
        for Noted { group_key, note } in query.all(db, sql).await? {
            let of_group = notes.entry(group_key).or_default();
            if of_group.len() < SHOWN {
                of_group.push(note);
            }
        }
        Ok(notes)
    }
}
