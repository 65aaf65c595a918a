//! What Stripe says at this moment of debts that an operator is about to act upon: asked in turn, several at a time, and not
//! for longer than somebody waits for a page.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use crate::ledger::{Ledger, LedgerError, OperationAction, OperationFilter, OperationView, Question, Said, StripeSays};
use crate::stripe::{self, Meaning, Report};
use crate::worker::Limiter;

/// What is not answered within this is unknown.
const PATIENCE: Duration = Duration::from_secs(8);
/// Questions under way: the worker's calls get their turns between them.
const AT_ONCE: usize = 8;

/// Stripe, asked no faster than this process may.
#[derive(Clone, Debug)]
pub struct StripeNow {
    /// The one client of this process.
    pub client: stripe::Client,
    /// The turns that it shares with the worker, if there is one.
    pub limiter: Arc<Limiter>,
}

/// What Stripe has of a transfer.
#[derive(Clone, Debug)]
struct Transfer {
    left: i64,
    /// The claims that it was reversed for by us, each with the reversal's id.
    reversed_for: HashMap<String, String>,
}

#[derive(Debug)]
enum Answer {
    Transfer(String, Result<Transfer, String>),
    Balance(String, Result<BTreeMap<String, i64>, String>),
}

/// Previews an operation, and asks Stripe about its first rows. Without Stripe they say nothing about it.
///
/// # Errors
/// As [`Ledger::preview_operation`]. A Stripe that does not answer is none: it makes rows unknown.
pub async fn preview(
    ledger: &Ledger,
    stripe: Option<&StripeNow>,
    action: OperationAction,
    filter: &OperationFilter,
) -> Result<OperationView, LedgerError> {
    let previewed = ledger.preview_operation(action, filter).await?;
    let Some(stripe) = stripe.filter(|_| action.asks_stripe() && previewed.items > 0) else { return Ok(previewed) };
    let said = stripe.ask(ledger.questions(previewed.id).await?).await;
    ledger.record_said(said).await?;
    Ok(ledger.operation(previewed.id).await?.unwrap_or(previewed))
}

impl StripeNow {
    /// What is left of a transfer (`tr_…`), in minor units.
    ///
    /// # Errors
    /// For people: why nobody can say.
    pub async fn left(&self, transfer: &str) -> Result<i64, String> {
        let found = self.in_turn(self.client.get_transfer(transfer), Instant::now() + PATIENCE).await?;
        Ok(found.amount - found.amount_reversed)
    }

    async fn ask(&self, questions: Vec<Question>) -> Vec<Said> {
        let (transfers, balances) = self.answers(&questions).await;
        judge(questions, &transfers, &balances)
    }

    /// Each transfer and each account once.
    async fn answers(
        &self,
        questions: &[Question],
    ) -> (HashMap<String, Result<Transfer, String>>, HashMap<String, Result<BTreeMap<String, i64>, String>>) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = HashSet::new();
        let ids = questions.iter().filter(|question| question.stripe_transfer_id.is_some());
        let ids = ids.flat_map(|question| question.stripe_transfer_id.iter().chain([&question.destination]));
        let ids: Vec<String> = ids.filter(|id| seen.insert(*id)).cloned().collect();
        let asked = stream::iter(ids).map(async |id| match id.starts_with("acct_") {
            false => {
                let answer = self.transfer(&id, deadline).await;
                Answer::Transfer(id, answer)
            }
            true => {
                let answer = self.in_turn(self.client.available(&id), deadline).await;
                Answer::Balance(id, answer)
            }
        });
        let (mut transfers, mut balances) = (HashMap::new(), HashMap::new());
        for answer in asked.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
            match answer {
                Answer::Transfer(id, answer) => drop(transfers.insert(id, answer)),
                Answer::Balance(id, answer) => drop(balances.insert(id, answer)),
            }
        }
        (transfers, balances)
    }

    async fn transfer(&self, id: &str, deadline: Instant) -> Result<Transfer, String> {
        let found = self.in_turn(self.client.get_transfer(id), deadline).await?;
        let reversals = match found.amount_reversed {
            0 => Vec::new(),
            _ => self.in_turn(self.client.list_reversals(id), deadline).await?.items,
        };
        let ours = reversals.into_iter().filter(|reversal| reversal.counts());
        let reversed_for =
            ours.filter_map(|reversal| Some((reversal.claim()?.to_owned(), reversal.id.clone()))).collect();
        Ok(Transfer { left: found.amount - found.amount_reversed, reversed_for })
    }

    async fn in_turn<T>(&self, call: impl Future<Output = Result<T, Report>>, deadline: Instant) -> Result<T, String> {
        let patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() || self.limiter.turn_within(patience).await.is_err() {
            return Err("not asked: Stripe's rate and the time left no room for it".to_owned());
        }
        let Ok(answer) = timeout_at(deadline, call).await else { return Err("no answer in time".to_owned()) };
        match answer {
            Ok(found) => {
                self.limiter.raise();
                Ok(found)
            }
            Err(report) => {
                if report.meaning == Meaning::RateLimited {
                    self.limiter.halve(report.retry_after);
                }
                Err(report.message)
            }
        }
    }
}

/// In their order: what an earlier row takes, is not there for a later one.
fn judge(
    questions: Vec<Question>,
    transfers: &HashMap<String, Result<Transfer, String>>,
    balances: &HashMap<String, Result<BTreeMap<String, i64>, String>>,
) -> Vec<Said> {
    let mut taken: HashMap<String, i64> = HashMap::new();
    let mut of_row = |question: &Question| {
        let Some(id) = &question.stripe_transfer_id else {
            return (StripeSays::Unknown, Some("its transfer does not exist at Stripe".to_owned()));
        };
        let transfer = match transfers.get(id) {
            None => return (StripeSays::Unknown, Some("no answer in time".to_owned())),
            Some(Err(why)) => return (StripeSays::Unknown, Some(why.clone())),
            Some(Ok(transfer)) => transfer,
        };
        if let Some(reversal) = transfer.reversed_for.get(&question.claim) {
            return (StripeSays::AlreadyReversed, Some(format!("done as {reversal}")));
        }
        let (amount, currency) = (question.amount(), question.currency());
        match transfer.left - taken.get(id).copied().unwrap_or_default() {
            ..=0 => return (StripeSays::AlreadyReversed, Some(format!("nothing is left of {id}"))),
            left if left < amount => return (StripeSays::LessLeft, Some(format!("{left} {currency} left of {id}"))),
            _ => {}
        }
        let account = &question.destination;
        let purse = format!("{account} {currency}");
        let available = match balances.get(account) {
            Some(Ok(of)) => {
                of.get(currency).copied().unwrap_or_default() - taken.get(&purse).copied().unwrap_or_default()
            }
            unknown => {
                let why = unknown.and_then(|answer| answer.as_ref().err()).map_or("no answer in time", String::as_str);
                return (StripeSays::Unknown, Some(format!("enough is left; the balance of {account}: {why}")));
            }
        };
        if available < amount {
            return (StripeSays::ShortOfBalance, Some(format!("{account} has {} {currency}", available.max(0))));
        }
        for what in [id.clone(), purse] {
            *taken.entry(what).or_default() += amount;
        }
        (StripeSays::Ready, None)
    };
    let answered = |question: Question| {
        let (says, detail) = of_row(&question);
        Said { question, says, detail }
    };
    questions.into_iter().map(answered).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    /// The clock goes on by itself while everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_stripe_that_does_not_answer_is_waited_for_no_longer_than_a_page_may_take() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let client = stripe::Client::new(base, "sk_test_x".to_owned().into(), None).unwrap();
        let stripe = StripeNow { client, limiter: Arc::new(Limiter::new(100)) };
        let start = Instant::now();
        assert_eq!(stripe.left("tr_1").await, Err("no answer in time".to_owned()));
        assert_eq!(start.elapsed(), PATIENCE);
        assert!(stripe.in_turn(stripe.client.get_transfer("tr_1"), start).await.unwrap_err().starts_with("not asked"));
    }
}
