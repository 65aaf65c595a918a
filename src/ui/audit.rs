//! `/ui/audit`: what happened, by whom and why, newest first.

use axum::extract::State;
use maud::{Markup, html};

use super::Ui;
use super::guard::Visitor;
use super::html::Head::Text;
use super::html::{Head, ROWS, dashboard, filters, input, own, pages, status, table, time};
use super::input::Asked;
use super::page::{Answer, Page};
use crate::http::Cursor;
use crate::ledger::{HistoryFilter, HistoryRow};

const PATH: &str = "/ui/audit";
const HEADS: [Head; 5] = [Text("When"), Text("What"), Text("Change"), Text("Who"), Text("Why")];

/// `GET /ui/audit`.
pub(super) async fn list(State(ui): State<Ui>, _: Visitor, Asked(mut fields): Asked) -> Answer {
    let filter = HistoryFilter { actor: fields.text("actor"), ..HistoryFilter::default() };
    let cursor = fields.parsed("cursor").map(|Cursor(id)| id);
    fields.done()?;
    let (found, next) = ui.ledger.history(&filter, cursor, ROWS).await?;
    let actor = filter.actor.unwrap_or_default();
    let rows: Vec<Markup> = found.iter().map(|found| row(&ui, found)).collect();
    let body = html! {
        (filters(PATH, &input("actor", "Who", Some(&actor))))
        @if rows.is_empty() { p { "Nothing matches." } } @else { (table("History, newest first", &HEADS, &rows)) }
        (pages(PATH, &[("actor", &actor)], cursor.is_none(), next))
    };
    Ok(Page::new("Audit", body))
}

fn row(ui: &Ui, row: &HistoryRow) -> Markup {
    html! {
        td { (time(row.at)) }
        th scope="row" { (row.entity) " " (own(row.entity_id)) }
        td {
            @match &row.from_status {
                Some(from) if *from == row.to_status => "",
                Some(from) => { (status(from)) " → " (status(&row.to_status)) },
                None => (status(&row.to_status)),
            }
        }
        td { (row.actor) }
        td {
            (row.reason)
            @if let Some(request) = row.stripe_request_id.as_ref().and_then(|id| dashboard(&ui.instance, id)) { " " small { (request) } }
        }
    }
}
