//! Group commit: what arrives while a transaction runs shares the next one, and each caller gets its own answer.

use std::time::Duration;

use sea_orm::{DatabaseTransaction, DbErr};
use tokio::sync::{mpsc, oneshot};

use super::{Store, begin, is_broken, is_read_only, pools, sqlx_error};
use crate::ledger::LedgerError;
use crate::ledger::book::{Book, Reads};
use crate::ledger::schema::outbox;
use crate::ledger::time::in_future;
use crate::reached::reached;

/// Changes in one transaction.
const LARGEST_BATCH: usize = 256;
/// Changes that wait for a transaction. More callers than that wait for a place.
const QUEUE: usize = 1_024;
/// How long a caller waits in all. Payment providers give up soon after.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often a change that conflicts with another process is tried. The second time it nearly always sees what that did.
const TRIES: usize = 3;

/// One change of the ledger, a pure function on the rows that it asks for.
pub(in crate::ledger) trait Change: Send + Sync + 'static {
    /// What its caller wants to know.
    type Answer: Send + 'static;

    /// Names the rows that `apply` will look at.
    fn reads(&self, reads: &mut Reads);

    /// Makes the change in `book`. An error must leave `book` as it was.
    fn apply(&self, book: &mut Book) -> Result<Self::Answer, LedgerError>;
}

type Waiting<C> = (C, oneshot::Sender<Result<<C as Change>::Answer, LedgerError>>);

/// Collects changes and commits them together. Its task ends when the last clone is dropped.
#[derive(Debug)]
pub(in crate::ledger) struct Batcher<C: Change> {
    queue: mpsc::Sender<Waiting<C>>,
}

impl<C: Change> Clone for Batcher<C> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<C: Change> Batcher<C> {
    pub(in crate::ledger) fn start(store: Store) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Waiting<C>>(QUEUE);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(LARGEST_BATCH);
            while waiting.recv_many(&mut batch, LARGEST_BATCH).await > 0 {
                // In a task of its own: a panic loses this batch, and its callers hear so, but not the batches to come.
                if let Err(error) = tokio::spawn(commit(store.clone(), std::mem::take(&mut batch))).await {
                    tracing::error!(%error, "a batch of changes was lost");
                }
            }
        });
        Self { queue }
    }

    /// Has `change` committed with others, and returns its own answer.
    ///
    /// # Errors
    /// The change's own; [`LedgerError::Overloaded`] when the database is too far behind. The change may then still be
    /// committed, so it must be one that is safe to repeat.
    pub(in crate::ledger) async fn submit(&self, change: C) -> Result<C::Answer, LedgerError> {
        let (caller, answer) = oneshot::channel();
        let answered = async {
            self.queue.send((change, caller)).await.ok()?;
            answer.await.ok()
        };
        let Ok(answered) = tokio::time::timeout(PATIENCE, answered).await else {
            reached!("a caller gave up on its batch");
            return Err(LedgerError::Overloaded);
        };
        answered
            .unwrap_or_else(|| Err(DbErr::Custom("the change was not answered; the log says why".to_owned()).into()))
    }
}

/// Commits one batch and answers its callers.
async fn commit<C: Change>(store: Store, batch: Vec<Waiting<C>>) {
    let (changes, callers): (Vec<C>, Vec<_>) = batch.into_iter().unzip();
    let answers = store.apply_all(&changes, true).await;
    let read_only = |answer: &Result<_, _>| matches!(answer, Err(LedgerError::Database(error)) if is_read_only(error));
    if answers.iter().any(read_only) {
        store.drop_idle_connections().await;
    }
    for (caller, answer) in callers.into_iter().zip(answers) {
        // A caller that left finds out what was committed when it reads the rows.
        let _ = caller.send(answer);
    }
}

impl Store {
    pub(in crate::ledger) async fn begin(&self) -> Result<DatabaseTransaction, LedgerError> {
        // A connection that broke since it was used last says so here, and the pool drops it.
        for _ in 0..pools::MOST_WRITER_CONNECTIONS {
            match begin(&self.writer).await {
                Err(error) if is_broken(&error) => {}
                begun => return Ok(begun?),
            }
        }
        Ok(begin(&self.writer).await?)
    }

    /// Commits, and hands `jobs`, which were put into the outbox, to the relay, or wakes it to look for them.
    pub(in crate::ledger) async fn commit(
        &self,
        txn: DatabaseTransaction,
        jobs: Vec<outbox::Model>,
    ) -> Result<(), LedgerError> {
        txn.commit().await?;
        match jobs.first() {
            None => {}
            Some(job) if job.claimed_until.is_some() => self.handoff.hand(jobs),
            Some(_) => self.handoff.wake(),
        }
        Ok(())
    }

    /// Applies `changes` in order, in one transaction if that works, else one by one: one bad row harms no other.
    /// One answer for each. Everything is rolled back unless `keep`.
    pub(in crate::ledger) async fn apply_all<C: Change>(
        &self,
        changes: &[C],
        keep: bool,
    ) -> Vec<Result<C::Answer, LedgerError>> {
        if changes.len() > 1 {
            match self.apply_together(changes, keep).await {
                Ok(answers) => return answers,
                Err(LedgerError::Database(error)) if !is_of_a_change(&error) => {
                    return changes.iter().map(|_| Err(error.clone().into())).collect();
                }
                Err(error) => {
                    reached!("a batch was broken up");
                    tracing::debug!(%error, changes = changes.len(), "batch failed: changes applied one by one");
                }
            }
        }
        let mut answers = Vec::with_capacity(changes.len());
        for change in changes {
            answers.push(self.apply_one(change, keep).await);
        }
        answers
    }

    /// Applies `change` in a transaction of its own, again when another process came in between.
    pub(in crate::ledger) async fn apply<C: Change>(&self, change: &C) -> Result<C::Answer, LedgerError> {
        self.apply_one(change, true).await
    }

    async fn apply_one<C: Change>(&self, change: &C, keep: bool) -> Result<C::Answer, LedgerError> {
        let mut tries = 1;
        loop {
            let answers = self.apply_together(std::slice::from_ref(change), keep).await;
            match answers {
                Err(error) if conflicts(&error) && tries < TRIES => {
                    tracing::info!(%error, "another transaction came first; trying again");
                    tries += 1;
                }
                Err(error) => return Err(error),
                Ok(mut answers) => {
                    let missing = || Err(DbErr::Custom("a change without an answer".to_owned()).into());
                    return answers.pop().unwrap_or_else(missing);
                }
            }
        }
    }

    /// Applies `changes` in one transaction, which is rolled back unless `keep`.
    ///
    /// # Errors
    /// When the batch failed as a whole: nothing was changed.
    async fn apply_together<C: Change>(
        &self,
        changes: &[C],
        keep: bool,
    ) -> Result<Vec<Result<C::Answer, LedgerError>>, LedgerError> {
        let mut reads = Reads::default();
        changes.iter().for_each(|change| change.reads(&mut reads));
        let txn = self.begin().await?;
        let mut book = Book::load(&txn, reads, self).await?;
        let mut answers = Vec::with_capacity(changes.len());
        for change in changes {
            let before = book.changes();
            match change.apply(&mut book) {
                // The next change must not see the half that was done.
                Err(error) if book.changes() > before || conflicts(&error) => return Err(error),
                answer => answers.push(answer),
            }
        }
        let jobs = book.write(&txn, self.handoff.lease(0).map(in_future)).await?;
        if keep {
            self.commit(txn, jobs).await?;
        } else {
            txn.rollback().await?;
        }
        Ok(answers)
    }
}

/// Whether another transaction was faster, so the same change may go through when tried again.
fn conflicts(error: &LedgerError) -> bool {
    match error {
        LedgerError::Retry => true,
        LedgerError::Database(error) => is_conflict(error),
        _ => false,
    }
}

/// SQLSTATE of PostgreSQL: `unique_violation`, `check_violation`, `deadlock_detected`, `serialization_failure`. And SQLite's
/// `SQLITE_CONSTRAINT_PRIMARYKEY`, `…_UNIQUE`, `…_CHECK`.
const CONFLICTS: [&str; 7] = ["23505", "23514", "40P01", "40001", "1555", "2067", "275"];

fn is_conflict(error: &DbErr) -> bool {
    has_code(error, |code| CONFLICTS.contains(&code))
}

/// Classes of SQLSTATE: `data_exception` (text with NUL, a number that is too large) and `program_limit_exceeded`.
const UNSTORABLE: [&str; 2] = ["22", "54"];

/// Whether one change is to blame, so that the others of its batch may go through without it.
pub(in crate::ledger) fn is_of_a_change(error: &DbErr) -> bool {
    // SQLSTATE has five characters, and a code of SQLite's has no more than four.
    let is_unstorable = |code: &str| code.len() == 5 && UNSTORABLE.iter().any(|class| code.starts_with(class));
    is_conflict(error) || has_code(error, is_unstorable)
}

fn has_code(error: &DbErr, is_it: impl Fn(&str) -> bool) -> bool {
    let code = sqlx_error(error).and_then(|error| error.as_database_error()).and_then(|error| error.code());
    code.is_some_and(|code| is_it(&code))
}
