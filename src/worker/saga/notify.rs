//! A notification: posted until it is taken, at least once and under one id.

use super::{Caller, Interrupted, Success, failure};
use crate::ledger::{NotificationTarget, Postponement, Remainder, Retries, Task, TryOutcome, after, now};

impl Caller {
    /// Posts it, and reports what came of that.
    pub(super) async fn notify(&self, task: &Task, target: &NotificationTarget) -> Result<Task, Interrupted> {
        let posted = match &self.notifier {
            Some(notifier) => notifier.post(task.call.id, &target.body).await,
            None => Err("EVENTS_URL is not set".to_owned()),
        };
        let Err(problem) = posted else {
            return self
                .succeed(task, Success { id: String::new(), externally: false, balance_transaction: None }, None)
                .await;
        };
        let why = failure("not_taken", &problem);
        let used = u32::try_from(task.call.attempts).unwrap_or(u32::MAX);
        let Some(delay) = self.policy.next(used) else {
            return self.fail(task, why, None).await;
        };
        let until = after(now(), delay);
        let reason = format!("{problem}; telling it again at {}", until.format("%F %T UTC"));
        let how = Postponement { until, retries: Retries::Used, remainder: Remainder::SameKey, failure: why };
        self.report(task, TryOutcome::Later(how), &reason, None).await
    }
}
