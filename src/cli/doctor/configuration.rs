//! The doctor's look at the configuration: what is wrong with it, or else what is left unset and what follows from that.

use super::finding::{Finding, Status};
use crate::app;
use crate::cli::terminal::plain;
use crate::cli::topology::situation;
use crate::config::{AppEnv, Config, ConfigError, Effective, SettingSource, UnknownVariable};
use crate::ledger::{Process, ProcessRole, Situation};

const CHECK: &str = "configuration";

/// A line for each problem, as the start would tell them.
pub(super) fn unusable(error: &ConfigError) -> Vec<Finding> {
    let remedy = "`clawback config --help` says where settings come from; nothing else was checked";
    let finding = |problem: &crate::config::Problem| {
        Finding::error(CHECK, format!("{} {}", problem.setting, problem.problem), remedy)
    };
    error.problems().iter().map(finding).chain(unknown(error.unknown_variables())).collect()
}

/// `is_whole`: this is the configuration of the process that takes webhooks, and no other one makes up for it.
pub(super) async fn check(config: &Config, effective: &Effective, is_whole: bool) -> Vec<Finding> {
    let settings = &effective.settings;
    let changed = settings.iter().filter(|setting| setting.source != SettingSource::Default).count();
    let env = match config.app_env {
        AppEnv::Development => "development",
        AppEnv::Production => "production",
    };
    let said = format!("{env}; {changed} of {} settings differ from the default (`clawback config`)", settings.len());
    let mut findings = vec![Finding::ok(CHECK, said)];
    findings.extend(unknown(&effective.unknown_variables));
    let mut doors = webhooks(config);
    doors.push(api(config));
    // The database is asked only where it matters.
    if !is_whole && doors.iter().any(|finding| finding.status == Status::Warning) {
        let (situation, host) = (situation(config).await, app::host());
        let elsewhere = situation.as_deref().and_then(|situation| served_elsewhere(situation, host.as_deref()));
        if let Some(process) = elsewhere {
            doors = doors.into_iter().map(|finding| of_another(finding, process)).collect();
        }
    }
    findings.extend(doors);
    if !config.reversal.worker_enabled {
        let message = "REVERSAL_WORKER_ENABLED is false: this configuration reverses nothing";
        findings.push(Finding::warning("worker", message, "set it to true, or run a worker that has it"));
    }
    findings
}

/// A live process that takes webhooks, on another machine: one on this machine may have just this configuration.
fn served_elsewhere<'a>(situation: &'a Situation, host: Option<&str>) -> Option<&'a Process> {
    let serves = |process: &&Process| process.role != ProcessRole::Worker && Some(process.host.as_str()) != host;
    situation.processes.alive.iter().find(serves)
}

/// What this configuration lacks is no problem where another process has it.
fn of_another(finding: Finding, process: &Process) -> Finding {
    match finding.status {
        Status::Warning => {
            let Process { role, host, .. } = process;
            Finding::ok(&finding.check, plain(&format!("not of this process: {role} on {host} is alive")))
        }
        _ => finding,
    }
}

fn unknown(variables: &[UnknownVariable]) -> impl Iterator<Item = Finding> {
    let remedy = "correct or remove it; `clawback config` lists all settings";
    variables.iter().map(move |variable| Finding::warning(CHECK, variable.to_string(), remedy))
}

fn webhooks(config: &Config) -> Vec<Finding> {
    let (stripe, hyperswitch) = (&config.stripe.webhook_secret, &config.hyperswitch_webhook_secret);
    let stripe = match (stripe, hyperswitch) {
        (Some(_), _) => Finding::ok("Stripe's webhooks", "STRIPE_WEBHOOK_SECRET is set"),
        (None, Some(_)) => Finding::ok("Stripe's webhooks", unset("STRIPE_WEBHOOK_SECRET", "stripe")),
        (None, None) => Finding::warning(
            "Stripe's webhooks",
            unset("STRIPE_WEBHOOK_SECRET", "stripe") + ", and no refund comes in",
            "set it to the signing secret (whsec_…) of the endpoint in Stripe's dashboard",
        ),
    };
    let hyperswitch = match hyperswitch {
        Some(_) => "HYPERSWITCH_WEBHOOK_SECRET is set".to_owned(),
        None => unset("HYPERSWITCH_WEBHOOK_SECRET", "hyperswitch"),
    };
    vec![stripe, Finding::ok("Hyperswitch's webhooks", hyperswitch)]
}

fn unset(name: &str, path: &str) -> String {
    format!("{name} is not set: POST /webhooks/{path} answers 404")
}

fn api(config: &Config) -> Finding {
    match (&config.api_token, &config.api_read_token) {
        (Some(_), Some(_)) => Finding::ok("API", "API_TOKEN and API_READ_TOKEN are set"),
        (Some(_), None) => Finding::ok("API", "API_TOKEN is set; API_READ_TOKEN, which may only read, is not"),
        (None, Some(_)) => Finding::warning(
            "API",
            "only API_READ_TOKEN is set: nobody can register payments by the API",
            "set API_TOKEN: openssl rand -hex 32",
        ),
        (None, None) => Finding::warning(
            "API",
            "neither API_TOKEN nor API_READ_TOKEN is set: /v1 answers 404, payments can only be imported",
            "set API_TOKEN: openssl rand -hex 32",
        ),
    }
}
