//! How parked messages are shown: in blocks of at most 80 columns, or as JSON whose names are only ever added.

use std::io::{Result, Write};

use serde_json::{Value, json};

use crate::cli::output::{WIDTH, wrap};
use crate::cli::terminal::{plain, time};
use crate::operator::{Handled, Parked, ParkedAction, RowState, Sorted};

pub(super) fn list(out: &mut impl Write, found: &[Parked]) -> Result<()> {
    if found.is_empty() {
        return writeln!(out, "Nothing is parked.");
    }
    writeln!(out, "{:<36} {:<16} TRIES PARKED", "MESSAGE", "KIND")?;
    for parked in found {
        let at =
            parked.job.parked_at.map_or_else(|| "unknown".to_owned(), |at| at.format("%m-%d %H:%M UTC").to_string());
        let head =
            format!("{:<36} {:<16} {:>5} {at}", plain(&parked.job.id), plain(&parked.job.kind), parked.job.attempts);
        // Other programs publish too: what does not fit the columns is wrapped.
        if head.chars().count() <= usize::from(WIDTH) {
            writeln!(out, "{head}")?
        } else {
            wrap(out, "", "  ", &head)?
        }
        writeln!(out, "  {}", row(parked))?;
        wrap(
            out,
            "  ",
            "  ",
            &plain(parked.job.reason.as_deref().unwrap_or("published there, not parked by a worker")),
        )?;
    }
    Ok(())
}

pub(super) fn details(out: &mut impl Write, found: &[Parked]) -> Result<()> {
    for (index, parked) in found.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let job = &parked.job;
        let at = |at: Option<_>| at.map_or_else(|| "unknown".to_owned(), time);
        let lines = [
            ("Message", job.id.clone()),
            ("Queue", parked.queue.clone()),
            ("Kind", job.kind.clone()),
            ("About", row(parked)),
            ("Tries", job.attempts.to_string()),
            ("Parked", at(job.parked_at)),
            ("Reason", job.reason.clone().unwrap_or_else(|| "none".to_owned())),
            ("Published", at(job.first_published_at)),
            ("Correlation", job.correlation_id.clone().unwrap_or_else(|| "none".to_owned())),
            ("Payload", String::from_utf8_lossy(&job.payload).into_owned()),
        ];
        for (name, value) in lines {
            wrap(out, &format!("{name:<13}"), "             ", &plain(&value))?;
        }
        writeln!(out, "Headers")?;
        for (name, value) in &job.headers {
            wrap(out, "  ", "    ", &plain(&format!("{name}: {value}")))?;
        }
    }
    Ok(())
}

pub(super) fn handled(out: &mut impl Write, sorted: &Sorted, dry_run: bool, done: &str) -> Result<()> {
    for Handled { parked, action } in &sorted.handled {
        let (word, why) = in_words(action, dry_run);
        let id = if parked.job.id.is_empty() { "(no id)" } else { &parked.job.id };
        wrap(out, "", "  ", &plain(&format!("{id} {word}{why}")))?;
        writeln!(out, "  {}", row(parked))?;
    }
    let count = |is_it: fn(&ParkedAction) -> bool| sorted.handled.iter().filter(|it| is_it(&it.action)).count();
    let skipped = count(|action| matches!(action, ParkedAction::Skipped { .. }));
    let dealt_with = sorted.handled.len() - skipped;
    match (sorted.handled.is_empty(), dry_run) {
        (true, _) => writeln!(out, "Nothing that is parked matches.")?,
        (false, true) => writeln!(out, "{dealt_with} would be {done}, {skipped} skipped. Nothing was changed.")?,
        (false, false) => writeln!(out, "{dealt_with} {done}, {skipped} skipped.")?,
    }
    let replayed =
        sorted.handled.iter().find(|it| it.action == ParkedAction::Replayed || it.action == ParkedAction::SentBack);
    if let Some(subject) = replayed.filter(|_| !dry_run).and_then(|it| it.parked.subject) {
        let next = "The relay brings the new jobs to the worker, which first asks Stripe whether it has happened.";
        wrap(out, "", "", next)?;
        writeln!(out, "Watch them with: clawback trace {}", subject.id)?;
    }
    Ok(())
}

pub(super) fn list_as_json(found: &[Parked]) -> Value {
    json!({"parked": found.iter().map(as_json).collect::<Vec<_>>()})
}

pub(super) fn details_as_json(parked: &Parked) -> Value {
    let job = &parked.job;
    let payload: Value = serde_json::from_slice(&job.payload)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&job.payload).into_owned()));
    let mut details = as_json(parked);
    details["first_published_at"] = json!(job.first_published_at);
    details["correlation_id"] = json!(job.correlation_id);
    details["headers"] = json!(job.headers);
    details["payload"] = payload;
    details
}

pub(super) fn handled_as_json(sorted: &Sorted, dry_run: bool) -> Value {
    let handled = sorted.handled.iter().map(|Handled { parked, action }| {
        let mut handled = as_json(parked);
        let (done, detail) = match action {
            ParkedAction::Replayed => ("replayed", None),
            ParkedAction::SentBack => ("sent_back", None),
            ParkedAction::TakenAway => ("taken_away", None),
            ParkedAction::Discarded => ("discarded", None),
            ParkedAction::Skipped { why } => ("skipped", Some(why)),
        };
        handled["done"] = json!(done);
        handled["detail"] = json!(detail);
        handled
    });
    let interrupted = sorted.interrupted.as_ref().map(ToString::to_string);
    json!({"dry_run": dry_run, "handled": handled.collect::<Vec<_>>(), "interrupted": interrupted})
}

fn as_json(parked: &Parked) -> Value {
    let job = &parked.job;
    json!({
        "id": job.id,
        "queue": parked.queue,
        "kind": job.kind,
        "entity": parked.subject.map(|subject| subject.entity()),
        "entity_id": parked.subject.map(|subject| subject.id),
        "row_status": parked.status,
        "settled": parked.standing == RowState::Settled,
        "attempts": job.attempts,
        "parked_at": job.parked_at,
        "reason": job.reason,
    })
}

/// The row that it is about, and how that stands.
fn row(parked: &Parked) -> String {
    let Some(subject) = parked.subject else { return "about no row that this version knows".to_owned() };
    let settled = if parked.standing == RowState::Settled { " (settled)" } else { "" };
    let status = parked.status.as_deref().unwrap_or("not in the ledger");
    format!("{} {}: {status}{settled}", subject.entity(), subject.id)
}

fn in_words(action: &ParkedAction, dry_run: bool) -> (&'static str, String) {
    let why = if let ParkedAction::Skipped { why } = action { format!(": {why}") } else { String::new() };
    let word = match (action, dry_run) {
        (ParkedAction::Replayed, false) => "replayed",
        (ParkedAction::Replayed, true) => "would be replayed",
        (ParkedAction::SentBack, false) => "sent back to work",
        (ParkedAction::SentBack, true) => "would be sent back to work",
        (ParkedAction::TakenAway, false) => "taken away, since it is settled",
        (ParkedAction::TakenAway, true) => "would be taken away, since it is settled",
        (ParkedAction::Discarded, false) => "discarded",
        (ParkedAction::Discarded, true) => "would be discarded",
        (ParkedAction::Skipped { .. }, false) => "skipped",
        (ParkedAction::Skipped { .. }, true) => "would be skipped",
    };
    (word, why)
}
