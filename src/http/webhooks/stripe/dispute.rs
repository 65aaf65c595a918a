//! Reads a dispute in an event of Stripe's. Pure. Shape: docs.stripe.com/api/disputes/object.

use chrono::DateTime;
use serde::Deserialize;
use serde_json::Value;

use crate::http::webhooks::reading::{MalformedEvent, currency, identifier, irrelevant, positive, read};
use crate::ledger::{DisputeEvent, DisputeStage, EventContent};
use crate::reference::Reference;

/// Says no more than the dispute itself.
pub(super) const UPDATED: &str = "charge.dispute.updated";
const FUNDS_WITHDRAWN: &str = "charge.dispute.funds_withdrawn";
const FUNDS_REINSTATED: &str = "charge.dispute.funds_reinstated";

/// The events that report a dispute.
pub(super) const TYPES: [&str; 5] =
    ["charge.dispute.created", UPDATED, FUNDS_WITHDRAWN, FUNDS_REINSTATED, "charge.dispute.closed"];

#[derive(Deserialize)]
struct Dispute {
    id: String,
    amount: i64,
    currency: String,
    status: String,
    charge: Option<Reference>,
    payment_intent: Option<Reference>,
    created: Option<i64>,
    #[serde(default)]
    balance_transactions: Value,
}

/// Reads the dispute `object`, which is at `path` of what was received.
pub(super) fn content(event_type: &str, object: &Value, path: &str) -> Result<EventContent, MalformedEvent> {
    let at = |field: &str| format!("{path}.{field}");
    let dispute: Dispute = read(object, path)?;
    let moved = Moved::of(&dispute.balance_transactions);
    let stage = stage(event_type, &identifier(at("status"), dispute.status)?, moved);
    let charge_ref = dispute.charge.map(|charge| identifier(at("charge"), charge.id)).transpose()?;
    let payment_intent =
        dispute.payment_intent.map(|intent| identifier(at("payment_intent"), intent.id)).transpose()?;
    let amount = positive(at("amount"), dispute.amount)?;
    let event = DisputeEvent {
        dispute_ref: identifier(at("id"), dispute.id)?,
        payment_ref: match payment_intent.or_else(|| charge_ref.clone()) {
            Some(payment_ref) => payment_ref,
            None => return Ok(irrelevant("the dispute names neither a payment intent nor a charge")),
        },
        charge_ref,
        amount,
        currency: currency(at("currency"), &dispute.currency)?,
        stage,
        reinstated: moved.reinstated(amount),
        created: dispute.created.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
    };
    Ok(EventContent::Dispute(event))
}

/// What a dispute's balance transactions show.
#[derive(Clone, Copy)]
struct Moved {
    /// Nothing can be said if nothing has moved.
    stage: Option<DisputeStage>,
    /// What was withdrawn at once, and what of it is withdrawn still, in the currency of the balance: another one than the
    /// dispute's, perhaps.
    withdrawn: i64,
    still: i64,
}

impl Moved {
    fn of(transactions: &Value) -> Self {
        let amounts = || transactions.as_array().into_iter().flatten().filter_map(|one| one["amount"].as_i64());
        let still = amounts().fold(0_i64, i64::saturating_add).saturating_neg();
        let withdrawn = amounts().min().unwrap_or_default().saturating_neg();
        let stage = if still > 0 { DisputeStage::Withdrawn } else { DisputeStage::Won };
        Self { stage: (withdrawn > 0).then_some(stage), withdrawn, still }
    }

    /// What came back of a dispute of `amount` of which something is withdrawn still, in the dispute's currency. Funds may be
    /// reinstated in part.
    fn reinstated(self, amount: i64) -> i64 {
        if self.still <= 0 || self.still >= self.withdrawn {
            return 0;
        }
        let back = i128::from(amount) * i128::from(self.withdrawn - self.still) / i128::from(self.withdrawn);
        i64::try_from(back).unwrap_or(amount)
    }
}

/// Of an open dispute the status does not say whether the money has moved. Of one that is lost all of it may have come back.
fn stage(event_type: &str, status: &str, moved: Moved) -> DisputeStage {
    match (event_type, status) {
        (_, "won") => DisputeStage::Won,
        (_, "lost") if moved.stage != Some(DisputeStage::Won) => DisputeStage::Lost,
        (_, "charge_refunded" | "prevented") => DisputeStage::Settled,
        (FUNDS_REINSTATED, _) => moved.stage.unwrap_or(DisputeStage::Won),
        (FUNDS_WITHDRAWN, _) => DisputeStage::Withdrawn,
        (_, status) if status.starts_with("warning_") => DisputeStage::Inquiry,
        _ => moved.stage.unwrap_or(DisputeStage::Open),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

    use serde_json::json;

    use super::super::parse;
    use super::*;

    fn dispute() -> Value {
        json!({
            "id": "du_1", "object": "dispute", "amount": 4000, "currency": "EUR", "status": "needs_response",
            "charge": "ch_1", "payment_intent": "pi_1", "created": 1_790_000_000, "balance_transactions": [],
        })
    }

    fn parsed(event_type: &str, object: &Value) -> Result<EventContent, MalformedEvent> {
        let event = json!({"id": "evt_1", "object": "event", "type": event_type, "data": {"object": object}});
        parse(event.to_string().as_bytes(), None).map(|event| event.content)
    }

    fn read_as(event_type: &str, object: &Value) -> DisputeEvent {
        match parsed(event_type, object).unwrap() {
            EventContent::Dispute(event) => event,
            other => panic!("not a dispute: {other:?}"),
        }
    }

    #[test]
    fn each_type_that_carries_a_dispute_is_read_with_both_shapes_of_ids() {
        let mut expanded = dispute();
        expanded["charge"] = json!({"id": "ch_1", "object": "charge"});
        expanded["payment_intent"] = json!({"id": "pi_1", "object": "payment_intent"});
        for (event_type, stage) in TYPES.into_iter().zip([
            DisputeStage::Open,
            DisputeStage::Open,
            DisputeStage::Withdrawn,
            DisputeStage::Won,
            DisputeStage::Open,
        ]) {
            let expected = DisputeEvent {
                dispute_ref: "du_1".into(),
                payment_ref: "pi_1".into(),
                charge_ref: Some("ch_1".into()),
                amount: 4000,
                currency: "eur".into(),
                stage,
                reinstated: 0,
                created: DateTime::from_timestamp(1_790_000_000, 0),
            };
            assert_eq!(read_as(event_type, &dispute()), expected, "{event_type}");
            assert_eq!(read_as(event_type, &expanded), expected, "{event_type}");
        }
    }

    #[test]
    fn the_stage_follows_from_the_status_and_from_what_has_moved() {
        let with = |status: &str, amounts: &[i64]| {
            let mut dispute = dispute();
            dispute["status"] = json!(status);
            dispute["balance_transactions"] =
                amounts.iter().map(|amount| json!({"id": "txn", "amount": amount})).collect();
            [read_as("charge.dispute.updated", &dispute).stage, read_as(FUNDS_REINSTATED, &dispute).stage]
        };
        for (status, amounts, stage) in [
            ("under_review", &[-4000][..], DisputeStage::Withdrawn),
            ("under_review", &[-4000, 4000], DisputeStage::Won),
            // A part of it came back.
            ("under_review", &[-4000, 1200], DisputeStage::Withdrawn),
            ("lost", &[-4000, 1200], DisputeStage::Lost),
            ("lost", &[-4000, 4000], DisputeStage::Won),
            ("lost", &[-4000, 4000, -4000], DisputeStage::Lost),
            ("lost", &[], DisputeStage::Lost),
            ("needs_response", &[-4000, 4000], DisputeStage::Won),
            ("lost", &[-4000], DisputeStage::Lost),
            ("won", &[-4000, 4000], DisputeStage::Won),
            ("charge_refunded", &[], DisputeStage::Settled),
            ("prevented", &[], DisputeStage::Settled),
        ] {
            assert_eq!(with(status, amounts), [stage, stage], "{status} {amounts:?}");
        }
        // In the currency of the balance. What came back and was withdrawn again did not come back.
        for (amounts, reinstated) in [
            (&[-4000, 1200][..], 1200),
            (&[-4300, 1300], 1209),
            (&[-4000, 4000, -4000], 0),
            (&[-4000, 4000], 0),
            (&[-4000], 0),
            (&[], 0),
        ] {
            let mut dispute = dispute();
            dispute["balance_transactions"] =
                amounts.iter().map(|amount| json!({"id": "txn", "amount": amount})).collect();
            assert_eq!(read_as("charge.dispute.updated", &dispute).reinstated, reinstated, "{amounts:?}");
        }
        // What has moved is not shown: only the type of the event says that the funds are back.
        for (status, stage) in [
            ("needs_response", DisputeStage::Open),
            ("a_new_word", DisputeStage::Open),
            ("warning_needs_response", DisputeStage::Inquiry),
            ("warning_under_review", DisputeStage::Inquiry),
            ("warning_closed", DisputeStage::Inquiry),
        ] {
            assert_eq!(with(status, &[]), [stage, DisputeStage::Won], "{status}");
        }
    }

    #[test]
    fn a_dispute_of_a_charge_alone_belongs_to_the_charge_and_one_of_nothing_is_irrelevant() {
        let mut dispute = dispute();
        dispute["payment_intent"] = Value::Null;
        assert_eq!(read_as("charge.dispute.created", &dispute).payment_ref, "ch_1");
        dispute["charge"] = Value::Null;
        let content = parsed("charge.dispute.created", &dispute).unwrap();
        assert!(matches!(content, EventContent::Irrelevant { reason } if reason.contains("neither")));
    }

    #[test]
    fn a_dispute_that_cannot_be_used_is_refused_by_the_name_of_its_field() {
        for (field, value) in [
            ("id", json!("du 1")),
            ("amount", json!(0)),
            ("amount", json!("4000")),
            ("currency", json!("euro")),
            ("status", json!(null)),
            ("charge", json!(7)),
            ("payment_intent", json!({"object": "payment_intent"})),
        ] {
            let mut dispute = dispute();
            dispute[field] = value;
            let error = parsed("charge.dispute.closed", &dispute).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(format!("data.object.{field}").as_str()));
        }
    }
}
