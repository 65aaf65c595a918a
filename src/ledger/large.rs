//! Large amounts: an operator types them before they are replayed, over whatever door.

use std::collections::BTreeMap;

use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::input::FieldProblem;
use super::read::Query;
use super::status::CallKind;
use super::{Ledger, LedgerError};

#[derive(FromQueryResult)]
struct Amount {
    currency: String,
    amount: i64,
}

impl Ledger {
    /// The same, which has replays of `amount` minor units of one currency, or more, confirmed; 0: none.
    #[must_use]
    pub fn confirming_from(self, amount: u32) -> Self {
        Self { large_amount: amount, ..self }
    }

    /// What must be typed before these amounts are replayed, as `1200000 eur, 2000000 usd`: the currencies of which it is much in
    /// all. `None` when there is none.
    #[must_use]
    pub fn to_confirm<'a>(&self, amounts: impl IntoIterator<Item = (&'a str, i64)>) -> Option<String> {
        let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
        for (currency, amount) in amounts {
            let sum = sums.entry(currency).or_default();
            *sum = sum.saturating_add(amount);
        }
        let is_large = |sum: i64| self.large_amount > 0 && sum >= i64::from(self.large_amount);
        let large = sums.into_iter().filter(|(_, sum)| is_large(*sum));
        let large: Vec<String> = large.map(|(currency, sum)| format!("{sum} {currency}")).collect();
        (!large.is_empty()).then(|| large.join(", "))
    }

    /// Checks that what must be typed was.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`], which says what to type in `confirm_amount`.
    pub fn check_confirmed(&self, needed: Option<&str>, typed: Option<&str>) -> Result<(), LedgerError> {
        let Some(needed) = needed else { return Ok(()) };
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
        if typed.is_some_and(|typed| words(typed) == needed) {
            return Ok(());
        }
        let must = format!("{needed:?}, typed, since that is a large amount");
        let got = typed.map_or_else(|| "nothing".to_owned(), |typed| format!("{:?}", super::input::shown(typed)));
        Err(LedgerError::Invalid(vec![FieldProblem::new("confirm_amount", format!("must be {must} (got {got})"))]))
    }

    /// What must be typed before the calls of these reversals, or transfers to create, are replayed: all of them at once.
    pub async fn to_confirm_of(&self, ids: &[Uuid]) -> Result<Option<String>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let (reversals, transfers) = (query.among_ids("r.id", ids), query.among_ids("t.id", ids));
        let sql = format!(
            "SELECT r.currency, r.amount FROM reversals r WHERE {reversals}
            UNION ALL SELECT t.currency, t.amount - t.withheld AS amount FROM seller_transfers t WHERE {transfers}"
        );
        let amounts: Vec<Amount> = query.all(db, sql).await?;
        Ok(self.to_confirm(amounts.iter().map(|of| (of.currency.as_str(), of.amount))))
    }

    /// Checks that what must be typed was, before one row is replayed; `id` is Clawback's or Stripe's, `part` what of it is taken.
    ///
    /// # Errors
    /// [`LedgerError::Invalid`] and [`LedgerError::Database`]. An id of nothing needs no confirmation: the replay refuses it.
    pub async fn check_replay(
        &self,
        kind: CallKind,
        id: &str,
        part: Option<i64>,
        typed: Option<&str>,
    ) -> Result<(), LedgerError> {
        let id = match self.call_id(kind, id).await {
            Ok(id) => id,
            Err(LedgerError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let needed = match (part, self.to_confirm_of(&[id]).await?) {
            // The part's amount is typed already.
            (Some(part), _) if part < i64::from(self.large_amount) => None,
            (_, needed) => needed,
        };
        self.check_confirmed(needed.as_deref(), typed)
    }
}
