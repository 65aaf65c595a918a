//! Parked messages that have nothing more to say: their call was replayed since, or is done. Nobody is shown them, and they are
//! dropped some seconds after an operation or a request to the API, or when an operator next acts on parked messages.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use queues::{ParkedJob, Verdict};

use super::{Filter, JobTarget, Operator, Parked};
use crate::ledger::{Call, CallState};

/// Whether `job` was parked for something that is over. A message that was parked although its call is open (its job was cut
/// off again and again) is not.
pub(super) fn is_superseded(job: &ParkedJob, call: &Call) -> bool {
    match call.state {
        CallState::Done | CallState::CalledOff => true,
        CallState::Open | CallState::Waiting => call.has_changed_since(job.parked_at),
        CallState::Failed => false,
    }
}

/// What a message is about, and when it was parked.
type About = (Option<JobTarget>, Option<DateTime<Utc>>);

/// Of several messages about one call that failed permanently, all but the one that was parked last.
fn older_twins(found: &[About]) -> Vec<usize> {
    let mut newest: HashMap<JobTarget, (Option<DateTime<Utc>>, usize)> = HashMap::new();
    for (index, (subject, at)) in found.iter().enumerate() {
        let Some(subject) = subject else { continue };
        let best = newest.entry(*subject).or_insert((*at, index));
        *best = (*best).max((*at, index));
    }
    let is_older = |(index, (subject, _)): (usize, &About)| {
        let (_, best) = newest.get(&(*subject)?)?;
        (*best != index).then_some(index)
    };
    found.iter().enumerate().filter_map(is_older).collect()
}

/// What is superseded, and the rest.
pub(super) fn sorted_out(found: Vec<(Parked, bool)>) -> (Vec<Parked>, Vec<Parked>) {
    let (mut over, mut left) = (Vec::new(), Vec::new());
    for (parked, is_superseded) in found {
        if is_superseded { &mut over } else { &mut left }.push(parked);
    }
    let about: Vec<About> = left.iter().map(|parked| (parked.subject, parked.job.parked_at)).collect();
    for index in older_twins(&about).into_iter().rev() {
        over.push(left.remove(index));
    }
    (over, left)
}

impl Operator {
    /// Drops what is superseded.
    pub(super) async fn drop_superseded(&self) {
        let (over, _) = match self.found(&Filter::default()).await {
            Ok(found) => sorted_out(found),
            Err(error) => return tracing::warn!(%error, "superseded messages stay parked; they do no harm"),
        };
        for topology in &self.topologies {
            let queue = topology.parked_queue();
            let ids: Vec<_> =
                over.iter().filter(|parked| parked.queue == queue).map(|parked| key(&parked.job)).collect();
            if ids.is_empty() {
                continue;
            }
            let judge = async |job: &ParkedJob| match ids.contains(&key(job)) {
                true => Verdict::Discard { reason: "its call has moved on".to_owned() },
                false => Verdict::Keep,
            };
            if let Err(error) = self.parking(topology).judge(&queues::Selection::all(), Duration::ZERO, judge).await {
                tracing::warn!(queue, %error, "superseded messages stay parked; they do no harm");
            }
        }
    }
}

fn key(job: &ParkedJob) -> (String, Option<DateTime<Utc>>) {
    (job.id.clone(), job.parked_at)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn of_the_messages_about_one_failed_call_the_last_one_stays() {
        let about = |n| Some(JobTarget { kind: crate::ledger::CallKind::Reverse, id: uuid::Uuid::from_u128(n) });
        let at = |seconds| Some(DateTime::from_timestamp(seconds, 0).unwrap());
        let found =
            [(about(1), at(10)), (about(2), at(5)), (about(1), at(20)), (about(1), None), (None, at(1)), (None, at(2))];
        assert_eq!(older_twins(&found), [0, 3]);
    }
}
