//! What failed permanently and is still owed, in groups of one cause: the failure's words without the ids, amounts and numbers
//! in them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Sum;
use super::query::Query;
use super::sellers::OPEN;
use crate::ledger::status::CallKind;
use crate::ledger::time::now;
use crate::ledger::{GroupNote, Ledger, LedgerError};

/// The most failures that are looked at, oldest first.
const LOOKED_AT: usize = 100_000;
/// How many reversals, transfers or sellers a group names.
const NAMED: usize = 5;
/// A word of a message that stands for an id, an amount or a number.
const PLACEHOLDER: &str = "…";

/// The groups, the largest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailureGroups {
    /// When they were computed: some seconds ago at most.
    pub as_of: DateTime<Utc>,
    /// False when there are more failures than are looked at (100,000).
    pub complete: bool,
    /// Each with another cause.
    pub groups: Vec<FailureGroup>,
}

/// Failures of one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailureGroup {
    /// Names the group: the same cause always has the same key.
    #[schema(examples("3f6c1a0b2d4e"))]
    pub key: String,
    /// The code of the failure: Stripe's or ours.
    #[schema(examples("resource_missing"))]
    pub failure_code: String,
    /// The failure in words, with `…` for each id, amount and number.
    #[schema(examples("No such transfer: '…'"))]
    pub reason: String,
    /// How many failed.
    pub count: i64,
    /// How much that is, in each currency.
    pub sums: Vec<CurrencySum>,
    /// How many sellers are concerned.
    pub sellers: u64,
    /// Some of them.
    pub some_sellers: Vec<String>,
    /// Clawback's ids of some of the reversals, or transfers, oldest first.
    pub some_ids: Vec<Uuid>,
    /// When the first of them failed.
    pub oldest: DateTime<Utc>,
    /// When the last of them failed.
    pub newest: DateTime<Utc>,
    /// What operators say about it, the newest 3.
    pub notes: Vec<GroupNote>,
    /// All of them.
    #[serde(skip)]
    pub(super) ids: Arc<[Uuid]>,
}

/// A sum in one currency, in its minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CurrencySum {
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// How many, and how much.
    #[serde(flatten)]
    pub sum: Sum,
}

#[derive(FromQueryResult)]
struct Failure {
    id: Uuid,
    amount: i64,
    currency: String,
    seller_id: String,
    failure_code: Option<String>,
    failure_message: Option<String>,
    failed_at: DateTime<Utc>,
}

impl Ledger {
    /// What failed permanently and is still owed, by cause: reversals, or transfers to create. Computed at most every few
    /// seconds. Look-ups and events are of no amount and in no group.
    pub async fn failure_groups(&self, kind: CallKind) -> Result<Arc<FailureGroups>, LedgerError> {
        let figure = match kind {
            CallKind::Create => &self.figures.transfer_groups,
            CallKind::Reverse | CallKind::LookUp | CallKind::Notify => &self.figures.reversal_groups,
        };
        figure.get(self.compute_groups(kind)).await
    }

    async fn compute_groups(&self, kind: CallKind) -> Result<FailureGroups, LedgerError> {
        let as_of = now();
        let failures = self.failures(kind).await?;
        let complete = failures.len() <= LOOKED_AT;
        let mut groups: HashMap<(String, String), Vec<Failure>> = HashMap::new();
        for failure in failures.into_iter().take(LOOKED_AT) {
            let code = failure.failure_code.clone().unwrap_or_default();
            let reason = normalized(failure.failure_message.as_deref().unwrap_or_default());
            groups.entry((code, reason)).or_default().push(failure);
        }
        let mut groups: Vec<FailureGroup> =
            groups.into_iter().filter_map(|((code, reason), of)| group(code, reason, &of)).collect();
        let keys: Vec<&str> = groups.iter().map(|group| group.key.as_str()).collect();
        let mut notes = self.group_notes(&keys).await?;
        for group in &mut groups {
            group.notes = notes.remove(&group.key).unwrap_or_default();
        }
        groups.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.key.cmp(&other.key)));
        Ok(FailureGroups { as_of, complete, groups })
    }

    /// Oldest first.
    async fn failures(&self, kind: CallKind) -> Result<Vec<Failure>, LedgerError> {
        let db = &self.store.reader;
        let limit = LOOKED_AT + 1;
        let columns = "c.failure_code, c.failure_message, c.updated_at AS failed_at";
        let sql = match kind {
            CallKind::Create => format!(
                "SELECT c.id, t.amount - t.withheld AS amount, t.currency, t.seller_id, {columns}
                FROM calls c JOIN seller_transfers t ON t.id = c.id
                WHERE c.kind = 'create' AND c.state = 'failed' ORDER BY c.id LIMIT {limit}"
            ),
            CallKind::Reverse | CallKind::LookUp | CallKind::Notify => format!(
                "SELECT c.id, r.amount, r.currency, r.seller_id, {columns}
                FROM calls c JOIN reversals r ON r.id = c.id
                WHERE c.kind = 'reverse' AND c.state = 'failed' AND r.status IN ('permanently_failed') AND {OPEN}
                ORDER BY c.id LIMIT {limit}"
            ),
        };
        Ok(Query::new(db).all(db, sql).await?)
    }
}

fn group(failure_code: String, reason: String, of: &[Failure]) -> Option<FailureGroup> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for failure in of {
        let sum = sums.entry(&failure.currency).or_default();
        sum.count += 1;
        sum.amount = sum.amount.saturating_add(failure.amount);
    }
    let sellers: BTreeSet<&str> = of.iter().map(|failure| failure.seller_id.as_str()).collect();
    Some(FailureGroup {
        key: key(&failure_code, &reason),
        failure_code,
        reason,
        count: i64::try_from(of.len()).unwrap_or(i64::MAX),
        sums: sums.into_iter().map(|(currency, sum)| CurrencySum { currency: currency.to_owned(), sum }).collect(),
        sellers: sellers.len() as u64,
        some_sellers: sellers.into_iter().take(NAMED).map(ToOwned::to_owned).collect(),
        some_ids: of.iter().take(NAMED).map(|failure| failure.id).collect(),
        oldest: of.iter().map(|failure| failure.failed_at).min()?,
        newest: of.iter().map(|failure| failure.failed_at).max()?,
        notes: Vec::new(),
        ids: of.iter().map(|failure| failure.id).collect(),
    })
}

/// The key of the group that a failure belongs to.
pub(in crate::ledger) fn group_key(failure_code: Option<&str>, failure_message: Option<&str>) -> String {
    key(failure_code.unwrap_or_default(), &normalized(failure_message.unwrap_or_default()))
}

fn key(failure_code: &str, reason: &str) -> String {
    let mut digest = hex::encode(Sha256::digest(format!("{failure_code}\n{reason}")));
    digest.truncate(12);
    digest
}

/// `message` with [`PLACEHOLDER`] for each word that has a digit in it: ids, amounts, times and numbers.
pub(in crate::ledger) fn normalized(message: &str) -> String {
    let is_of_word = |letter: char| letter.is_alphanumeric() || "_-.,:/".contains(letter);
    let mut reason = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(letter) = rest.chars().next() {
        let end = rest.find(|letter| !is_of_word(letter)).unwrap_or(rest.len());
        if end == 0 {
            reason.push(letter);
            rest = &rest[letter.len_utf8()..];
            continue;
        }
        // Punctuation at the end of a word belongs to the sentence.
        let word = rest[..end].trim_end_matches(['-', '.', ',', ':', '/']);
        match word.contains(|letter: char| letter.is_ascii_digit()) {
            true => reason.push_str(PLACEHOLDER),
            false => reason.push_str(word),
        }
        reason.push_str(&rest[word.len()..end]);
        rest = &rest[end..];
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_amounts_and_numbers_are_taken_out_of_a_message() {
        for (message, reason) in [
            ("No such transfer: 'tr_1Qx4'", "No such transfer: '…'"),
            ("No such destination: acct_1.", "No such destination: …."),
            ("Reversal amount (€6,000.00) is greater than (600)", "Reversal amount (€…) is greater than (…)"),
            ("no answer from https://api.stripe.com:443/v1/transfers, again", "no answer from …, again"),
            ("gone since 2026-11-01T09:30:00Z: ask", "gone since …: ask"),
            ("Ünïcode stays, 한글 too", "Ünïcode stays, 한글 too"),
            ("…-.", "…-."),
            ("", ""),
        ] {
            assert_eq!(normalized(message), reason);
        }
        let key = |message| group_key(Some("resource_missing"), Some(message));
        assert_eq!(key("No such transfer: 'tr_1'"), key("No such transfer: 'tr_2'"));
        assert_ne!(key("No such transfer: 'tr_1'"), key("No such account: 'tr_1'"));
        assert_eq!(key("x").len(), 12);
    }
}
