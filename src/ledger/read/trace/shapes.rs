//! The shapes of a trace, which are also those of `clawback trace --format json`: names are only ever added.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ledger::claims::attention_of;
use crate::ledger::lookups::Subject;
use crate::ledger::schema::{call, claim, history, lookup, outbox, payment, webhook_event};
use crate::ledger::status::{CallKind, CallState, ClaimStatus, TransferStatus};
use crate::ledger::time::now;
use crate::ledger::{ClaimKind, ReversalView, Source, TransferView};

/// What happened, and how things stand now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Trace {
    /// Oldest first.
    pub events: Vec<TraceEvent>,
    /// The payments concerned.
    pub payments: Vec<TracedPayment>,
    /// The refunds concerned.
    pub refunds: Vec<TracedRefund>,
    /// The transfers concerned.
    pub transfers: Vec<TracedTransfer>,
    /// The reversals concerned.
    pub reversals: Vec<TracedReversal>,
    /// What Stripe was asked about them.
    pub lookups: Vec<TracedLookup>,
    /// False: more hangs together than was read.
    pub complete: bool,
}

impl Trace {
    /// The most rows of a kind, where no page has to be fast.
    pub const MOST: usize = 1_000;
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TraceEvent {
    /// When (UTC).
    pub at: DateTime<Utc>,
    /// To what: `webhook`, `payment`, `refund`, `dispute`, `transfer`, `reversal` or `lookup`.
    pub entity: String,
    /// Clawback's id of it; of a webhook, that of its row in the inbox.
    pub entity_id: Uuid,
    /// The provider's id of it, where it has one.
    pub provider_id: Option<String>,
    /// The status before; null where there was none, or where this is not about the status.
    pub from: Option<String>,
    /// The status afterwards, if this is about the status: of a webhook, what became of it.
    pub to: Option<String>,
    /// `ingress`, `relay`, `worker`, `sweeper`, `reconcile`, `api`, or an operator's name.
    pub actor: String,
    /// Why, in words.
    pub reason: String,
    /// Stripe's `Request-Id`, where Stripe was asked.
    pub stripe_request_id: Option<String>,
}

/// A payment, as far as a trace shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TracedPayment {
    /// Clawback's id.
    pub id: Uuid,
    /// The provider's id.
    pub payment_ref: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
}

/// A refund, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TracedRefund {
    /// Clawback's id.
    pub id: Uuid,
    /// A refund, or a dispute, whose id is in `refund_ref` too.
    pub kind: ClaimKind,
    /// Who reported it.
    pub source: Source,
    /// The provider's id.
    pub refund_ref: String,
    /// The provider's id of the payment.
    pub payment_ref: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Where it stands.
    pub status: ClaimStatus,
    /// Why, where that needs words.
    pub status_reason: Option<String>,
    /// What an operator has to do about it.
    pub attention: Option<String>,
}

/// A transfer, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TracedTransfer {
    /// Clawback's id.
    pub id: Uuid,
    /// Stripe's id.
    pub stripe_transfer_id: Option<String>,
    /// The seller's connected account.
    pub destination: String,
    /// Minor units.
    pub amount: i64,
    /// Minor units that are back.
    pub amount_reversed: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Where it stands.
    pub status: TransferStatus,
    /// When its creation is tried again, if that waits.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// The last failure of its creation, in words.
    pub failure_message: Option<String>,
    /// Since when a job about it waits in the outbox for the broker.
    pub job_waiting_since: Option<DateTime<Utc>>,
}

/// A reversal, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TracedReversal {
    /// As the API shows it.
    #[serde(flatten)]
    pub reversal: ReversalView,
    /// Since when a job about it waits in the outbox for the broker.
    pub job_waiting_since: Option<DateTime<Utc>>,
}

/// A look-up, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TracedLookup {
    /// Clawback's id.
    pub id: Uuid,
    /// What it is about.
    pub subject: Subject,
    /// Stripe's id of that.
    pub reference: String,
    /// Where it stands.
    pub state: CallState,
    /// What the last reading found.
    pub result: Option<String>,
    /// The last failure, in words.
    pub failure_message: Option<String>,
    /// When it is tried again, if that waits.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Since when a job about it waits in the outbox for the broker.
    pub job_waiting_since: Option<DateTime<Utc>>,
}

impl TracedLookup {
    pub(super) fn of(row: lookup::Model, call: &call::Model, job_waiting_since: Option<DateTime<Utc>>) -> Self {
        Self {
            id: row.id,
            subject: row.subject,
            reference: row.reference,
            state: call.state,
            result: row.result,
            failure_message: call.failure_message.clone(),
            next_attempt_at: call.next_attempt_at,
            job_waiting_since,
        }
    }
}

pub(super) fn heard(row: webhook_event::Model) -> TraceEvent {
    let detail = row.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    TraceEvent {
        at: row.received_at,
        entity: "webhook".to_owned(),
        entity_id: row.id,
        provider_id: Some(row.event_id),
        from: None,
        to: Some(row.outcome),
        actor: "ingress".to_owned(),
        reason: format!("{} of {}{detail}", row.event_type, row.object_id.as_deref().unwrap_or("no object")),
        stripe_request_id: None,
    }
}

pub(super) fn step(row: history::Model, provider_id: impl Fn(Uuid) -> Option<String>) -> TraceEvent {
    let changes = row.from_status.as_ref() != Some(&row.to_status);
    TraceEvent {
        at: row.at,
        entity: row.entity,
        entity_id: row.entity_id,
        provider_id: provider_id(row.entity_id),
        from: row.from_status.filter(|_| changes),
        to: changes.then_some(row.to_status),
        actor: row.actor,
        reason: row.reason,
        stripe_request_id: row.stripe_request_id,
    }
}

pub(super) fn published(
    job: &outbox::Model,
    at: DateTime<Utc>,
    provider_id: impl Fn(Uuid) -> Option<String>,
) -> TraceEvent {
    TraceEvent {
        at,
        entity: CallKind::of_job(&job.kind).map_or("job", CallKind::entity).to_owned(),
        entity_id: job.entity_id,
        provider_id: provider_id(job.entity_id),
        from: None,
        to: None,
        actor: "relay".to_owned(),
        reason: format!("the broker has confirmed job {}", job.id),
        stripe_request_id: None,
    }
}

impl From<payment::Model> for TracedPayment {
    fn from(row: payment::Model) -> Self {
        Self { id: row.id, payment_ref: row.payment_ref, amount: row.amount, currency: row.currency }
    }
}

impl From<claim::Model> for TracedRefund {
    fn from(row: claim::Model) -> Self {
        Self {
            id: row.id,
            attention: attention_of(&row, now()),
            kind: row.kind,
            source: row.source,
            refund_ref: row.reference,
            payment_ref: row.payment_ref,
            amount: row.amount,
            currency: row.currency,
            status: row.status,
            status_reason: row.status_reason,
        }
    }
}

impl From<TransferView> for TracedTransfer {
    fn from(row: TransferView) -> Self {
        Self {
            id: row.id,
            stripe_transfer_id: row.stripe_transfer_id,
            destination: row.destination,
            amount: row.amount,
            amount_reversed: row.amount_reversed,
            currency: row.currency,
            status: row.status,
            next_retry_at: row.next_retry_at,
            failure_message: row.failure_message,
            job_waiting_since: None,
        }
    }
}
