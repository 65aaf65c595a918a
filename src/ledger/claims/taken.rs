//! What became of the claims of one event, and the one receipt for all of them. Pure.

use uuid::Uuid;

use super::matching::Match;
use super::record::BY_THE_PROVIDER;
use super::withdrawn::Withdrawn;
use crate::ledger::events::Receipt;

/// What became of one refund or dispute of an event.
#[derive(Debug)]
pub(super) enum Taken {
    Matched { reversals: Vec<Uuid> },
    Failed(Withdrawn),
    Conflicting(String),
    Held(String),
    Unmatched,
    Known,
    NoEffect(String),
}

impl From<Match> for Taken {
    fn from(found: Match) -> Self {
        match found {
            Match::Reversals(reversals) => Self::Matched { reversals },
            Match::Conflict(problem) => Self::Conflicting(problem),
            Match::NothingToReverse => Self::NoEffect(BY_THE_PROVIDER.to_owned()),
            Match::Unmatched => Self::Unmatched,
        }
    }
}

/// One receipt for all claims of an event: what an operator should know most.
pub(super) fn sum_up(taken: Vec<Taken>) -> Receipt {
    let (mut matched, mut unmatched, mut known) = (None, false, false);
    let (mut conflicting, mut held, mut no_effect) = (None, None, None);
    let mut failed: Option<Withdrawn> = None;
    for taken in taken {
        match taken {
            Taken::Matched { reversals } => matched = Some(matched.unwrap_or(0) + reversals.len()),
            Taken::Failed(more) => {
                tracing::warn!(
                    called_off = more.called_off,
                    attention = more.attention,
                    "a claim takes nothing after all"
                );
                failed = Some(match failed {
                    None => more,
                    Some(failed) => failed.and(more),
                });
            }
            Taken::Conflicting(reason) => conflicting = Some(reason),
            Taken::Held(reason) => held = Some(reason),
            Taken::Unmatched => unmatched = true,
            Taken::Known => known = true,
            Taken::NoEffect(reason) => no_effect = Some(reason),
        }
    }
    if let Some(Withdrawn { called_off, attention }) = failed {
        return Receipt::Failed { called_off, attention };
    }
    if let Some(reason) = conflicting {
        return Receipt::Conflicting { reason };
    }
    match (matched, held, unmatched, known, no_effect) {
        (Some(reversals), ..) => Receipt::Accepted { reversals },
        (_, Some(reason), ..) => Receipt::Held { reason },
        (_, _, true, ..) => Receipt::Unmatched,
        (.., true, _) => Receipt::Duplicate,
        (.., Some(reason)) => Receipt::Ignored { reason },
        (.., None) => Receipt::Ignored { reason: "the event carries no refund".to_owned() },
    }
}
