//! Which queues a session consumes: all, none while it is paused, or of partitions those that it does not leave to other
//! workers.

use super::{
    admission::Admission,
    intake::Intake,
    job::Open,
    session::{Session, TIMEOUT},
    share::Share,
};
use crate::connection::text;
use futures_util::{StreamExt, future::try_join_all};
use std::{collections::BTreeSet, mem, time::Duration};
use tokio::time::{Instant, timeout};
use tracing::info;

/// How long a message may wait behind others of its key; ten minutes before the broker closes the channel for it.
const LONGEST_STAY: Duration = Duration::from_secs(20 * 60);
/// How often that is looked at.
pub(super) const STAY_CHECKS: Duration = Duration::from_secs(30);

impl Session {
    /// Consumes every queue that it does not consume yet.
    pub(super) async fn consume(&mut self) -> lapin::Result<()> {
        if let Some(queue) = &self.workers_queue
            && self.share.is_none()
        {
            self.share = Some(Share::join(&self.connection, queue).await?);
        }
        let (connection, prefetch) = (&self.connection, self.prefetch);
        let idle = self.intakes.iter_mut().zip(&self.queues).enumerate();
        let idle = idle.filter(|(_, (intake, _))| !intake.as_ref().is_some_and(Intake::is_consuming));
        let opened = idle.map(async |(number, (intake, queue))| {
            let opened = match intake {
                Some(intake) => intake,
                None => intake.insert(Intake::open(connection, prefetch).await?),
            };
            opened.consume(number, queue).await
        });
        self.messages.extend(try_join_all(opened).await?);
        Ok(())
    }

    /// The same, when it ran before: within a time limit, and with the reason when it fails.
    async fn consume_again(&mut self) -> Result<(), String> {
        let consuming = timeout(TIMEOUT, self.consume()).await;
        consuming.map_err(|_| format!("no consumer within {TIMEOUT:?}"))?.map_err(|error| text(&error))
    }

    /// Messages that have waited for long behind others of their key are taken anew, before the broker closes the channel
    /// for them. They return to their places.
    pub(super) fn check_stay(&mut self, admission: &mut Option<Admission<Open>>) {
        self.check_stay_at = Instant::now() + STAY_CHECKS;
        let old = admission.iter().flat_map(Admission::oldest);
        let old = old.filter(|open| open.received.arrived_at.elapsed() > LONGEST_STAY);
        let old: BTreeSet<usize> = old.map(|open| open.received.intake).collect();
        old.into_iter().for_each(|number| self.leave(number, admission));
    }

    /// Leaves partitions to workers that have fewer.
    pub(super) async fn check_share(&mut self, admission: &mut Option<Admission<Open>>) -> lapin::Result<()> {
        let Some(share) = &mut self.share else { return Ok(()) };
        let is_mine = |intake: &Option<Intake>| intake.as_ref().is_some_and(|intake| intake.active && !intake.leaving);
        let mine: Vec<usize> = (0..self.intakes.len()).filter(|number| is_mine(&self.intakes[*number])).collect();
        let excess = share.excess(mine.len(), self.intakes.len()).await?;
        mine.into_iter().rev().take(excess).for_each(|number| self.leave(number, admission));
        Ok(())
    }

    /// Starts no more jobs of a partition: once none runs, [`leave_and_return`](Self::leave_and_return) closes its channel.
    fn leave(&mut self, number: usize, admission: &mut Option<Admission<Open>>) {
        if let (Some(intake), Some(admission)) = (&mut self.intakes[number], admission) {
            intake.leaving = true;
            admission.forget(|open| open.received.intake == number);
        }
    }

    /// Closes the channels of partitions that are left, and consumes them again, behind those workers that wait for them; all
    /// of them while it is paused, without consuming them again.
    pub(super) async fn leave_and_return(&mut self, admission: &mut Option<Admission<Open>>) -> Result<(), String> {
        let paused = *self.paused.borrow_and_update();
        for number in 0..self.intakes.len() {
            if paused && self.intakes[number].as_ref().is_some_and(|intake| !intake.leaving) {
                self.leave(number, admission);
            }
            if let Some(left) = self.intakes[number].take_if(|intake| intake.leaving && intake.running == 0) {
                info!(queue = self.queues[number], "left, for now");
                left.settle(&self.queues[number]).await;
                left.close().await;
            }
        }
        if paused {
            self.share = None;
        } else if self.intakes.iter().any(Option::is_none) {
            self.consume_again().await?;
        }
        Ok(())
    }

    /// Cancels the consumer or starts a new one on the same channel, which keeps its prefetch.
    pub(super) async fn pause_or_resume(&mut self, admission: &mut Option<Admission<Open>>) -> Result<(), String> {
        let paused = *self.paused.borrow_and_update();
        let consuming = self.intakes.iter().flatten().any(Intake::is_consuming);
        if paused && consuming {
            self.give_back_waiting(admission).await?;
            info!(queue = self.queues[0], "paused: taking no messages");
        } else if !paused && !consuming {
            self.consume_again().await?;
            info!(queue = self.queues[0], "resumed: taking messages");
        }
        Ok(())
    }

    /// Stops taking messages and gives the waiting ones back at once, for other workers; where the order counts, when the
    /// session is closed.
    ///
    /// # Errors
    /// The reason, when the connection is lost: the broker then takes everything back.
    pub(super) async fn give_back_waiting(&mut self, admission: &mut Option<Admission<Open>>) -> Result<(), String> {
        if self.is_in_order() {
            return Ok(());
        }
        for intake in self.intakes.iter_mut().flatten() {
            let cancelled = timeout(TIMEOUT, intake.cancel()).await;
            cancelled
                .map_err(|_| format!("the consumer could not be cancelled within {TIMEOUT:?}"))?
                .map_err(|error| text(&error))?;
        }
        for open in admission.iter_mut().flat_map(|admission| admission.clear(false)) {
            // On an error the channel has ended, which gives it back too.
            let _ = open.unsettled.give_back().await;
        }
        let mut messages = mem::take(&mut self.messages);
        while let Ok(Some((number, Some(Ok(message))))) = timeout(TIMEOUT, messages.next()).await {
            if let Some(intake) = &self.intakes[number] {
                let _ = intake.unsettled(message.delivery_tag, message.acker).give_back().await;
            }
        }
        Ok(())
    }
}
