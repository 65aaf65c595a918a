//! The tables, as sea-orm sees them. Private to the ledger: no other module can assign a status.
//!
//! The outbox's own entity is public to the crate, since the relay claims and marks its rows.

#![expect(unreachable_pub, reason = "sea-orm's derives want public types; the modules around them are private")]

/// A registered payment.
pub(super) mod payment {
    use chrono::{DateTime, Utc};
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "payments")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub payment_ref: String,
        pub amount: i64,
        pub currency: String,
        pub created_at: DateTime<Utc>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// A transfer to a seller.
pub(super) mod transfer {
    use chrono::{DateTime, Utc};
    use sea_orm::entity::prelude::*;

    use crate::ledger::state::TransferStatus;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "seller_transfers")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub payment_id: Uuid,
        pub seller_id: String,
        pub stripe_transfer_id: Option<String>,
        pub destination: String,
        pub amount: i64,
        pub amount_reversed: i64,
        pub currency: String,
        pub status: TransferStatus,
        pub retry_count: i32,
        pub next_retry_at: Option<DateTime<Utc>>,
        pub failure_code: Option<String>,
        pub failure_message: Option<String>,
        pub created_at: DateTime<Utc>,
        pub updated_at: DateTime<Utc>,
        /// Part of the idempotency key of its creation: see `clawback::worker`.
        pub epoch: i32,
        /// Written before the epoch's first call. Null for a transfer that was registered with its Stripe id.
        pub epoch_started_at: Option<DateTime<Utc>>,
        /// Since when Stripe may have created it without saying so. Stripe's list is read before a new call.
        pub doubtful_since: Option<DateTime<Utc>>,
        /// Since when Stripe's list has been seen without it.
        pub absent_since: Option<DateTime<Utc>>,
        /// When the sweeper may suspect that no job is coming. Null: at once.
        pub sweep_after: Option<DateTime<Utc>>,
        pub sweep_count: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// A refund, as its provider reported it.
pub(super) mod refund {
    use chrono::{DateTime, Utc};
    use sea_orm::entity::prelude::*;

    use crate::ledger::{events::Source, state::RefundStatus};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "refunds")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub source: Source,
        pub refund_ref: String,
        pub payment_ref: String,
        pub charge_ref: Option<String>,
        pub payment_id: Option<Uuid>,
        pub amount: i64,
        pub currency: String,
        pub status: RefundStatus,
        pub status_reason: Option<String>,
        pub created_at: DateTime<Utc>,
        pub matched_at: Option<DateTime<Utc>>,
        /// JSON, a list of `NamedShare`: what the refund itself asks of each transfer. Null: by ratio.
        pub shares: Option<String>,
        /// When its provider said that it failed, after it had succeeded.
        pub failed_at: Option<DateTime<Utc>>,
        /// What an operator has to do about it. Null: nothing.
        pub attention: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The reversal of one transfer for one refund.
pub(super) mod reversal {
    use chrono::{DateTime, Utc};
    use sea_orm::entity::prelude::*;

    use crate::ledger::state::ReversalStatus;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "reversals")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub refund_id: Uuid,
        pub transfer_id: Uuid,
        pub amount: i64,
        pub currency: String,
        pub status: ReversalStatus,
        pub retry_count: i32,
        pub next_retry_at: Option<DateTime<Utc>>,
        /// Part of the idempotency key: see `clawback::worker`.
        pub epoch: i32,
        /// Written before the epoch's first call, so that its key is never older than this says.
        pub epoch_started_at: DateTime<Utc>,
        /// Since when Stripe may have done what its answer did not say. The reversals are read before a new call.
        pub doubtful_since: Option<DateTime<Utc>>,
        /// Since when Stripe's list has been seen without our reversal.
        pub absent_since: Option<DateTime<Utc>>,
        /// A reversal that Stripe accepted and has not finished (a preview of Stripe's).
        pub pending_reversal_id: Option<String>,
        pub stripe_reversal_id: Option<String>,
        pub externally_reversed: bool,
        pub failure_code: Option<String>,
        pub failure_message: Option<String>,
        /// When the sweeper may suspect that no job is coming. Null: at once.
        pub sweep_after: Option<DateTime<Utc>>,
        pub sweep_count: i32,
        pub created_at: DateTime<Utc>,
        pub updated_at: DateTime<Utc>,
        /// Committed before Stripe is first asked. Null: Stripe can't know of it, so that it may be called off.
        pub called_at: Option<DateTime<Utc>>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The inbox: every verified webhook, once.
pub(super) mod webhook_event {
    use chrono::{DateTime, Utc};
    use sea_orm::entity::prelude::*;

    use crate::ledger::events::Source;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "webhook_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub source: Source,
        pub event_id: String,
        pub event_type: String,
        pub object_id: Option<String>,
        pub outcome: String,
        pub detail: Option<String>,
        pub received_at: DateTime<Utc>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// What happened, in order. Append-only: the database refuses anything else.
pub(super) mod history {
    use chrono::{DateTime, Utc};
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "history")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub entity: String,
        pub entity_id: Uuid,
        pub from_status: Option<String>,
        pub to_status: String,
        pub at: DateTime<Utc>,
        pub actor: String,
        pub reason: String,
        pub stripe_request_id: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Jobs that are committed and have yet to reach the broker.
pub(crate) mod outbox {
    use chrono::{DateTime, Utc};
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "outbox")]
    pub struct Model {
        /// Also the message's id on the broker.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub kind: String,
        /// JSON.
        pub payload: String,
        /// What the job is about: a reversal's id, or a transfer's.
        pub entity_id: Uuid,
        pub created_at: DateTime<Utc>,
        /// A relay is publishing it; when it has not said so by then, another may.
        pub claimed_until: Option<DateTime<Utc>>,
        /// When the broker confirmed it.
        pub published_at: Option<DateTime<Utc>>,
        pub attempts: i32,
        pub last_error: Option<String>,
        /// The trace that the job belongs to (W3C), if traces are exported.
        pub traceparent: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
