//! Days pass, and the database forgets its last commits.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clawback::ledger::{EventContent, WebhookEvent};
use sea_orm::ConnectionTrait;

use super::World;
use super::scenario::Act;
use crate::support::rows;

/// Longer than Stripe keeps a key.
const DAY: TimeDelta = TimeDelta::hours(25);
/// What is lost. The history is append-only; nothing is decided by it.
const TABLES: [&str; 8] =
    ["payments", "seller_transfers", "claims", "reversals", "lookups", "calls", "webhook_events", "outbox"];
/// The times that something is decided by.
const TIMES: [(&str, &str); 11] = [
    ("claims", "provider_created_at"),
    ("calls", "created_at"),
    ("calls", "generation_started_at"),
    ("calls", "requested_at"),
    ("calls", "key_burnt_at"),
    ("calls", "outcome_unknown_since"),
    ("calls", "absent_since"),
    ("calls", "refused_since"),
    ("calls", "next_attempt_at"),
    ("calls", "sweep_after"),
    ("calls", "updated_at"),
];

/// What the database will have forgotten, once it is set back.
#[derive(Default)]
pub(super) struct SinceBackup {
    pub(super) events: Vec<WebhookEvent>,
    /// With the thread that they are of.
    pub(super) acts: Vec<(usize, Act)>,
    days: usize,
}

impl World {
    /// Stripe forgets its keys; nothing may run again because of that.
    pub(super) async fn let_a_day_pass(&mut self) {
        self.calls_have_ended().await;
        self.sim.age(DAY.to_std().unwrap_or(Duration::ZERO));
        let kept = self.since_backup.iter_mut().flat_map(|since| &mut since.events);
        for event in self.events.iter_mut().chain(kept) {
            match &mut event.content {
                EventContent::Refunds(refunds) => refunds.iter_mut().for_each(|refund| older(&mut refund.created)),
                EventContent::Dispute(dispute) => older(&mut dispute.created),
                EventContent::LookUp { .. } | EventContent::Irrelevant { .. } => {}
            }
        }
        if let Some(since) = &mut self.since_backup {
            since.days += 1;
        }
        self.rows_get_older(DAY).await;
    }

    async fn rows_get_older(&self, by: TimeDelta) {
        for (table, column) in TIMES {
            let all = format!("SELECT hex(id) AS id, {column} AS time FROM {table} WHERE {column} IS NOT NULL");
            for row in rows(&self.look, &all).await {
                let time: DateTime<Utc> = row["time"].as_str().unwrap().parse().unwrap();
                let (time, id) = ((time - by).to_rfc3339(), row["id"].as_str().unwrap());
                let sql = format!("UPDATE {table} SET {column} = '{time}' WHERE id = x'{id}'");
                self.look.execute_unprepared(&sql).await.unwrap();
            }
        }
    }

    /// The database is copied; or, if it was, set back to that, and whatever it was told since is told again.
    pub(super) async fn back_up_or_forget(&mut self) {
        if !self.plan.forgets {
            return;
        }
        let Some(since) = self.since_backup.take() else { return self.back_up().await };
        let set_back =
            |table| format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM saved.{table};");
        let all: String = TABLES.map(set_back).concat();
        let sql = format!("BEGIN IMMEDIATE; PRAGMA defer_foreign_keys = ON; {all} COMMIT; DETACH saved");
        self.look.execute_unprepared(&sql).await.unwrap();
        self.losses += 1;
        if since.days > 0 {
            self.rows_get_older(DAY * i32::try_from(since.days).unwrap()).await;
        }
        self.events.extend(since.events);
        for (thread, act) in since.acts.into_iter().rev() {
            self.plan.threads[thread].push_front(act);
        }
    }

    async fn back_up(&mut self) {
        let save = |table| format!("CREATE TABLE saved.{table} AS SELECT * FROM main.{table};");
        let sql = format!("ATTACH ':memory:' AS saved; BEGIN IMMEDIATE; {} COMMIT", TABLES.map(save).concat());
        self.look.execute_unprepared(&sql).await.unwrap();
        self.since_backup = Some(SinceBackup::default());
    }
}

fn older(time: &mut Option<DateTime<Utc>>) {
    *time = time.map(|time| time - DAY);
}
