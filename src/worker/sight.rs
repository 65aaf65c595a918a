//! What a look at Stripe's list shows, and what follows from it, whatever the kind of call. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::ledger::Task;

/// What Stripe's list shows.
#[derive(Debug)]
pub(crate) struct Sight {
    /// What it has of ours, if anything that matters.
    pub(crate) seen: Option<Seen>,
    /// The newest that another program made in our place.
    pub(crate) foreign: Option<String>,
    /// The list accounts for everything that Stripe says has happened. Lists can lag.
    pub(crate) complete: bool,
    /// Stripe's `Request-Id` of the list.
    pub(crate) request_id: Option<String>,
}

/// What Stripe has of ours.
#[derive(Debug)]
pub(crate) enum Seen {
    /// It is done, under this id, and by this balance transaction where Stripe shows one.
    Done { id: String, balance_transaction: Option<String> },
    /// It was done otherwise than asked.
    Mismatch { code: &'static str, message: String },
    /// Stripe ended it without doing it.
    Ended { message: String },
    /// Stripe has accepted it and is not done.
    Accepted { id: String, status: String },
}

/// What follows from a look.
#[derive(Debug)]
pub(crate) enum AfterLook {
    /// To report what was seen.
    Seen(Seen),
    /// Stripe has accepted it under this id: whatever the list says, there is no second call.
    Accepted(String),
    /// To ask for it, under the same key.
    Make,
    /// To look once more after the settling time.
    LookAgain,
    /// To ask for it under a new key.
    NewGeneration,
    /// To call it off: nothing is owed any more.
    CallOff,
}

/// Whether it was absent from Stripe's list so long ago that a call on its way then must be in the list by now.
pub(crate) fn has_settled(absent_since: Option<DateTime<Utc>>, now: DateTime<Utc>, settling: Duration) -> bool {
    absent_since.is_some_and(|then| (now - then).to_std().unwrap_or_default() >= settling)
}

/// What is not there is asked for under the same key as before, if Stripe may not have executed that. A new key comes only when
/// the old one never executes any more, and only after the list was seen without it twice: what was on its way then is in it now.
pub(crate) fn after_look(task: &Task, sight: Sight, now: DateTime<Utc>, settling: Duration) -> AfterLook {
    match (sight.seen, task.call.accepted_id.clone()) {
        (Some(seen), _) => AfterLook::Seen(seen),
        (None, Some(id)) => AfterLook::Accepted(id),
        _ if sight.complete && task.may_be_made(now) => AfterLook::Make,
        _ if !sight.complete || !has_settled(task.call.absent_since, now, settling) => AfterLook::LookAgain,
        _ if task.is_owed() => AfterLook::NewGeneration,
        _ => AfterLook::CallOff,
    }
}
