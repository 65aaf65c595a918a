//! `/ui/doctor`: what `clawback doctor` finds, as this process sees it.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use futures_util::future::BoxFuture;
use maud::{Markup, html};

use super::Ui;
use super::guard::Visitor;
use super::html::Head::Text;
use super::html::{status, table, time};
use super::input::Asked;
use super::page::{Answer, Page};
use crate::ledger::now;

/// One line of the doctor's.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was checked.
    pub check: String,
    /// `ok`, `warning` or `error`.
    pub status: String,
    /// What was found.
    pub message: String,
    /// What to do, if anything.
    pub remedy: Option<String>,
}

/// Runs all checks.
#[derive(Clone)]
pub struct Doctor(pub Arc<dyn Fn() -> BoxFuture<'static, Vec<Check>> + Send + Sync>);

impl fmt::Debug for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Doctor")
    }
}

/// `GET /ui/doctor`.
pub(super) async fn show(State(ui): State<Ui>, _: Visitor, Asked(fields): Asked) -> Answer {
    fields.done()?;
    let at = now();
    let checks = (ui.doctor.0)().await;
    let rows: Vec<Markup> = checks.iter().map(row).collect();
    let of = |status: &str| checks.iter().filter(|check| check.status == status).count();
    let body = html! {
        p {
            (of("error")) " errors, " (of("warning")) " warnings, " (of("ok")) " ok, at " (time(at)) ". These are this process's \
            settings, database, broker and key; on another machine run " code { "clawback doctor" } "."
        }
        (table("Checks", &[Text("Check"), Text("How it is"), Text("Found"), Text("What to do")], &rows))
    };
    Ok(Page::new("Doctor", body))
}

fn row(check: &Check) -> Markup {
    html! {
        th scope="row" { (check.check) }
        td { (status(&check.status)) }
        td { (check.message) }
        td { (check.remedy.as_deref().unwrap_or_default()) }
    }
}
