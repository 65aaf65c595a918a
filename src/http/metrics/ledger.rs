//! What the ledger says: money, claims, jobs, processes, pauses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::exposition::{Exposition, labels};
use crate::http::ApiState;
use crate::ledger::{
    AtRisk, BreakerState, CurrencySummary, Ledger, LedgerError, OutboxBacklog, ProcessRole, RunState, Situation,
    Summary, Unpaid, now,
};
use crate::operator::survey::{QueueView, Verified};

/// Below Prometheus' default scrape timeout of 10 s.
const DATABASE_TIME_LIMIT: Duration = Duration::from_secs(4);

/// What the last scrape that reached the database found.
#[derive(Clone, Debug, Default)]
pub struct LastKnown(Arc<Mutex<Option<Figures>>>);

#[derive(Clone, Debug)]
struct Figures {
    at: Instant,
    summary: Arc<Summary>,
    situation: Arc<Situation>,
    outbox: OutboxBacklog,
}

impl LastKnown {
    /// What the ledger says now, or said last; and whether it could be asked.
    async fn refresh(&self, ledger: &Ledger) -> (Option<Figures>, bool) {
        let look = Box::pin(async {
            let (summary, situation, outbox) =
                tokio::try_join!(ledger.summary(), ledger.situation(), ledger.outbox_backlog())?;
            Ok::<_, LedgerError>(Figures { at: Instant::now(), summary, situation, outbox })
        });
        let found = tokio::time::timeout(DATABASE_TIME_LIMIT, look).await.ok().and_then(Result::ok);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_up = found.is_some();
        *last = found.or(last.take());
        (last.clone(), is_up)
    }
}

pub(super) async fn add(text: &mut Exposition, state: &ApiState) {
    let (figures, is_up) = state.figures.refresh(&state.ledger).await;
    let help = "1 while the database answers; 0: the ledger's figures are the last known ones.";
    text.gauge("clawback_ledger_up", help, u8::from(is_up));
    let Some(Figures { at, summary, situation, outbox }) = figures else { return };
    let help = "How old the ledger's figures are.";
    text.gauge("clawback_ledger_figures_age_seconds", help, at.elapsed().as_secs_f64());
    let now = now();
    add_money(text, &summary, now);
    add_claims(text, &summary, now);
    text.gauge("clawback_outbox_unpublished", "Committed jobs without a confirm from the broker.", outbox.unpublished);
    let help = "Age of the oldest committed job without a confirm; 0 if there is none.";
    text.gauge("clawback_outbox_oldest_unpublished_age_seconds", help, age(outbox.oldest, now));
    add_situation(text, &situation, now);
    if let Some(looks) = &state.looks {
        let seen = looks.surveys.seen().await;
        let verified = Verified::of(seen.found.as_deref().unwrap_or_default(), None);
        let of = |number: fn(&QueueView) -> Option<u64>| {
            let known = |queue: &QueueView| Some((labels([("queue", &queue.name)]), number(queue)?));
            verified.queues.iter().filter_map(known).collect::<Vec<_>>()
        };
        let help = "Messages of a queue that are ready, by queue. Absent while the broker can't be asked.";
        text.gauges("clawback_queue_messages", help, of(|queue| queue.messages.map(u64::from)));
        let help = "Messages that workers hold, by queue. Absent while the management API can't be asked.";
        text.gauges("clawback_queue_unacknowledged_messages", help, of(|queue| queue.unacknowledged));
        let help = "Consumers of a queue, by queue. 0 for a work queue while the workers wait for Stripe.";
        text.gauges("clawback_queue_consumers", help, of(|queue| queue.consumers.map(u64::from)));
    }
}

fn add_money(text: &mut Exposition, summary: &Summary, now: DateTime<Utc>) {
    let at_risk = || {
        let of =
            |of: &'_ CurrencySummary| of.at_risk.clone().into_iter().map(|risk| (of.currency.clone(), risk)).collect();
        let all: Vec<Vec<(String, AtRisk)>> = summary.currencies.iter().map(of).collect();
        all.into_iter()
            .flatten()
            .map(|(currency, risk)| (labels([("reason", &risk.reason.to_string()), ("currency", &currency)]), risk))
    };
    let help = "What is not back yet, in minor units of the currency, by reason: pending, waiting_for_balance, failed, held, \
                unmatched, conflicting.";
    let amounts = at_risk().map(|(labels, risk)| (labels, risk.amount));
    text.gauges("clawback_at_risk_amount_minor_units", help, amounts);
    let help = "Reversals, or claims, whose money is not back yet, by reason.";
    text.gauges("clawback_at_risk", help, at_risk().map(|(labels, risk)| (labels, risk.count)));
    let help = "Age of the oldest of them, by reason; 0 if there is none.";
    let ages = at_risk().map(|(labels, risk)| (labels, age(risk.oldest, now)));
    text.gauges("clawback_oldest_at_risk_age_seconds", help, ages);
    let help = "Age of the oldest reversal that is still owed; 0 if there is none.";
    let oldest = age(summary.oldest_open.map(|open| open.created_at), now);
    text.gauge("clawback_oldest_open_reversal_age_seconds", help, oldest);
    let taken_back = || {
        summary.currencies.iter().flat_map(|of| {
            [("today", of.taken_back_today), ("7d", of.taken_back_7_days), ("30d", of.taken_back_30_days)]
                .map(|(days, sum)| (labels([("days", days), ("currency", &of.currency)]), sum))
        })
    };
    let help = "What was taken back, in minor units of the currency: today (UTC), and with the 6 or 29 days before.";
    let amounts = taken_back().map(|(labels, sum)| (labels, sum.amount));
    text.gauges("clawback_taken_back_amount_minor_units", help, amounts);
    let help = "Reversals that were made, as above.";
    text.gauges("clawback_taken_back", help, taken_back().map(|(labels, sum)| (labels, sum.count)));
    let help = "From a claim's first report to its reversal at Stripe, over the last 24 hours, by quantile. Absent without any.";
    let took = summary.time_to_reverse.iter().flat_map(|took| {
        [("0.5", took.p50_seconds), ("0.95", took.p95_seconds), ("0.99", took.p99_seconds)]
            .map(|(quantile, seconds)| (labels([("quantile", quantile)]), seconds))
    });
    text.gauges("clawback_time_to_reverse_seconds", help, took);
}

fn add_claims(text: &mut Exposition, summary: &Summary, now: DateTime<Utc>) {
    let help = "Transfers that could not be created: their sellers were not paid.";
    let unpaid = &summary.unpaid;
    text.gauge("clawback_unpaid_transfers", help, unpaid.iter().map(|of| of.transfers).sum::<i64>());
    let help = "Their amount, in minor units of the currency. Absent without any.";
    let amount = |of: &Unpaid| (labels([("currency", &of.currency)]), of.amount);
    text.gauges("clawback_unpaid_amount_minor_units", help, unpaid.iter().map(amount));
    let help = "Age of the oldest of them; 0 if there is none.";
    text.gauge("clawback_oldest_unpaid_age_seconds", help, age(unpaid.iter().map(|of| of.oldest).min(), now));
    let needs = &summary.needs_attention;
    let help = "Refunds that need an operator's attention.";
    text.gauge("clawback_refunds_needing_attention", help, needs.refunds);
    let help = "Disputes that need an operator's attention.";
    text.gauge("clawback_disputes_needing_attention", help, needs.disputes);
    let help = "Age of the oldest claim that needs attention; 0 if there is none.";
    text.gauge("clawback_oldest_attention_age_seconds", help, age(needs.oldest, now));
    if let Some(run) = &summary.last_reconcile {
        let help =
            "When the ledger was last compared with Stripe, in seconds since 1970. Absent before the first time.";
        let at = run.finished_at.unwrap_or(run.updated_at);
        text.gauge("clawback_reconcile_last_run_timestamp_seconds", help, at.timestamp());
        let help = "1 for how far that run is.";
        let states = [RunState::Running, RunState::Interrupted, RunState::Done]
            .map(|state| (labels([("state", &state.to_string())]), u8::from(run.state == state)));
        text.gauges("clawback_reconcile_last_run_state", help, states);
        let help = "Transfers that it has compared.";
        text.gauge("clawback_reconcile_transfers_compared", help, run.counts.transfers);
        let help = "Differences that it has found and not repaired.";
        text.gauge("clawback_reconcile_differences", help, run.differences - run.repaired);
    }
    if let Some(at) = summary.last_webhook_at {
        let help = "When the last webhook was recorded, in seconds since 1970. Absent before the first.";
        text.gauge("clawback_last_webhook_timestamp_seconds", help, at.timestamp());
    }
}

fn add_situation(text: &mut Exposition, situation: &Situation, now: DateTime<Utc>) {
    let Situation { processes, pauses } = situation;
    let alive = [ProcessRole::Run, ProcessRole::Serve, ProcessRole::Worker].map(|role| {
        let number = processes.alive.iter().filter(|process| process.role == role).count();
        (labels([("role", &role.to_string())]), number)
    });
    text.gauges("clawback_processes_alive", "Running processes by role.", alive);
    let help = "Processes that were heard of within the last hour, and neither now nor to say that they stop.";
    text.gauge("clawback_processes_missing", help, processes.missing.len());
    let workers = [BreakerState::Closed, BreakerState::HalfOpen, BreakerState::Open].map(|state| {
        let number = processes.workers().filter(|process| process.breaker == Some(state)).count();
        (labels([("state", &state.to_string())]), number)
    });
    text.gauges(
        "clawback_workers",
        "Processes alive that call Stripe, by the state of their circuit breaker.",
        workers,
    );
    let help = "For how long Stripe has not been usable for a worker; 0 while it is.";
    let since = processes.outage().and_then(|process| process.outage_since);
    text.gauge("clawback_outage_age_seconds", help, age(since, now));
    let everything = pauses.iter().filter(|pause| pause.seller.is_none()).count();
    let paused = [("everything", everything), ("seller", pauses.len() - everything)];
    let paused = paused.map(|(what, number)| (labels([("what", what)]), number));
    text.gauges("clawback_pauses", "Pauses by operators that are in force.", paused);
    let help = "Age of the oldest pause in force; 0 if there is none.";
    text.gauge("clawback_oldest_pause_age_seconds", help, age(pauses.first().map(|pause| pause.created_at), now));
}

/// In seconds; 0 when another host's clock puts it in the future.
fn age(since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> f64 {
    since.and_then(|since| (now - since).to_std().ok()).unwrap_or_default().as_secs_f64()
}
