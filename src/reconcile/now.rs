//! What Stripe says at this moment of debts that an operator is about to act upon: asked in turn, several at a time, and not
//! for longer than somebody waits for a page.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::ledger::{
    About, Call, CreationTarget, Debt, Ledger, LedgerError, OperationAction, OperationFilter, OperationView, Question,
    Said, StripeSays,
};
use crate::stripe::{self, Meaning, Report};
use crate::worker::{Limiter, created, creation_command};

/// What is not answered within this is unknown.
const PATIENCE: Duration = Duration::from_secs(8);
const LATE: &str = "no answer in time";
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

/// By Stripe's id of the transfer, by account (`None`: the platform's), and by Clawback's id of the transfer to create.
#[derive(Debug, Default)]
struct Answers {
    transfers: HashMap<String, Result<Transfer, String>>,
    balances: HashMap<Option<String>, Result<BTreeMap<String, i64>, String>>,
    created: HashMap<Uuid, Result<Option<String>, String>>,
}

/// What is asked once, however many rows are about it.
#[derive(Debug)]
enum Asked {
    Transfer(String),
    Balance(Option<String>),
    Creation(Box<(Call, CreationTarget)>),
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
    let said = stripe.ask(ledger.questions(&previewed).await?).await;
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
        let answers = self.answers(&questions).await;
        judge(questions, &answers)
    }

    /// Each transfer and each account once.
    async fn answers(&self, questions: &[Question]) -> Answers {
        let deadline = Instant::now() + PATIENCE;
        let asked = stream::iter(asked(questions)).map(async |asked| {
            let mut answers = Answers::default();
            match asked {
                Asked::Transfer(id) => {
                    let transfer = self.transfer(&id, deadline).await;
                    answers.transfers.insert(id, transfer);
                }
                Asked::Balance(account) => {
                    let available = self.in_turn(self.client.available(account.as_deref()), deadline).await;
                    answers.balances.insert(account, available);
                }
                Asked::Creation(of) => {
                    let found = self.in_turn(created(&self.client, &of.0, &of.1), deadline).await;
                    answers.created.insert(of.0.id, found.map(|found| found.map(|transfer| transfer.id)));
                }
            }
            answers
        });
        let join = |mut all: Answers, one: Answers| async move {
            all.transfers.extend(one.transfers);
            all.balances.extend(one.balances);
            all.created.extend(one.created);
            all
        };
        asked.buffer_unordered(AT_ONCE).fold(Answers::default(), join).await
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
        let Ok(answer) = timeout_at(deadline, call).await else { return Err(LATE.to_owned()) };
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

fn asked(questions: &[Question]) -> Vec<Asked> {
    let (mut transfers, mut balances, mut asked) = (HashSet::new(), HashSet::new(), Vec::new());
    for question in questions {
        match &question.about {
            About::Debts { debts, .. } => {
                for debt in debts {
                    let Some(id) = &debt.stripe_transfer_id else { continue };
                    asked.extend(transfers.insert(id).then(|| Asked::Transfer(id.clone())));
                    let account = Some(&debt.destination);
                    asked.extend(balances.insert(account).then(|| Asked::Balance(account.cloned())));
                }
            }
            About::Creation(of) => {
                asked.push(Asked::Creation(of.clone()));
                asked.extend(balances.insert(None).then_some(Asked::Balance(None)));
            }
        }
    }
    asked
}

/// In their order: what an earlier row takes, is not there for a later one.
fn judge(questions: Vec<Question>, answers: &Answers) -> Vec<Said> {
    let mut judge = Judge { answers, taken: HashMap::new() };
    let answered = |question: Question| {
        let (says, detail) = match &question.about {
            About::Debts { claim, debts } => judge.debts(claim, debts),
            About::Creation(of) => judge.creation(&of.0, &of.1),
        };
        Said { question, says, detail }
    };
    questions.into_iter().map(answered).collect()
}

type Word = (StripeSays, Option<String>);

struct Judge<'a> {
    answers: &'a Answers,
    /// By earlier rows, from transfers and balances.
    taken: HashMap<String, i64>,
}

impl Judge<'_> {
    /// The worst of all.
    fn debts(&mut self, claim: &str, debts: &[Debt]) -> Word {
        let said: Vec<Word> = debts.iter().map(|debt| self.debt(claim, debt)).collect();
        let has = |word| said.iter().any(|(says, _)| *says == word);
        let says = match said.as_slice() {
            [] => return (StripeSays::Unknown, Some("nothing is known that it would take from".to_owned())),
            [(says, _)] => *says,
            all if all.iter().all(|(says, _)| *says == StripeSays::AlreadyReversed) => StripeSays::AlreadyReversed,
            _ if has(StripeSays::Unknown) => StripeSays::Unknown,
            _ if has(StripeSays::ShortOfBalance) => StripeSays::ShortOfBalance,
            _ if has(StripeSays::LessLeft) || has(StripeSays::AlreadyReversed) => StripeSays::LessLeft,
            _ => StripeSays::Ready,
        };
        let details: Vec<String> = said.into_iter().filter_map(|(_, detail)| detail).collect();
        (says, (!details.is_empty()).then(|| details.join("; ")))
    }

    fn debt(&mut self, claim: &str, debt: &Debt) -> Word {
        let Debt { destination: account, amount, currency, .. } = debt;
        let Some(id) = &debt.stripe_transfer_id else {
            return (StripeSays::Unknown, Some("its transfer does not exist at Stripe".to_owned()));
        };
        let transfer = match self.answers.transfers.get(id) {
            None => return (StripeSays::Unknown, Some(LATE.to_owned())),
            Some(Err(why)) => return (StripeSays::Unknown, Some(why.clone())),
            Some(Ok(transfer)) => transfer,
        };
        if let Some(reversal) = transfer.reversed_for.get(claim) {
            return (StripeSays::AlreadyReversed, Some(format!("done as {reversal}")));
        }
        match transfer.left - self.taken(id) {
            ..=0 => return (StripeSays::AlreadyReversed, Some(format!("nothing is left of {id}"))),
            left if left < *amount => return (StripeSays::LessLeft, Some(format!("{left} {currency} left of {id}"))),
            _ => {}
        }
        let word = self.balance(Some(account), account, *amount, currency);
        if word.0 == StripeSays::Ready {
            *self.taken.entry(id.clone()).or_default() += amount;
        }
        match word {
            (StripeSays::Unknown, Some(why)) => (StripeSays::Unknown, Some(format!("enough is left; {why}"))),
            word => word,
        }
    }

    fn creation(&mut self, call: &Call, target: &CreationTarget) -> Word {
        match self.answers.created.get(&call.id) {
            None => return (StripeSays::Unknown, Some(LATE.to_owned())),
            Some(Err(why)) => return (StripeSays::Unknown, Some(why.clone())),
            Some(Ok(Some(id))) => return (StripeSays::AlreadyCreated, Some(format!("it exists as {id}"))),
            Some(Ok(None)) => {}
        }
        match creation_command(call, target).source_transaction().is_some() {
            // Which may pay it before the money is available.
            true => (StripeSays::Ready, None),
            false => self.balance(None, "the platform", target.amount, &target.currency),
        }
    }

    /// Takes `amount` from the balance, if that has it.
    fn balance(&mut self, account: Option<&str>, name: &str, amount: i64, currency: &str) -> Word {
        let purse = format!("{name} {currency}");
        let available = match self.answers.balances.get(&account.map(str::to_owned)) {
            Some(Ok(of)) => of.get(currency).copied().unwrap_or_default() - self.taken(&purse),
            unknown => {
                let why = unknown.and_then(|answer| answer.as_ref().err()).map_or(LATE, String::as_str);
                return (StripeSays::Unknown, Some(format!("the balance of {name}: {why}")));
            }
        };
        if available < amount {
            return (StripeSays::ShortOfBalance, Some(format!("{name} has {} {currency}", available.max(0))));
        }
        *self.taken.entry(purse).or_default() += amount;
        (StripeSays::Ready, None)
    }

    fn taken(&self, what: &str) -> i64 {
        self.taken.get(what).copied().unwrap_or_default()
    }
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
