//! Runs of `reconcile` as rows: how far each is, what it compared, and what differs. A page's differences, the counts and the place to
//! go on from are one transaction, so a run that was killed goes on where it was.

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::db::rowset::Writes;
use super::read::{Page, cut};
use super::schema::{reconcile_difference, reconcile_run};
use super::time::now;
use super::{Ledger, LedgerError};

words! {
    /// How far a run is.
    pub enum RunState {
        /// It compares, or its process was killed: `--resume` goes on with it.
        Running,
        /// It could not go on; `problem` says why, and `--resume` tries again.
        Interrupted,
        /// Every transfer was compared. The end.
        Done,
    }
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counts {
    /// Transfers that were compared.
    pub transfers: u64,
    /// Transfers that Stripe can't be asked about: not created there, or from before Clawback's time.
    pub transfers_without_stripe_id: u64,
    /// Reversals that are done on both sides.
    pub agreed: u64,
    /// Reversals that are pending here, and not done there.
    pub on_their_way: u64,
    /// Reversals that the ledger has given up, and that are not at Stripe.
    pub given_up: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.transfers += other.transfers;
        self.transfers_without_stripe_id += other.transfers_without_stripe_id;
        self.agreed += other.agreed;
        self.on_their_way += other.on_their_way;
        self.given_up += other.given_up;
    }
}

/// A run of `reconcile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RunView {
    /// Its id.
    pub id: Uuid,
    /// How far it is.
    pub state: RunState,
    /// Only transfers were compared on which something has happened in the ledger since then; null: all.
    pub since: Option<DateTime<Utc>>,
    /// Whether it records what Stripe has done and the ledger did not say.
    pub fix: bool,
    /// What was compared so far.
    #[serde(flatten)]
    pub counts: Counts,
    /// Differences that were found.
    pub differences: u64,
    /// Those of them that it has recorded.
    pub repaired: u64,
    /// Why it could not go on.
    pub problem: Option<String>,
    /// Who started it.
    pub operator: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it last recorded something.
    pub updated_at: DateTime<Utc>,
    /// When every transfer was compared.
    pub finished_at: Option<DateTime<Utc>>,
    /// The transfer that was compared last.
    #[serde(skip)]
    pub after: Option<Uuid>,
}

/// A difference that a run has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromQueryResult, ToSchema)]
pub struct DifferenceView {
    /// Its id.
    pub id: Uuid,
    /// What differs.
    #[schema(examples("externally_reversed"))]
    pub kind: String,
    /// Clawback's id of the transfer.
    pub transfer_id: Uuid,
    /// Stripe's id of the transfer; empty where there is none.
    pub stripe_transfer_id: String,
    /// Clawback's id of the reversal, where one is concerned.
    pub reversal_id: Option<Uuid>,
    /// Stripe's id of the reversal, where one is concerned.
    pub stripe_reversal_id: Option<String>,
    /// The claim that Stripe's reversal names.
    pub claim: Option<String>,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Minor units according to the ledger; null for what it does not know.
    pub amount_in_ledger: Option<i64>,
    /// Minor units according to Stripe; null for what is not there.
    pub amount_at_stripe: Option<i64>,
    /// In words.
    pub detail: String,
    /// `by_hand`, `possible` (with `--fix`), `done` or `refused`.
    pub repair: String,
    /// When it was found.
    pub found_at: DateTime<Utc>,
}

/// What came of a page of transfers.
#[derive(Debug, Default)]
pub struct RunPage {
    /// The transfer that was compared last.
    pub after: Option<Uuid>,
    /// What was compared.
    pub counts: Counts,
    /// What differs; the ids and times are given by the ledger.
    pub differences: Vec<DifferenceView>,
}

impl Ledger {
    /// Begins a run.
    pub async fn begin_run(
        &self,
        since: Option<DateTime<Utc>>,
        fix: bool,
        operator: &str,
    ) -> Result<RunView, LedgerError> {
        let row = reconcile_run::Model {
            id: Uuid::now_v7(),
            state: RunState::Running,
            since,
            fix,
            after_id: None,
            pages: 0,
            transfers: 0,
            transfers_without_stripe_id: 0,
            agreed: 0,
            on_their_way: 0,
            given_up: 0,
            differences: 0,
            repaired: 0,
            problem: None,
            operator: operator.to_owned(),
            started_at: now(),
            updated_at: now(),
            finished_at: None,
        };
        let txn = self.store.begin().await?;
        let mut writes = Writes::new(&txn);
        writes.insert([&row])?;
        writes.run(&txn).await?;
        self.store.commit(txn, Vec::new()).await?;
        Ok(view(row))
    }

    /// The latest run that did not come to its end.
    pub async fn unfinished_run(&self) -> Result<Option<RunView>, LedgerError> {
        let found = runs(None, 1).filter(reconcile_run::Column::State.ne(RunState::Done));
        Ok(found.one(&self.store.reader).await?.map(view))
    }

    /// Records a page of a run.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when another process goes on with it; [`LedgerError::Database`].
    pub async fn record_page(&self, id: Uuid, page: RunPage) -> Result<RunView, LedgerError> {
        let RunPage { after, counts, differences } = page;
        let before = self.run_row(id).await?;
        if after <= before.after_id {
            return Err(overtaken(id));
        }
        let add = |count: i64, more: u64| count.saturating_add(i64::try_from(more).unwrap_or(i64::MAX));
        let repaired = differences.iter().filter(|difference| difference.repair == "done").count();
        let row = reconcile_run::Model {
            state: RunState::Running,
            after_id: after,
            pages: before.pages + 1,
            transfers: add(before.transfers, counts.transfers),
            transfers_without_stripe_id: add(before.transfers_without_stripe_id, counts.transfers_without_stripe_id),
            agreed: add(before.agreed, counts.agreed),
            on_their_way: add(before.on_their_way, counts.on_their_way),
            given_up: add(before.given_up, counts.given_up),
            differences: add(before.differences, differences.len() as u64),
            repaired: add(before.repaired, repaired as u64),
            problem: None,
            updated_at: now(),
            ..before.clone()
        };
        let differences: Vec<_> = differences.into_iter().map(|found| model(id, found)).collect();
        self.write_run(&before, row, &differences).await
    }

    /// Ends a run, or interrupts it for a reason.
    ///
    /// # Errors
    /// As [`Self::record_page`].
    pub async fn end_run(&self, id: Uuid, problem: Option<String>) -> Result<RunView, LedgerError> {
        let before = self.run_row(id).await?;
        let state = if problem.is_some() { RunState::Interrupted } else { RunState::Done };
        let finished_at = problem.is_none().then(now);
        let row = reconcile_run::Model {
            state,
            problem,
            finished_at,
            pages: before.pages + 1,
            updated_at: now(),
            ..before.clone()
        };
        self.write_run(&before, row, &[]).await
    }

    /// At most `limit` runs, newest first, older than `after`.
    pub async fn reconcile_runs(&self, after: Option<Uuid>, limit: u64) -> Result<Page<RunView>, LedgerError> {
        let found = runs(after, limit.saturating_add(1)).all(&self.store.reader).await?;
        Ok(cut(found.into_iter().map(view).collect(), limit, |run: &RunView| run.id))
    }

    /// The run with this id.
    pub async fn reconcile_run(&self, id: Uuid) -> Result<Option<RunView>, LedgerError> {
        Ok(reconcile_run::Entity::find_by_id(id).one(&self.store.reader).await?.map(view))
    }

    /// At most `limit` differences of a run, in the order in which they were found, after `after`.
    pub async fn run_differences(
        &self,
        run: Uuid,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Page<DifferenceView>, LedgerError> {
        use reconcile_difference::Column as C;
        let found = reconcile_difference::Entity::find()
            .filter(C::RunId.eq(run))
            .apply_if(after, |query, after| query.filter(C::Id.gt(after)))
            .order_by_asc(C::Id)
            .limit(limit.saturating_add(1));
        Ok(cut(found.into_model().all(&self.store.reader).await?, limit, |found: &DifferenceView| found.id))
    }

    async fn run_row(&self, id: Uuid) -> Result<reconcile_run::Model, LedgerError> {
        let found = reconcile_run::Entity::find_by_id(id).one(&self.store.writer).await?;
        found.ok_or_else(|| LedgerError::NotFound { entity: "reconcile run", id: id.to_string() })
    }

    async fn write_run(
        &self,
        before: &reconcile_run::Model,
        row: reconcile_run::Model,
        differences: &[reconcile_difference::Model],
    ) -> Result<RunView, LedgerError> {
        let txn = self.store.begin().await?;
        let mut writes = Writes::new(&txn);
        // Each write counts one page more: of two processes that go on with a run, one notices.
        writes.update(&[reconcile_run::Column::Pages], &[(before, &row)])?;
        writes.insert(differences)?;
        if !writes.run(&txn).await? {
            txn.rollback().await?;
            return Err(overtaken(before.id));
        }
        self.store.commit(txn, Vec::new()).await?;
        Ok(view(row))
    }
}

fn overtaken(id: Uuid) -> LedgerError {
    LedgerError::Conflict(format!(
        "another process goes on with run {id}; `clawback reconcile show {id}` says how far it is"
    ))
}

fn runs(after: Option<Uuid>, limit: u64) -> Select<reconcile_run::Entity> {
    use reconcile_run::Column as C;
    let older = |query: Select<reconcile_run::Entity>, after: Uuid| query.filter(C::Id.lt(after));
    reconcile_run::Entity::find().apply_if(after, older).order_by_desc(C::Id).limit(limit)
}

fn view(row: reconcile_run::Model) -> RunView {
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    RunView {
        id: row.id,
        state: row.state,
        since: row.since,
        fix: row.fix,
        counts: Counts {
            transfers: count(row.transfers),
            transfers_without_stripe_id: count(row.transfers_without_stripe_id),
            agreed: count(row.agreed),
            on_their_way: count(row.on_their_way),
            given_up: count(row.given_up),
        },
        differences: count(row.differences),
        repaired: count(row.repaired),
        problem: row.problem,
        operator: row.operator,
        started_at: row.started_at,
        updated_at: row.updated_at,
        finished_at: row.finished_at,
        after: row.after_id,
    }
}

fn model(run_id: Uuid, found: DifferenceView) -> reconcile_difference::Model {
    reconcile_difference::Model {
        id: Uuid::now_v7(),
        run_id,
        kind: found.kind,
        transfer_id: found.transfer_id,
        stripe_transfer_id: found.stripe_transfer_id,
        reversal_id: found.reversal_id,
        stripe_reversal_id: found.stripe_reversal_id,
        claim: found.claim,
        currency: found.currency,
        amount_in_ledger: found.amount_in_ledger,
        amount_at_stripe: found.amount_at_stripe,
        detail: found.detail,
        repair: found.repair,
        found_at: now(),
    }
}
