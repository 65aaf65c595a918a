//! Read models: what the API, the command line and `reconcile` show. Nothing here writes, apart from remarks in the history.

mod backlog;
mod cached;
mod export;
mod failed;
mod found;
mod groups;
mod history;
mod lists;
mod one;
mod query;
mod reconcile;
mod remarks;
mod sellers;
mod side_calls;
mod situation;
mod summary;
mod trace;
mod views;
mod waiting;

pub use backlog::{Backlog, DatabaseFacts, OutboxBacklog};
pub(super) use cached::Figures;
pub use export::{ExportCursor, ExportFilter, ExportRow};
pub use failed::{FailedCall, FailedFilter};
pub use found::{
    ClaimFilter, ClaimLine, FoundReversal, FoundTransfer, Recorded, ReversalFilter, ReversalLine, TransferFilter,
    TransferLine,
};
pub use groups::{CurrencySum, FailureGroup, FailureGroups};
pub(super) use groups::{group_key, normalized};
pub use history::{HistoryEntity, HistoryFilter, HistoryKind, HistoryRow, PROGRAMS};
pub use lists::Page;
pub(super) use lists::cut;
pub use one::TransfersToProbe;
pub(super) use query::Query;
pub(super) use sellers::OPEN;
pub use sellers::{SellerDebt, SellerLine, SellerMoney, SellerView};
pub use side_calls::SideCall;
pub use situation::Situation;
pub use summary::{
    AtRisk, ByAge, CurrencySummary, DaySum, NeedsAttention, OldestOpen, Risk, Sum, Summary, TimeToReverse, Unpaid,
};
pub use trace::{Trace, TraceEvent, TracedLookup, TracedPayment, TracedRefund, TracedReversal, TracedTransfer};
pub use views::{DisputeView, NewRefund, NewShare, PaymentView, RefundView, ReversalView, TransferView, claim_name};
pub use waiting::WaitingClaims;
