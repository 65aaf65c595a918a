//! Claims: what gave a buyer money back, from the first report to the reversals that it asks for.

mod attention;
mod discovery;
mod intake;
mod matching;
mod named_shares;
mod report;
mod split;
mod withdrawn;

pub(super) use intake::Received;
pub(super) use matching::match_or_conflict;
pub use report::Reported;
