//! The tables, as sea-orm sees them. Private to the ledger, apart from the outbox's, whose rows the relay claims and marks.

#![expect(unreachable_pub, reason = "sea-orm's derives want public types; the modules around them are private")]

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ledger::claims::DisputeStage;
use crate::ledger::events::{ClaimKind, Source};
use crate::ledger::lookups::Subject;
use crate::ledger::operations::{ItemState, OperationAction, OperationState, StripeSays};
use crate::ledger::runs::RunState;
use crate::ledger::status::{CallKind, CallState, ClaimStatus, ReversalStatus, TransferStatus};

/// A module for each table, whose key is a UUID `id`.
macro_rules! tables {
    ($($(#[$doc:meta])* $visible:vis mod $name:ident = $table:tt { $($columns:tt)* })*) => {$(
        $(#[$doc])*
        $visible mod $name {
            use super::*;

            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
            #[sea_orm(table_name = $table)]
            #[cfg_attr(test, derive(Hash))]
            #[doc = concat!("A row of `", $table, "`.")]
            pub struct Model {
                /// Its id.
                #[sea_orm(primary_key, auto_increment = false)]
                pub id: Uuid,
                $($columns)*
            }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    )*};
}

tables! {
    /// A registered payment.
    pub(super) mod payment = "payments" {
        pub payment_ref: String,
        pub amount: i64,
        pub currency: String,
        /// Nobody registered it: a look-up found it.
        pub found_at_stripe: bool,
        pub created_at: DateTime<Utc>,
    }

    /// A transfer to a seller.
    pub(super) mod transfer = "seller_transfers" {
        pub payment_id: Uuid,
        /// Its place in the payment, from 0.
        pub position: i32,
        /// Of the payment's equal transfers that Clawback creates, which one it is, from 0. It is a part of its name at Stripe.
        pub ordinal: i32,
        pub seller_id: String,
        pub stripe_transfer_id: Option<String>,
        pub destination: String,
        pub amount: i64,
        /// What claims have taken: back from the seller, or from what was to be created.
        pub amount_reversed: i64,
        /// Of it, what was taken back before the transfer was registered, and what others took since and an operator adopted.
        pub reversed_before: i64,
        /// JSON: Stripe's ids of the reversals that were adopted into `reversed_before`, with their amounts.
        pub adopted: Option<String>,
        /// The part of `amount_reversed` that was never transferred: claims came before Stripe was asked to create it.
        pub withheld: i64,
        pub currency: String,
        pub status: TransferStatus,
        /// Registered without a Stripe id: Clawback creates it, or has created it.
        pub created_by_us: bool,
        /// Whether each reversal also refunds the application fee, in proportion.
        pub refund_application_fee: bool,
        pub created_at: DateTime<Utc>,
        pub updated_at: DateTime<Utc>,
    }

    /// What gave a buyer money back, as its provider reported it.
    pub(super) mod claim = "claims" {
        pub kind: ClaimKind,
        pub source: Source,
        /// The provider's account within which the reference is unique: Hyperswitch's merchant. Else empty.
        pub account: String,
        pub reference: String,
        pub payment_ref: String,
        pub charge_ref: Option<String>,
        pub payment_id: Option<Uuid>,
        pub amount: i64,
        pub currency: String,
        pub status: ClaimStatus,
        pub status_reason: Option<String>,
        /// JSON, a list of `NamedShare`: what the claim asks of each transfer. Null: by ratio.
        pub shares: Option<String>,
        /// Since when the provider's own signed word is known. Null: only a report over the API is.
        pub signed_at: Option<DateTime<Utc>>,
        /// The shares that the provider's last signed word named.
        pub signed_shares: Option<String>,
        /// What the provider said was captured of the payment, in minor units of the claim's currency.
        pub captured: Option<i64>,
        /// Stripe's id of the reversal that came with the refund; empty where the provider named none. Null: there is none.
        pub provider_reversal: Option<String>,
        /// Stripe's id of the transfer that it reversed, where that is known.
        pub reversed_transfer: Option<String>,
        /// When the provider last changed it, by its own clock.
        pub provider_updated_at: Option<DateTime<Utc>>,
        /// When its provider made it, as far as it was reported.
        pub provider_created_at: Option<DateTime<Utc>>,
        /// When its provider reported that it failed.
        pub failed_at: Option<DateTime<Utc>>,
        /// What an operator must do about it. Null: nothing.
        pub attention: Option<String>,
        /// The look-up that found no transfers at Stripe, where that is why nothing is to be reversed.
        pub lookup_id: Option<Uuid>,
        /// When an operator said that nothing more needs to be done. Any news resets it.
        pub acknowledged_at: Option<DateTime<Utc>>,
        /// How far a dispute is at its provider; null for a refund.
        pub stage: Option<DisputeStage>,
        pub created_at: DateTime<Utc>,
        pub matched_at: Option<DateTime<Utc>>,
    }

    /// What one claim asks of one transfer.
    pub(super) mod reversal = "reversals" {
        pub claim_id: Uuid,
        pub transfer_id: Uuid,
        /// The transfer's.
        pub seller_id: String,
        /// What Stripe is asked for.
        pub amount: i64,
        /// What of the debt an operator recorded as settled elsewhere, beside `amount`.
        pub amount_closed: i64,
        pub currency: String,
        pub status: ReversalStatus,
        pub stripe_reversal_id: Option<String>,
        pub externally_reversed: bool,
        /// Stripe's id of what moved the money (`txn_…`), where Stripe told it.
        pub balance_transaction: Option<String>,
        pub created_at: DateTime<Utc>,
        pub updated_at: DateTime<Utc>,
    }

    /// What Stripe must do for us, and how far that is. Its id is also the id of the reversal, the transfer or the look-up that it is for.
    pub(super) mod call = "calls" {
        /// What Stripe must do.
        pub kind: CallKind,
        /// Raised by every change but the sweeper's: the guard of all that workers report.
        pub version: i64,
        /// How far that is.
        pub state: CallState,
        /// Retries used up.
        pub attempts: i32,
        /// Stripe is not to be asked before.
        pub next_attempt_at: Option<DateTime<Utc>>,
        /// Part of the idempotency key.
        pub generation: i32,
        /// Committed before the generation's key is first used: the key is never older.
        pub generation_started_at: DateTime<Utc>,
        /// Committed before Stripe is first asked under the generation's key. Null: Stripe has not done it, and was not asked.
        pub requested_at: Option<DateTime<Utc>>,
        /// When Stripe answered the generation's key with a failure that it had saved: the key never executes again.
        pub key_burnt_at: Option<DateTime<Utc>>,
        /// Since when Stripe may have done what its answer did not say.
        pub outcome_unknown_since: Option<DateTime<Utc>>,
        /// Since when Stripe's list has been seen without it.
        pub absent_since: Option<DateTime<Utc>>,
        /// Since when Stripe refuses it for lack of balance, counted from the last replay.
        pub refused_since: Option<DateTime<Utc>>,
        /// What Stripe accepted and has not finished.
        pub accepted_id: Option<String>,
        /// The last failure: Stripe's code, or ours.
        pub failure_code: Option<String>,
        /// The last failure in words.
        pub failure_message: Option<String>,
        /// When the sweeper may suspect a lost job.
        pub sweep_after: DateTime<Utc>,
        /// Sweeps since its last news.
        pub sweep_count: i32,
        /// When the debt was recorded, or the transfer registered.
        pub created_at: DateTime<Utc>,
        /// When it last changed.
        pub updated_at: DateTime<Utc>,
    }

    /// What Stripe is asked about. Its status is its call's state. Its id is also the id of its call.
    pub(super) mod lookup = "lookups" {
        pub subject: Subject,
        /// Stripe's id of the charge, refund, dispute, payment or transfer.
        pub reference: String,
        /// The first event that asked for it: the id of its row in the inbox. Null: a refund reported over the API.
        pub event_id: Option<Uuid>,
        /// What the last reading found, in words.
        pub result: Option<String>,
        pub created_at: DateTime<Utc>,
        pub updated_at: DateTime<Utc>,
    }

    /// An operator's action on many rows.
    pub(super) mod operation = "operations" {
        pub action: OperationAction,
        /// JSON.
        pub filter: String,
        pub state: OperationState,
        /// How many rows it is about.
        pub items: i32,
        /// How many rows matched its filter.
        pub matching: i64,
        /// How many rows the preview tried.
        pub checked: i32,
        /// JSON: what would have been refused of those.
        pub refusals: String,
        pub oldest: Option<DateTime<Utc>>,
        pub operator: Option<String>,
        pub reason: Option<String>,
        pub spread_seconds: i32,
        pub cap: Option<i32>,
        pub created_at: DateTime<Utc>,
        pub started_at: Option<DateTime<Utc>>,
        pub finished_at: Option<DateTime<Utc>>,
        /// The process that works on it.
        pub lease_owner: Option<Uuid>,
        /// Another one may once this is past.
        pub lease_until: Option<DateTime<Utc>>,
    }

    /// A row that an operation is about.
    pub(super) mod operation_item = "operation_items" {
        pub operation_id: Uuid,
        pub position: i32,
        /// Clawback's id of the reversal, transfer or claim.
        pub target_id: Uuid,
        pub amount: i64,
        pub currency: String,
        pub state: ItemState,
        /// Why nothing was changed.
        pub problem: Option<String>,
        pub done_at: Option<DateTime<Utc>>,
        /// What Stripe said of it at the time of the preview.
        pub at_stripe: Option<StripeSays>,
        pub stripe_detail: Option<String>,
    }

    /// A run of `reconcile`.
    pub(super) mod reconcile_run = "reconcile_runs" {
        pub state: RunState,
        pub since: Option<DateTime<Utc>>,
        pub fix: bool,
        /// The transfer that was compared last.
        pub after_id: Option<Uuid>,
        /// Counts its writes: two processes can't both go on.
        pub pages: i64,
        pub transfers: i64,
        pub transfers_without_stripe_id: i64,
        pub agreed: i64,
        pub on_their_way: i64,
        pub given_up: i64,
        pub differences: i64,
        pub repaired: i64,
        pub problem: Option<String>,
        pub operator: String,
        pub started_at: DateTime<Utc>,
        pub updated_at: DateTime<Utc>,
        pub finished_at: Option<DateTime<Utc>>,
    }

    /// What a run of `reconcile` has found.
    pub(super) mod reconcile_difference = "reconcile_differences" {
        pub run_id: Uuid,
        pub kind: String,
        pub transfer_id: Uuid,
        pub stripe_transfer_id: String,
        pub reversal_id: Option<Uuid>,
        pub stripe_reversal_id: Option<String>,
        pub claim: Option<String>,
        pub currency: String,
        pub amount_in_ledger: Option<i64>,
        pub amount_at_stripe: Option<i64>,
        pub detail: String,
        pub repair: String,
        pub found_at: DateTime<Utc>,
    }

    /// What an operator says about a group of failures.
    pub(super) mod group_note = "group_notes" {
        pub group_key: String,
        pub text: String,
        pub operator: String,
        pub created_at: DateTime<Utc>,
    }

    /// The inbox: every verified webhook, once.
    pub(super) mod webhook_event = "webhook_events" {
        pub source: Source,
        pub event_id: String,
        pub event_type: String,
        pub object_id: Option<String>,
        pub outcome: String,
        pub detail: Option<String>,
        pub received_at: DateTime<Utc>,
    }

    /// What another system is told.
    pub(super) mod notification = "notifications" {
        pub topic: String,
        pub body: String,
        pub created_at: DateTime<Utc>,
    }

    /// What happened, in order. Append-only: the database refuses anything else.
    pub(super) mod history = "history" {
        pub entity: String,
        pub entity_id: Uuid,
        pub from_status: Option<String>,
        pub to_status: String,
        pub at: DateTime<Utc>,
        pub actor: String,
        pub reason: String,
        pub stripe_request_id: Option<String>,
    }

    /// Jobs that are committed and on their way to the broker. Its id is also the message's id on the broker.
    pub(crate) mod outbox = "outbox" {
        pub kind: String,
        /// JSON.
        pub payload: String,
        /// The id of the call.
        pub entity_id: Uuid,
        /// The trace that the job belongs to (W3C), if traces are exported.
        pub traceparent: Option<String>,
        pub created_at: DateTime<Utc>,
        /// A relay is publishing it. Another may once this is past.
        pub claimed_until: Option<DateTime<Utc>>,
        /// When the broker confirmed it.
        pub published_at: Option<DateTime<Utc>>,
        pub attempts: i32,
        pub last_error: Option<String>,
    }
}

impl transfer::Model {
    /// What it is called in messages: Stripe's id, or Clawback's before it has one.
    pub(super) fn name(&self) -> String {
        self.stripe_transfer_id.clone().unwrap_or_else(|| self.id.to_string())
    }
}
