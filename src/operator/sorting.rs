//! Sends parked messages back to work, or throws them away: for each, the ledger first, then the message.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use queues::{ParkedJob, Selection, Topology, Verdict};

use super::{JobTarget, Operator, OperatorError, Parked, RowState};
use crate::ledger::{LedgerError, Note};

/// What is, or would be, done with a parked message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParkedAction {
    /// Its row is open again, with a new job in the message's place.
    Replayed,
    /// Its row was still to be done: the message itself went back to the work queue.
    SentBack,
    /// Its row was done: the message was only taken away.
    TakenAway,
    /// Thrown away; its row stays as it is.
    Discarded,
    /// Nothing: it is still parked.
    Skipped {
        /// Why.
        why: String,
    },
}

/// A parked message that was dealt with.
#[derive(Clone, Debug)]
pub struct Handled {
    /// As it was when it was selected.
    pub parked: Parked,
    /// What was done.
    pub action: ParkedAction,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Sorted {
    /// In the order in which they were dealt with.
    pub handled: Vec<Handled>,
    /// Why it ended early. What had been handled last may still be parked, though its row has moved on.
    pub interrupted: Option<OperatorError>,
}

impl Parked {
    /// What a replay would do with it.
    #[must_use]
    pub fn on_replay(&self) -> ParkedAction {
        match self.standing {
            RowState::Failed => ParkedAction::Replayed,
            RowState::Open => ParkedAction::SentBack,
            RowState::Settled => ParkedAction::TakenAway,
            RowState::Unknown => ParkedAction::Skipped { why: "the ledger has no row that it is about".to_owned() },
        }
    }
}

impl Operator {
    /// Has the rows of these messages tried again, spread evenly over `spread` (zero: as fast as it goes).
    pub async fn replay_parked(&self, chosen: Vec<Parked>, spread: Duration, note: &Note) -> Sorted {
        self.drop_superseded().await;
        let interval = spread / u32::try_from(chosen.len()).unwrap_or(u32::MAX).max(1);
        self.sort(chosen, interval, note, async |parked| self.replay_one(parked, note).await).await
    }

    /// Throws these messages away. Their rows stay as they are, with operator and reason in their histories.
    pub async fn discard_parked(&self, chosen: Vec<Parked>, note: &Note) -> Sorted {
        self.drop_superseded().await;
        self.sort(chosen, Duration::ZERO, note, async |parked| self.discard(parked, note).await).await
    }

    async fn sort(
        &self,
        chosen: Vec<Parked>,
        interval: Duration,
        note: &Note,
        deal_with: impl AsyncFn(&Parked) -> Result<ParkedAction, LedgerError>,
    ) -> Sorted {
        let mut sorted = Sorted::default();
        let mut of_queue: HashMap<String, Vec<Parked>> = HashMap::new();
        for parked in chosen {
            of_queue.entry(parked.queue.clone()).or_default().push(parked);
        }
        for topology in &self.topologies {
            let Some(chosen) = of_queue.remove(&topology.parked_queue()) else { continue };
            let ended = self.sort_queue(topology, chosen, interval, note, &deal_with, &mut sorted.handled).await;
            if let Err(error) = ended {
                sorted.interrupted = Some(error);
                break;
            }
        }
        sorted
    }

    async fn sort_queue(
        &self,
        topology: &Topology,
        chosen: Vec<Parked>,
        interval: Duration,
        note: &Note,
        deal_with: &impl AsyncFn(&Parked) -> Result<ParkedAction, LedgerError>,
        handled: &mut Vec<Handled>,
    ) -> Result<(), OperatorError> {
        let mut database_lost = None;
        let mut waiting: HashMap<String, VecDeque<Parked>> = HashMap::new();
        for parked in chosen {
            waiting.entry(parked.job.id.clone()).or_default().push_back(parked);
        }
        let judge = async |job: &ParkedJob| {
            if database_lost.is_some() {
                return Verdict::Keep;
            }
            let Some(parked) = waiting.get_mut(&job.id).and_then(VecDeque::pop_front) else { return Verdict::Keep };
            let action = match deal_with(&parked).await {
                Ok(action) => action,
                Err(error @ LedgerError::Database(_)) => {
                    database_lost = Some(error);
                    return Verdict::Keep;
                }
                Err(error) => ParkedAction::Skipped { why: error.to_string() },
            };
            let verdict = match action {
                ParkedAction::SentBack => Verdict::Replay,
                ParkedAction::Replayed | ParkedAction::TakenAway | ParkedAction::Discarded => {
                    Verdict::Discard { reason: format!("{}: {}", note.actor, note.reason) }
                }
                ParkedAction::Skipped { .. } => Verdict::Keep,
            };
            handled.push(Handled { parked, action });
            verdict
        };
        self.parking(topology).judge(&Selection::all(), interval, judge).await?;
        if let Some(error) = database_lost {
            return Err(LedgerError::into(error));
        }
        let why = "somebody else was faster: it is not parked any more";
        let gone = waiting.into_values().flatten();
        handled.extend(gone.map(|parked| Handled { parked, action: ParkedAction::Skipped { why: why.to_owned() } }));
        Ok(())
    }

    async fn replay_one(&self, parked: &Parked, note: &Note) -> Result<ParkedAction, LedgerError> {
        let Some(subject) = parked.subject else { return Ok(parked.on_replay()) };
        let now = self.standings(&[subject]).await?.remove(&subject);
        match (now.map_or(RowState::Unknown, |(_, standing)| standing), subject) {
            (RowState::Failed, JobTarget { kind, id }) => {
                self.ledger.replay(kind, &id.to_string(), note).await?;
                Ok(ParkedAction::Replayed)
            }
            (RowState::Open, _) => {
                self.remark(subject, "its parked message goes back to work", note).await?;
                Ok(ParkedAction::SentBack)
            }
            (RowState::Settled, _) => {
                self.remark(subject, "its parked message is taken away, since it is done", note).await?;
                Ok(ParkedAction::TakenAway)
            }
            (RowState::Unknown, _) => Ok(parked.on_replay()),
        }
    }

    async fn discard(&self, parked: &Parked, note: &Note) -> Result<ParkedAction, LedgerError> {
        if let Some(subject) = parked.subject.filter(|_| parked.standing != RowState::Unknown) {
            self.remark(subject, &format!("its parked message {} is discarded", parked.job.id), note).await?;
        }
        Ok(ParkedAction::Discarded)
    }

    async fn remark(&self, subject: JobTarget, what: &str, note: &Note) -> Result<(), LedgerError> {
        let note = Note::new(&note.actor, format!("{what}: {}", note.reason));
        self.ledger.remark(subject.kind, subject.id, &note).await
    }
}
