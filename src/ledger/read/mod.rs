//! Read models: what the API, the command line and `reconcile` show. Nothing here writes, apart from remarks in the history.

mod backlog;
mod failed;
mod lists;
mod one;
mod reconcile;
mod remarks;
mod totals;
mod trace;
mod views;
mod waiting;

pub use backlog::{Backlog, DatabaseFacts};
pub use failed::{FailedCall, FailedFilter};
pub use one::TransferToProbe;
pub use totals::{Amounts, Totals};
pub use trace::{Trace, TraceEvent, TracedLookup, TracedPayment, TracedRefund, TracedReversal, TracedTransfer};
pub use views::{DisputeView, NewRefund, NewShare, PaymentView, RefundView, ReversalView, TransferView, claim_name};
pub use waiting::WaitingClaims;
