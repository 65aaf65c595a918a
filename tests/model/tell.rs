//! A counterexample in words.

use uuid::Uuid;

use super::world::{Action, World};

/// What happens on the way.
pub(super) fn trace(path: &[(World, Option<Action>)]) -> String {
    let told = |(world, action): &(World, Option<Action>)| Some(world.tell(action.as_ref()?));
    let steps = path.iter().filter_map(told).enumerate().map(|(index, told)| format!("    {:>2}. {told}", index + 1));
    steps.collect::<Vec<_>>().join("\n")
}

impl World {
    /// What `action` does here, for people.
    fn tell(&self, action: &Action) -> String {
        let call = |id: &Uuid| format!("call {}", id.as_u128() % 0x100);
        match action {
            Action::Step(worker) => format!("worker {worker} {}", self.workers[*worker].does()),
            Action::Take(worker, id) => format!("worker {worker} takes the job of {}", call(id)),
            Action::Crash(worker) => format!("worker {worker} dies"),
            Action::TimeOut(worker) => format!("worker {worker} waits no longer, and its request is still on its way"),
            Action::Arrive(index, trouble) => {
                let key = &self.requests[*index].request.key;
                let with = trouble.map(|trouble| format!(" ({trouble:?})")).unwrap_or_default();
                format!("Stripe executes the request under the key …{}{with}", &key[key.len() - 6..])
            }
            Action::LoseAnswer(index) => {
                let key = &self.requests[*index].request.key;
                format!("Stripe executes the request under the key …{}, and its answer is lost", &key[key.len() - 6..])
            }
            Action::Publish(id) => format!("the job of {} is published", call(id)),
            Action::Duplicate(id) => format!("the broker has the job of {} twice", call(id)),
            Action::LoseJob(id) => format!("the broker loses the job of {}", call(id)),
            Action::Sweep(id) => format!("the sweeper makes a new job of {}", call(id)),
            Action::Replay(id) => format!("an operator replays {}", call(id)),
            Action::Report(event) => format!("the provider reports event {event}"),
            Action::LoseRequest(_) => "a request is lost".to_owned(),
            Action::ReportAgain(event) => format!("the provider reports event {event} again"),
            Action::LoseOutbox => "the process dies before it has published".to_owned(),
            Action::LoseCommits => "the ledger loses its last commits".to_owned(),
            Action::PassMinute => "a minute passes".to_owned(),
            Action::PassDay { keys_are_forgotten: true } => "a day passes, and Stripe forgets its keys".to_owned(),
            Action::PassDay { .. } => "a day passes".to_owned(),
        }
    }
}
