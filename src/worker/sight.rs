//! What a look at Stripe's list shows, and what follows from it, whatever the kind of call. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::decision::Otherwise;
use crate::ledger::Task;

/// What Stripe's list shows.
#[derive(Debug)]
pub(crate) struct Sight {
    /// What it has of ours, if anything that matters.
    pub(crate) seen: Option<Seen>,
    /// The newest that another program made, where such have taken as much as is asked for.
    pub(crate) foreign: Option<String>,
    /// The list accounts for everything that Stripe says has happened. Lists can lag.
    pub(crate) complete: bool,
    /// What is listed has taken all that there is.
    pub(crate) nothing_left: bool,
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

/// What follows from a look because Stripe has refused: less is left than asked, or the key was used for something else.
#[derive(Debug)]
pub(crate) enum AfterRefusal {
    /// To report what was seen.
    Seen(Seen),
    /// Another program has done it, under this id.
    DoneByAnother(String),
    /// To look again: what is listed does not explain the refusal yet.
    LookAgain,
    /// It is not done, and never will be as it was asked.
    Fail,
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

/// Of a transfer that is fully reversed, something was taken by whoever is listed: by another program in our place, or by our own
/// reversals for other claims, and then nothing is left for this one.
pub(crate) fn after_refusal(otherwise: Otherwise, sight: Sight) -> AfterRefusal {
    match (sight.seen, otherwise, sight.foreign) {
        (Some(seen), ..) => AfterRefusal::Seen(seen),
        _ if !sight.complete => AfterRefusal::LookAgain,
        (None, Otherwise::Fail, _) => AfterRefusal::Fail,
        (None, Otherwise::TakeTheForeignOne, Some(foreign)) => AfterRefusal::DoneByAnother(foreign),
        (None, Otherwise::TakeTheForeignOne, None) if sight.nothing_left => AfterRefusal::Fail,
        // The transfer itself was read as it was before.
        (None, Otherwise::TakeTheForeignOne, None) => AfterRefusal::LookAgain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Target;

    #[test]
    fn what_was_absent_has_settled_once_the_settling_time_is_over() {
        let (now, settling) = (Utc::now(), Duration::from_secs(45));
        let ago = |millis| Some(now - chrono::TimeDelta::milliseconds(millis));
        for (absent_since, expected) in [(None, false), (ago(0), false), (ago(44_999), false), (ago(45_000), true)] {
            assert_eq!(has_settled(absent_since, now, settling), expected, "{absent_since:?}");
        }
    }

    #[test]
    fn what_is_not_listed_is_asked_for_again_under_its_key_and_under_another_only_where_that_is_safe() {
        let (now, settling) = (Utc::now(), Duration::from_secs(45));
        let of = |change: &dyn Fn(&mut Task), complete| {
            let mut task = Task::of_tests();
            change(&mut task);
            let sight = Sight { seen: None, foreign: None, complete, nothing_left: false, request_id: None };
            format!("{:?}", after_look(&task, sight, now, settling))
        };
        let accepted = |task: &mut Task| task.call.accepted_id = Some("trr_1".to_owned());
        let usable = |_: &mut Task| {};
        let burnt = |task: &mut Task| task.call.key_burnt_at = Some(now);
        let settled = |task: &mut Task| {
            burnt(task);
            task.call.absent_since = Some(now - chrono::TimeDelta::seconds(45));
        };
        let over = |task: &mut Task| {
            settled(task);
            if let Target::Reversal(target) = &mut task.target {
                target.claim_stands = false;
            }
        };
        // Whatever the list says, what Stripe has accepted is not asked for twice.
        assert_eq!(
            (of(&accepted, true), of(&accepted, false)),
            ("Accepted(\"trr_1\")".into(), "Accepted(\"trr_1\")".into())
        );
        assert_eq!((of(&usable, true), of(&usable, false)), ("Make".into(), "LookAgain".into()));
        assert_eq!((of(&burnt, true), of(&burnt, false)), ("LookAgain".into(), "LookAgain".into()));
        assert_eq!((of(&settled, true), of(&settled, false)), ("NewGeneration".into(), "LookAgain".into()));
        assert_eq!((of(&over, true), of(&over, false)), ("CallOff".into(), "LookAgain".into()));
    }

    #[test]
    fn a_refusal_ends_only_what_the_list_explains() {
        let sight = |foreign: Option<&str>, complete, nothing_left| Sight {
            seen: None,
            foreign: foreign.map(ToOwned::to_owned),
            complete,
            nothing_left,
            request_id: None,
        };
        use AfterRefusal as A;
        use Otherwise::{Fail, TakeTheForeignOne};
        let of = |otherwise, sight| match after_refusal(otherwise, sight) {
            A::Seen(_) => "seen",
            A::DoneByAnother(_) => "done by another",
            A::LookAgain => "look again",
            A::Fail => "fail",
        };
        for (otherwise, foreign, complete, nothing_left, expected) in [
            (TakeTheForeignOne, Some("trr_1"), true, true, "done by another"),
            (TakeTheForeignOne, None, true, true, "fail"),
            // What is missing from the list may be ours.
            (TakeTheForeignOne, Some("trr_1"), false, false, "look again"),
            (TakeTheForeignOne, None, false, false, "look again"),
            // Transfer and list are both as they were before.
            (TakeTheForeignOne, None, true, false, "look again"),
            (Fail, Some("trr_1"), true, false, "fail"),
            (Fail, None, false, false, "look again"),
        ] {
            let case = format!("{otherwise:?} {foreign:?} {complete} {nothing_left}");
            assert_eq!(of(otherwise, sight(foreign, complete, nothing_left)), expected, "{case}");
        }
        let seen = Some(Seen::Ended { message: String::new() });
        assert_eq!(of(Fail, Sight { seen, ..sight(None, false, false) }), "seen");
    }
}
