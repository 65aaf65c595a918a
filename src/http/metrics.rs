//! `/metrics`: the ledger's totals, queried at each scrape, and this process's own counters.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};

use super::ApiState;
use super::problem::Problem;
use crate::ledger::{Amounts, Totals, WaitingClaims, now};

/// Below Prometheus' default scrape timeout of 10 s.
const DATABASE_TIME_LIMIT: Duration = Duration::from_secs(8);

/// Metrics in Prometheus' text format
///
/// Amounts and counts cover the whole database, whichever process answers. Counters are this process's own.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    operation_id = "metrics",
    responses((status = 200, description = "Prometheus' text format, version 0.0.4.", body = String,
        content_type = "text/plain")),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn show(State(state): State<ApiState>) -> Result<impl IntoResponse, Problem> {
    let totals = tokio::time::timeout(DATABASE_TIME_LIMIT, state.ledger.totals()).await;
    let totals = totals.map_err(|_| Problem::unavailable("the database did not answer in time"))??;
    let mut text = Exposition::default();
    add_ledger(&mut text, &totals, now());
    if let Some(limiter) = &state.limiter {
        let help = "Current limit of this process's calls to Stripe.";
        text.gauge("clawback_stripe_limiter_rate_per_second", help, limiter.per_second());
    }
    if let Some(breaker) = &state.stripe {
        let now = breaker.borrow().to_string();
        let states = ["closed", "half_open", "open"].map(|name| (labels([("state", name)]), u8::from(now == name)));
        text.gauges("clawback_circuit_breaker_state", "1 for the state of this process's circuit breaker.", states);
    }
    let text = text.into_text() + &state.recorder.render();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

fn add_ledger(text: &mut Exposition, totals: &Totals, now: DateTime<Utc>) {
    let by_status = |counts: &BTreeMap<String, u64>| {
        counts.iter().map(|(status, number)| (labels([("status", status)]), *number)).collect::<Vec<_>>()
    };
    text.gauges("clawback_reversals", "Reversals by status.", by_status(&totals.reversals));
    let help = "Amount of the reversals, in minor units of the currency: pending = due now, waiting = due later, \
                parked = failed permanently and still owed, reversed = taken back.";
    text.gauges("clawback_reversal_amount_minor_units", help, totals.amounts.iter().flat_map(amounts));
    let help = "Age of the oldest reversal that is pending or parked; 0 if there is none.";
    text.gauge("clawback_oldest_open_reversal_age_seconds", help, age(totals.oldest_open, now));
    text.gauges("clawback_transfers", "Seller transfers by status.", by_status(&totals.transfers));
    text.gauges("clawback_refunds", "Refunds by status.", by_status(&totals.refunds));
    text.gauges("clawback_disputes", "Disputes by status.", by_status(&totals.disputes));
    let help = "Refunds that need an operator's attention.";
    text.gauge("clawback_refunds_needing_attention", help, totals.refunds_needing_attention);
    let help = "Disputes that need an operator's attention.";
    text.gauge("clawback_disputes_needing_attention", help, totals.disputes_needing_attention);
    let waiting = |value: fn(&WaitingClaims, DateTime<Utc>) -> f64| {
        let labels = |of: &WaitingClaims| {
            labels([("kind", &of.kind.to_string()), ("status", &of.status.to_string()), ("currency", &of.currency)])
        };
        totals.waiting.iter().map(move |of| (labels(of), value(of, now))).collect::<Vec<_>>()
    };
    let help = "Amount of refunds and disputes that take nothing so far and are not acknowledged, in minor units.";
    text.gauges("clawback_waiting_claim_amount_minor_units", help, waiting(|of, _| of.amount));
    let help = "Age of the oldest refund or dispute that takes nothing so far and is not acknowledged.";
    text.gauges("clawback_oldest_waiting_claim_age_seconds", help, waiting(|of, now| age(Some(of.oldest), now)));
    let help = "Committed jobs without a confirm from the broker.";
    text.gauge("clawback_outbox_unpublished", help, totals.unpublished);
    let help = "Age of the oldest committed job without a confirm; 0 if there is none.";
    text.gauge("clawback_outbox_oldest_unpublished_age_seconds", help, age(totals.oldest_unpublished, now));
}

fn amounts((currency, amounts): (&String, &Amounts)) -> [(String, f64); 4] {
    let Amounts { pending, waiting, parked, reversed } = *amounts;
    [("pending", pending), ("waiting", waiting), ("parked", parked), ("reversed", reversed)]
        .map(|(status, amount)| (labels([("status", status), ("currency", currency)]), amount))
}

/// In seconds; 0 when another host's clock puts it in the future.
fn age(since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> f64 {
    since.and_then(|since| (now - since).to_std().ok()).unwrap_or_default().as_secs_f64()
}

/// Prometheus' text format (0.0.4), one metric family at a time.
#[derive(Debug, Default)]
struct Exposition(String);

impl Exposition {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help, [(String::new(), value)]);
    }

    fn gauges<V: Display>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (String, V)>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    fn into_text(self) -> String {
        self.0
    }
}

/// `{name="value"}`. The values are statuses and currencies, which need no escaping.
fn labels<const N: usize>(pairs: [(&str, &str); N]) -> String {
    let pairs = pairs.map(|(name, value)| format!("{name}=\"{value}\""));
    format!("{{{}}}", pairs.join(","))
}
