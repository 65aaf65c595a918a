//! The results: a table for people, and one line of JSON for programs.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cost::Cost,
    drain::Drain,
    webhooks::{Intake, Percentiles},
};

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) postgres: String,
    pub(crate) rabbitmq: String,
}

/// `clawback payments import`, one transfer a payment.
#[derive(Debug, Serialize)]
pub(crate) struct Import {
    pub(crate) payments: u32,
    pub(crate) payments_per_second: f64,
    pub(crate) cost: Cost,
}

#[derive(Debug, Serialize)]
pub(crate) struct Intakes {
    pub(crate) rounds: Vec<Intake>,
    /// From the last answer until the relay had put all jobs on the queue.
    pub(crate) published_after_seconds: f64,
    pub(crate) cost: Cost,
}

#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    #[serde(flatten)]
    pub(crate) drain: Drain,
    pub(crate) cost: Cost,
}

/// In MB.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) start: f64,
    /// `serve`: after intake; `worker`: after the drain.
    pub(crate) after_backlog: f64,
    pub(crate) peak: f64,
    pub(crate) end: f64,
}

/// Everything of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) refunds: u32,
    pub(crate) machine: Machine,
    pub(crate) import: Import,
    pub(crate) intake: Intakes,
    pub(crate) drain: Measured,
    pub(crate) latency: Percentiles,
    pub(crate) memory_mb: BTreeMap<&'static str, Memory>,
    /// `bare`, and the peers.
    pub(crate) others: BTreeMap<&'static str, Measured>,
}

impl Report {
    /// # Errors
    /// When it can't be written as JSON.
    pub(crate) fn print(&self) -> Result<()> {
        let Machine { cores, postgres, rabbitmq } = &self.machine;
        println!("\n{} refunds, {cores} cores, PostgreSQL {postgres}, RabbitMQ {rabbitmq}", self.refunds);
        self.print_speed();
        self.print_costs();
        self.print_memory();
        let mut json = serde_json::to_value(self)?;
        json["ratios"] = self.ratios().into_iter().map(|(name, ratio)| (format!("drain_to_{name}"), ratio)).collect();
        println!("{}", rounded(json));
        Ok(())
    }

    /// The drain's rate by that of each of the others.
    fn ratios(&self) -> Vec<(&'static str, f64)> {
        let drain = self.drain.drain.jobs_per_second;
        self.others.iter().map(|(name, other)| (*name, drain / other.drain.jobs_per_second)).collect()
    }

    fn print_speed(&self) {
        let mut table = table(&["", "per second", "p50 ms", "p99 ms", "max ms"]);
        let none = || [String::new(), String::new(), String::new()];
        let latencies = |of: &Percentiles| [of.p50_ms, of.p99_ms, of.max_ms].map(|ms| format!("{ms:.1}"));
        let mut add = |name: String, rate: String, latencies: [String; 3]| {
            row(&mut table, name, [rate].into_iter().chain(latencies))
        };
        add("import, payments".into(), format!("{:.0}", self.import.payments_per_second), none());
        for round in &self.intake.rounds {
            let name = format!("intake, webhooks, connections: {}", round.connections);
            add(name, format!("{:.0}", round.webhooks_per_second), latencies(&round.latency));
        }
        add("drain, reversals".into(), format!("{:.0}", self.drain.drain.jobs_per_second), none());
        add("webhook → reversed, idle".into(), String::new(), latencies(&self.latency));
        for (name, other) in &self.others {
            let drain = other.drain;
            add(format!("{name}, jobs"), format!("{:.0}", drain.jobs_per_second), none());
        }
        for (name, ratio) in self.ratios() {
            add(format!("drain / {name}"), format!("{ratio:.2}"), none());
        }
        println!("{table}");
    }

    fn print_costs(&self) {
        let mut phases =
            vec![("import", &self.import.cost), ("intake", &self.intake.cost), ("drain", &self.drain.cost)];
        phases.extend(self.others.iter().map(|(name, other)| (*name, &other.cost)));
        let mut header = vec!["cost of one"];
        header.extend(phases.iter().map(|(name, _)| *name));
        let mut table = table(&header);
        row(&mut table, "statements".into(), phases.iter().map(|(_, cost)| format!("{:.1}", cost.statements)));
        row(&mut table, "WAL, bytes".into(), phases.iter().map(|(_, cost)| format!("{:.0}", cost.wal_bytes)));
        const PROCESSES: [&str; 10] = [
            "postgres",
            "rabbitmq",
            "simulator",
            "serve",
            "worker",
            "bare",
            "dramatiq",
            "celery",
            "bench",
            "anything else",
        ];
        for process in PROCESSES {
            let cells: Vec<_> = phases.iter().map(|(_, cost)| cost.cpu_ms.get(process)).collect();
            if cells.iter().any(Option::is_some) {
                let cells = cells.into_iter().map(|ms| ms.map(|ms| format!("{ms:.3}")).unwrap_or_default());
                row(&mut table, format!("CPU of {process}, ms"), cells);
            }
        }
        println!("{table}");
    }

    fn print_memory(&self) {
        let mut table = table(&["resident memory, MB", "start", "after its backlog", "peak", "end"]);
        for (name, memory) in &self.memory_mb {
            let cells = [memory.start, memory.after_backlog, memory.peak, memory.end];
            row(&mut table, (*name).to_owned(), cells.into_iter().map(|megabytes| format!("{megabytes:.1}")));
        }
        println!("{table}");
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn row(table: &mut Table, name: String, numbers: impl IntoIterator<Item = String>) {
    let numbers = numbers.into_iter().map(|number| Cell::new(number).set_alignment(CellAlignment::Right));
    table.add_row([Cell::new(name)].into_iter().chain(numbers));
}

/// With at most three decimals.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => Value::from((float * 1000.0).round() / 1000.0),
            None => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(rounded).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, rounded(value))).collect(),
        other => other,
    }
}
