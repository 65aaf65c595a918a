//! What the settings say about claims, and why a claim is held. Pure.

use chrono::{DateTime, SecondsFormat, Utc};

use super::dispute::DisputePolicy;
use crate::ledger::events::RefundProgress;

const BY_AGE: &str = "(REFUNDS_SINCE)";

/// Whether a claim that is held for this reason is so because of its age.
pub(super) fn is_about_age(reason: &str) -> bool {
    reason.contains(BY_AGE)
}

/// The settings about claims.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClaimPolicy {
    /// Claims that their provider created earlier are held. `None`: when this ledger was first set up.
    pub refunds_since: Option<DateTime<Utc>>,
    /// Whether a refund that waits for the platform's balance takes money back already.
    pub reverse_on_pending: bool,
    /// Whether payments that nobody registered are looked for at Stripe.
    pub discovery: bool,
    /// Which disputes take money back.
    pub disputes: DisputePolicy,
}

impl ClaimPolicy {
    /// Why a claim that its provider created at `created` takes nothing for now.
    pub(super) fn holds(&self, created: Option<DateTime<Utc>>, progress: &RefundProgress) -> Option<String> {
        if let RefundProgress::AwaitingFunds(word) = progress
            && !self.reverse_on_pending
        {
            return Some(format!("it is pending at its provider ({word}); nothing is taken back before it succeeds"));
        }
        self.too_old(created)
    }

    /// What came about before this ledger was in use may have been taken back by other means. Without a time of its own a
    /// claim counts as new.
    pub(super) fn too_old(&self, created: Option<DateTime<Utc>>) -> Option<String> {
        let (created, since) = (created?, self.refunds_since?);
        let shown = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let why = || {
            format!(
                "created {} at its provider, before {} {BY_AGE}: it may have been taken back already; accept it if not",
                shown(created),
                shown(since)
            )
        };
        (created < since).then(why)
    }
}
