//! `/ui/doctor`: what `clawback doctor` finds, as this process sees it.

use axum::extract::State;
use maud::{Markup, html};

use super::Ui;
use super::guard::Visitor;
use super::html::Head::Text;
use super::html::{status, table, time};
use super::input::Asked;
use super::page::{Answer, Page};
use crate::operator::doctor::{Finding, Status};

/// `GET /ui/doctor`.
pub(super) async fn show(State(ui): State<Ui>, _: Visitor, Asked(fields): Asked) -> Answer {
    fields.done()?;
    let seen = ui.looks.doctor.seen().await;
    let rows: Vec<Markup> = seen.found.checks.iter().map(row).collect();
    let of = |status| seen.found.count(status);
    let body = html! {
        p {
            (of(Status::Error)) " errors, " (of(Status::Warning)) " warnings, " (of(Status::Ok)) " ok, as of " (time(seen.at)) ". These are this process's \
            settings, database, broker and key; on another machine run " code { "clawback doctor" } "."
        }
        (table("Checks", &[Text("Check"), Text("How it is"), Text("Found"), Text("What to do")], &rows))
    };
    Ok(Page::new("Doctor", body))
}

fn row(check: &Finding) -> Markup {
    html! {
        th scope="row" { (check.check) }
        td { (status(check.status)) }
        td { (check.message) }
        td { (check.remedy.as_deref().unwrap_or_default()) }
    }
}
