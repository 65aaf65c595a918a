//! Claims: what gave a buyer money back, from the first report to the reversals that it asks for.

mod accept;
mod adopt;
mod again;
mod attention;
mod discovery;
mod dispute;
mod intake;
mod lost;
mod matching;
mod own_reversal;
mod policy;
mod record;
mod rematch;
mod report;
mod split;
mod taken;
mod withdrawn;

pub(super) use accept::{Decision, What};
pub use adopt::{Adopted, UnknownReversal};
pub(super) use attention::{UNMATCHED_TOO_LONG, attention_of, unclear};
pub use dispute::{DisputeEvent, DisputePolicy, DisputeStage};
pub(super) use intake::Received;
pub(super) use lost::take_lost;
pub(super) use matching::{match_again, match_or_conflict, owe_earlier, waits_for};
pub use policy::ClaimPolicy;
pub use report::Reported;
pub(super) use withdrawn::review;
