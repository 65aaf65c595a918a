//! `/ui/audit`: what happened, by whom and why, newest first.

use axum::extract::State;
use maud::{Markup, html};
use sea_orm::Iterable;

use super::Ui;
use super::guard::Visitor;
use super::html::Head::Text;
use super::html::{Head, ROWS, dashboard, filters, input, own, pages, select, status, table, time};
use super::input::Asked;
use super::page::{Answer, Page};
use crate::http::{Cursor, Time};
use crate::ledger::{HistoryEntity, HistoryFilter, HistoryRow};

const PATH: &str = "/ui/audit";
const HEADS: [Head; 5] = [Text("When"), Text("What"), Text("Change"), Text("Who"), Text("Why")];

/// `GET /ui/audit`.
pub(super) async fn list(State(ui): State<Ui>, _: Visitor, Asked(mut fields): Asked) -> Answer {
    let filter = HistoryFilter {
        actor: fields.text("actor"),
        entity: fields.parsed("entity"),
        id: fields.text("id"),
        since: fields.parsed("since").map(|Time(at)| at),
        until: fields.parsed("until").map(|Time(at)| at),
        kind: None,
    };
    let cursor = fields.parsed("cursor").map(|Cursor(id)| id);
    fields.done()?;
    let (found, next) = ui.ledger.history(&filter, cursor, ROWS).await?;
    let entity = filter.entity.map(|entity| entity.to_string());
    let [since, until] = [filter.since, filter.until].map(|at| at.map(|at| at.format("%FT%TZ").to_string()));
    let in_url = [
        ("actor", filter.actor.as_deref()),
        ("entity", entity.as_deref()),
        ("id", filter.id.as_deref()),
        ("since", since.as_deref()),
        ("until", until.as_deref()),
    ]
    .map(|(name, value)| (name, value.unwrap_or_default()));
    let choices = html! {
        (input("actor", "Who", filter.actor.as_deref()))
        (select("entity", "About", "any", HistoryEntity::iter(), entity.as_deref()))
        (input("id", "Any id", filter.id.as_deref()))
        (input("since", "Since: a time, or 24h", since.as_deref()))
        (input("until", "Until", until.as_deref()))
    };
    let rows: Vec<Markup> = found.iter().map(|found| row(&ui, found)).collect();
    let body = html! {
        (filters(PATH, &choices))
        @if rows.is_empty() { p { "Nothing matches." } } @else { (table("History, newest first", &HEADS, &rows)) }
        (pages(PATH, &in_url, cursor.is_none(), next))
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
