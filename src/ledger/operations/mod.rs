//! Operations: an operator's action on many rows. A preview freezes the set of rows and says what would be refused; once it is
//! started, one process at a time works on that set, each row in the transaction of its own change. So a row is acted upon
//! once, whoever dies on the way and however often it is started.

mod at_stripe;
mod preview;
mod select;
mod view;
mod work;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::EntityTrait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::book::{Book, Reads};
use super::calls::{Close, Replay};
use super::claims::{Decision, What};
use super::db::Change;
use super::db::rowset::Writes;
use super::events::ClaimKind;
use super::history::{self, Note};
use super::input::FieldProblem;
use super::schema::{claim, operation, operation_item};
use super::status::{CallKind, ClaimStatus, ReversalStatus};
use super::time::{self, now};
use super::{Ledger, LedgerError};

pub use at_stripe::{About, Debt, Question, Said, StripeSays, StripeSum};
pub use view::{ItemView, OperationProgress, OperationView, Refusal};
pub use work::{Discarder, Left};

/// The most rows of one operation.
pub const MAX_ITEMS: usize = 10_000;
/// A preview that is older is out of date.
const STARTABLE_FOR: TimeDelta = TimeDelta::hours(24);
/// One that was never started is deleted after this.
pub(in crate::ledger) const PREVIEWS_KEPT_FOR: TimeDelta = TimeDelta::days(7);
/// The longest that an operation may be spread over.
const MAX_SPREAD_SECONDS: i32 = 7 * 24 * 3_600;

words! {
    /// What is done with each row.
    pub enum OperationAction {
        /// Replay reversals that failed permanently.
        ReplayReversals,
        /// Retry creations of transfers that failed permanently.
        RetryTransfers,
        /// Close reversals that failed permanently: their debts were settled elsewhere.
        CloseReversals,
        /// Throw away the parked messages about reversals that failed permanently. The rows stay: they are still owed.
        DiscardMessages,
        /// Let held claims take, and conflicting ones that fit by now.
        AcceptClaims,
        /// Record that nothing more needs to be done about claims.
        AcknowledgeClaims,
    }
}

impl OperationAction {
    /// Whether money is to move, so that large amounts are typed before it.
    fn moves_money(self) -> bool {
        matches!(self, Self::ReplayReversals | Self::RetryTransfers | Self::AcceptClaims)
    }

    /// Whether its rows are refunds and disputes.
    #[must_use]
    pub fn is_about_claims(self) -> bool {
        matches!(self, Self::AcceptClaims | Self::AcknowledgeClaims)
    }
}

words! {
    /// How far an operation is.
    pub enum OperationState {
        /// Nothing is done yet. Starting or aborting it leads out.
        Previewed,
        /// One row after the other is worked on.
        Running,
        /// All rows were worked on, or as many as `cap` says. The end.
        Done,
        /// An operator ended it before. The end.
        Aborted,
    }
}

words! {
    /// What became of a row.
    pub enum ItemState {
        /// Not worked on yet.
        Pending,
        /// Done: what was replayed is on its way.
        Done,
        /// Nothing was changed; `problem` says why.
        Refused,
    }
}

/// Which rows: those that match every condition given, and at least one is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationFilter {
    /// Reversals and transfers that failed with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255, examples("resource_missing"))]
    pub failure_code: Option<String>,
    /// Reversals and transfers of the group with this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub group: Option<String>,
    /// Reversals and transfers of this seller, by the marketplace's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255, examples("s1"))]
    pub seller: Option<String>,
    /// Rows in this currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255, examples("eur"))]
    pub currency: Option<String>,
    /// Failed, or of claims reported, at this time or later: a time, a date, or a duration before now.
    #[serde(default, deserialize_with = "time::deserialize", skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Failed, or of claims reported, before this time: a time, a date, or a duration before now.
    #[serde(default, deserialize_with = "time::deserialize", skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Claims of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ClaimKind>,
    /// Claims with this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ClaimStatus>,
    /// `true`: claims that need attention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<bool>,
    /// These rows, by Clawback's ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 1_000)]
    pub ids: Option<Vec<Uuid>>,
}

impl OperationFilter {
    /// What is wrong with it for this action.
    #[must_use]
    pub fn problems(&self, action: OperationAction) -> Vec<FieldProblem> {
        let Self { failure_code, group, seller, currency, since, until, kind, status, attention, ids } = self;
        let for_claims = action.is_about_claims();
        let of_failures =
            [("failure_code", failure_code.is_some()), ("group", group.is_some()), ("seller", seller.is_some())];
        let of_claims = [("kind", kind.is_some()), ("status", status.is_some()), ("attention", attention.is_some())];
        let of_all = [
            ("currency", currency.is_some()),
            ("since", since.is_some()),
            ("until", until.is_some()),
            ("ids", ids.is_some()),
        ];
        let (fitting, others) =
            if for_claims { (&of_claims[..], &of_failures[..]) } else { (&of_failures[..], &of_claims[..]) };
        let field = |name: &str| format!("filter.{name}");
        let mut problems: Vec<FieldProblem> = others
            .iter()
            .filter(|(_, is_given)| *is_given)
            .map(|(name, _)| FieldProblem::new(field(name), format!("is not a condition of {action}")))
            .collect();
        if !fitting.iter().chain(&of_all).any(|(_, is_given)| *is_given) && problems.is_empty() {
            let names: Vec<&str> = fitting.iter().chain(&of_all).map(|(name, _)| *name).collect();
            problems.push(FieldProblem::new("filter", format!("must have at least one of {}", names.join(", "))));
        }
        for (name, text) in
            [("failure_code", failure_code), ("group", group), ("seller", seller), ("currency", currency)]
        {
            let is_bad = |text: &&String| !(1..=255).contains(&text.len()) || text.contains(char::is_control);
            if let Some(text) = text.as_ref().filter(is_bad) {
                problems.push(FieldProblem::text(field(name), "1 to 255 bytes without control characters", text));
            }
        }
        if *attention == Some(false) {
            problems.push(FieldProblem::new(field("attention"), "must be true, or absent (got false)"));
        }
        if let Some(ids) = ids.as_ref().filter(|ids| !(1..=1_000).contains(&ids.len())) {
            problems.push(FieldProblem::new(field("ids"), format!("must have 1 to 1000 entries (got {})", ids.len())));
        }
        problems
    }
}

/// How a started operation is worked on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Evenly over so many seconds; 0: as fast as it goes.
    pub spread_seconds: i32,
    /// No more rows than this, the oldest first.
    pub cap: Option<i32>,
}

impl Pace {
    /// What is wrong with it.
    #[must_use]
    pub fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        if !(0..=MAX_SPREAD_SECONDS).contains(&self.spread_seconds) {
            let must = format!("must be from 0 to {MAX_SPREAD_SECONDS} (got {})", self.spread_seconds);
            problems.push(FieldProblem::new("spread_seconds", must));
        }
        if let Some(cap @ ..1) = self.cap {
            problems.push(FieldProblem::new("cap", format!("must be a positive integer (got {cap})")));
        }
        problems
    }
}

impl Ledger {
    /// Starts a previewed operation. Some process with this ledger then works on it. `confirmed` is what was typed where the view
    /// says what to `confirm`.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when it was started or aborted before, has no rows, or was
    /// previewed too long ago; [`LedgerError::Invalid`]; [`LedgerError::Database`].
    pub async fn start_operation(
        &self,
        id: Uuid,
        note: &Note,
        pace: Pace,
        confirmed: Option<&str>,
    ) -> Result<(), LedgerError> {
        let problems = pace.problems();
        if !problems.is_empty() {
            return Err(LedgerError::Invalid(problems));
        }
        let row = self.operation_row(id).await?;
        if row.state != OperationState::Previewed {
            return Err(LedgerError::Conflict(format!(
                "operation {id} is {}; only a previewed one is started",
                row.state
            )));
        }
        if row.items == 0 {
            return Err(LedgerError::Conflict(format!("operation {id} has nothing to do: nothing matched its filter")));
        }
        if now() - row.created_at > STARTABLE_FOR {
            let problem = format!("operation {id} was previewed at {}, too long ago; preview it again", row.created_at);
            return Err(LedgerError::Conflict(problem));
        }
        let shown = self.operation(id).await?;
        self.check_confirmed(shown.and_then(|shown| shown.confirm).as_deref(), confirmed)?;
        let started = operation::Model {
            state: OperationState::Running,
            operator: Some(note.actor.clone()),
            reason: Some(note.reason.clone()),
            spread_seconds: pace.spread_seconds,
            cap: pace.cap,
            started_at: Some(now()),
            ..row.clone()
        };
        self.move_operation(&row, &started, note).await?;
        self.store.operation_running.notify_one();
        Ok(())
    }

    /// Ends an operation before it is done. What was done stays.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when it has ended; [`LedgerError::Database`].
    pub async fn abort_operation(&self, id: Uuid, note: &Note) -> Result<(), LedgerError> {
        let row = self.operation_row(id).await?;
        if matches!(row.state, OperationState::Done | OperationState::Aborted) {
            return Err(LedgerError::Conflict(format!("operation {id} is {} already", row.state)));
        }
        let (state, finished_at) = (OperationState::Aborted, Some(now()));
        // Who works on it, or whoever finds it, still throws away the messages of rows that are done: also of those that were done
        // since the row was read.
        let is_discard = row.action == OperationAction::DiscardMessages && row.state == OperationState::Running;
        let lease_owner = is_discard.then(|| row.lease_owner.unwrap_or_default());
        self.move_operation(&row, &operation::Model { state, finished_at, lease_owner, ..row.clone() }, note).await
    }

    async fn operation_row(&self, id: Uuid) -> Result<operation::Model, LedgerError> {
        let found = operation::Entity::find_by_id(id).one(&self.store.writer).await?;
        found.ok_or_else(|| LedgerError::NotFound { entity: "operation", id: id.to_string() })
    }

    /// Writes `to` while the state is still that of `from`, with a row in the history.
    async fn move_operation(
        &self,
        from: &operation::Model,
        to: &operation::Model,
        note: &Note,
    ) -> Result<(), LedgerError> {
        let txn = self.store.begin().await?;
        let mut writes = Writes::new(&txn);
        writes.update(&[operation::Column::State], &[(from, to)])?;
        let before = Some(from.state.to_string());
        writes.insert([&history::row("operation".to_owned(), to.id, before, to.state.to_string(), note, now())])?;
        if !writes.run(&txn).await? {
            txn.rollback().await?;
            let problem = format!("operation {} is no longer {}", from.id, from.state);
            return Err(LedgerError::Conflict(problem));
        }
        self.store.commit(txn, Vec::new()).await
    }
}

/// The change of one row. With an item, the item is done in the same transaction, only once, and only while its operation runs.
#[derive(Debug)]
struct ItemChange {
    act: Act,
    item: Option<operation_item::Model>,
}

#[derive(Debug)]
enum Act {
    Replay(Replay),
    Close(Close),
    Discard(Discard),
    Decide(Decision),
    /// The claim is not there any more.
    Missing(Uuid),
}

/// Records that the parked messages about a reversal are thrown away. Who works on the operation does that once all rows say so.
#[derive(Debug)]
struct Discard {
    id: Uuid,
    note: Note,
}

impl Discard {
    fn apply(&self, book: &mut Book) -> Result<(), LedgerError> {
        let status = book.reversal(self.id)?.status;
        if status != ReversalStatus::PermanentlyFailed {
            return Err(LedgerError::Conflict(format!("reversal {} is {status}; nothing about it is parked", self.id)));
        }
        let note = self.note.because(format!("its parked messages are discarded: {}", self.note.reason));
        book.remark("reversal", self.id, status, &note);
        Ok(())
    }
}

impl Act {
    fn new(action: OperationAction, target: Uuid, claim: Option<&claim::Model>, note: &Note) -> Self {
        match (action, claim) {
            (OperationAction::ReplayReversals, _) => Self::Replay(Replay::of(target, CallKind::Reverse, note)),
            (OperationAction::RetryTransfers, _) => Self::Replay(Replay::of(target, CallKind::Create, note)),
            (OperationAction::CloseReversals, _) => Self::Close(Close::of(target, note)),
            (OperationAction::DiscardMessages, _) => Self::Discard(Discard { id: target, note: note.clone() }),
            (OperationAction::AcceptClaims, Some(claim)) => Self::Decide(Decision::of(claim, What::Accept, note)),
            (OperationAction::AcknowledgeClaims, Some(claim)) => {
                Self::Decide(Decision::of(claim, What::Acknowledge, note))
            }
            (OperationAction::AcceptClaims | OperationAction::AcknowledgeClaims, None) => Self::Missing(target),
        }
    }
}

impl Change for ItemChange {
    /// What is asked of which transfer for an accepted claim.
    type Answer = Vec<(Uuid, i64)>;

    fn reads(&self, reads: &mut Reads) {
        reads.operations.extend(self.item.as_ref().map(|item| item.operation_id));
        match &self.act {
            Act::Replay(replay) => replay.reads(reads),
            Act::Close(close) => close.reads(reads),
            Act::Discard(discard) => drop(reads.calls.insert(discard.id)),
            Act::Decide(decision) => decision.reads(reads),
            Act::Missing(_) => {}
        }
    }

    fn apply(&self, book: &mut Book) -> Result<Self::Answer, LedgerError> {
        // Aborted since its rows were read: they stay as they are.
        if self.item.as_ref().is_some_and(|item| !book.is_running(item.operation_id)) {
            return Ok(Vec::new());
        }
        let mut asked = Vec::new();
        match &self.act {
            Act::Replay(replay) => replay.apply(book).map(drop)?,
            Act::Close(close) => close.apply(book)?,
            Act::Discard(discard) => discard.apply(book)?,
            Act::Decide(decision) => {
                let claim = decision.apply(book)?;
                asked = book.pending_of(claim);
            }
            Act::Missing(id) => return Err(LedgerError::NotFound { entity: "refund or dispute", id: id.to_string() }),
        }
        if let Some(item) = &self.item {
            book.finish_item(item.clone());
        }
        Ok(asked)
    }
}

/// Whether the ledger refused: trying again would change nothing.
fn is_refusal(error: &LedgerError) -> bool {
    !matches!(error, LedgerError::Database(_) | LedgerError::Retry | LedgerError::Overloaded)
}
