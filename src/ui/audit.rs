//! `/ui/audit`: what happened, by whom and why, newest first.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use sea_orm::Iterable;

use super::Ui;
use super::guard::Visitor;
use super::html::Head::Text;
use super::html::{
    Head, ROWS, as_csv, dashboard, filters, input, moment, no_rows, own, pages, select, status, table, time,
};
use super::input::{Asked, Csv};
use super::page::{Page, Refusal};
use crate::http::history::lines;
use crate::http::{Cursor, Time};
use crate::ledger::{HistoryEntity, HistoryFilter, HistoryKind, HistoryRow};
use crate::lines::Lines;

const PATH: &str = "/ui/audit";
const HEADS: [Head; 5] = [Text("When"), Text("What"), Text("Change"), Text("Who"), Text("Why")];

/// `GET /ui/audit`.
pub(super) async fn list(State(ui): State<Ui>, _: Visitor, Asked(mut fields): Asked) -> Result<Response, Refusal> {
    let filter = HistoryFilter {
        actor: fields.text("actor"),
        entity: fields.parsed("entity"),
        id: fields.text("id"),
        since: fields.parsed("since").map(|Time(at)| at),
        until: fields.parsed("until").map(|Time(at)| at),
        kind: fields.parsed("kind"),
    };
    let cursor = fields.parsed("cursor").map(|Cursor(id)| id);
    let wants_csv = fields.parsed::<Csv>("format").is_some();
    fields.done()?;
    if wants_csv {
        return Ok(lines(&ui.ledger, filter, Lines::Csv).await?);
    }
    let (found, next) = ui.ledger.history(&filter, cursor, ROWS).await?;
    let entity = filter.entity.map(|entity| entity.to_string());
    let kind = filter.kind.map(|kind| kind.to_string());
    let [since, until] = [filter.since, filter.until].map(|at| at.map(moment));
    let in_url = [
        ("actor", filter.actor.as_deref()),
        ("entity", entity.as_deref()),
        ("id", filter.id.as_deref()),
        ("since", since.as_deref()),
        ("until", until.as_deref()),
        ("kind", kind.as_deref()),
    ]
    .map(|(name, value)| (name, value.unwrap_or_default()));
    let choices = html! {
        (input("actor", "Who", filter.actor.as_deref()))
        (select("entity", "About", "any", HistoryEntity::iter(), entity.as_deref()))
        (input("id", "Any id", filter.id.as_deref()))
        (input("since", "Since: a time, or 24h", since.as_deref()))
        (input("until", "Until", until.as_deref()))
        (select("kind", "Kind", "any", HistoryKind::iter(), kind.as_deref()))
    };
    let rows: Vec<Markup> = found.iter().map(|found| row(&ui, found)).collect();
    let body = html! {
        (filters(PATH, &choices))
        p.help { (as_csv(PATH, &in_url)) }
        @if rows.is_empty() { (no_rows(next.as_ref())) } @else { (table("History, newest first", &HEADS, &rows)) }
        (pages(PATH, &in_url, cursor.is_none(), next))
    };
    Ok(Page::new("Audit", body).into_response())
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
