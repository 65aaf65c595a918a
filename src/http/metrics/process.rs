//! What this process is, and what it uses.

use std::fs;

use super::exposition::{Exposition, labels};
use crate::http::ApiState;

/// Linux counts processor time in these.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn add(text: &mut Exposition, state: &ApiState) {
    let version = labels([("version", env!("CARGO_PKG_VERSION"))]);
    text.gauges("clawback_build_info", "1, with Clawback's version.", [(version, 1)]);
    if let Some(limiter) = &state.limiter {
        let help = "Current limit of this process's calls to Stripe.";
        text.gauge("clawback_stripe_limiter_rate_per_second", help, limiter.per_second());
    }
    if let Some(breaker) = &state.stripe {
        let now = breaker.borrow().to_string();
        let states = ["closed", "half_open", "open"].map(|name| (labels([("state", name)]), u8::from(now == name)));
        text.gauges("clawback_circuit_breaker_state", "1 for the state of this process's circuit breaker.", states);
    }
    if let Some(broker) = &state.broker {
        let help = "1 while this process can publish jobs to the broker.";
        text.gauge("clawback_broker_connected", help, u8::from(broker.borrow().is_connected()));
    }
    if !state.consumers.is_empty() {
        let help = "Of how many queues this process takes jobs.";
        text.gauge("clawback_consumers", help, state.consumers.len());
        let connected = state.consumers.iter().filter(|consumer| consumer.borrow().is_connected()).count();
        let help = "How many of these consumers are connected to the broker.";
        text.gauge("clawback_consumers_connected", help, connected);
    }
    let pools = state.ledger.connections();
    let connections = pools.iter().flat_map(|(pool, open, idle)| {
        let used = usize::try_from(*open).unwrap_or_default().saturating_sub(*idle);
        [("idle", *idle), ("used", used)].map(|(state, number)| (labels([("pool", pool), ("state", state)]), number))
    });
    text.gauges("clawback_database_connections", "Open connections to the database, by pool.", connections);
    add_usage(text);
}

/// Under the names that every Prometheus client uses. Nothing where the system has no `/proc`.
fn add_usage(text: &mut Exposition) -> Option<()> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, which may contain anything.
    let fields: Vec<f64> =
        stat.rsplit_once(')')?.1.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let (user, system, started) = (fields.get(10)?, fields.get(11)?, fields.get(18)?);
    let cpu = (user + system) / TICKS_PER_SECOND;
    text.counter("process_cpu_seconds_total", "Processor time used.", cpu);
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let help = "When the process started, in seconds since 1970.";
    text.gauge("process_start_time_seconds", help, booted + started / TICKS_PER_SECOND);
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().split(' ').next()?.parse().ok()?;
    text.gauge("process_resident_memory_bytes", "Memory in use.", resident * 1_024);
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    text.gauge("process_open_fds", "Open file descriptors.", open);
    Some(())
}
