//! `/ui/parked/replay`: a preview of what a replay of many debts means, and the replay. The second works on what the first has
//! shown, or not at all.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use maud::{Markup, html};
use sha2::{Digest, Sha256};

use super::Ui;
use super::act::{leftovers, reason, to_its_end};
use super::guard::Actor;
use super::html::Head::{Number, Text};
use super::html::{counted, own, query, table};
use super::input::{Asked, Fields, Sent};
use super::money::{money, text};
use super::page::{Answer, Page};
use crate::http::Parameter;
use crate::ledger::{CallKind, FailedCall, FailedFilter, LedgerError};

/// Replayed within one request. The rest is next.
const AT_ONCE: usize = 500;
/// Shown one by one.
const SHOWN: usize = 20;

/// Which debts.
struct Group {
    kind: CallKind,
    filter: FailedFilter,
}

impl Parameter for CallKind {
    fn must() -> String {
        "reverse or create".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Reverse, Self::Create].into_iter().find(|kind| kind.to_string() == text)
    }
}

impl Group {
    fn of(fields: &mut Fields) -> Self {
        let kind = fields.parsed("kind").unwrap_or(CallKind::Reverse);
        let filter =
            FailedFilter { failure_code: fields.text("failure_code"), seller: fields.text("seller"), since: None };
        Self { kind, filter }
    }

    /// The oldest of them, and how many there are beside.
    async fn members(&self, ui: &Ui) -> Result<(Vec<FailedCall>, usize), LedgerError> {
        let mut members = ui.ledger.failed_calls(self.kind, &self.filter).await?;
        let more = members.len().saturating_sub(AT_ONCE);
        members.truncate(AT_ONCE);
        Ok((members, more))
    }

    fn fields(&self) -> [(&'static str, String); 3] {
        let FailedFilter { failure_code, seller, .. } = &self.filter;
        [
            ("kind", self.kind.to_string()),
            ("failure_code", failure_code.clone().unwrap_or_default()),
            ("seller", seller.clone().unwrap_or_default()),
        ]
    }
}

/// The link to the preview.
pub(super) fn link(kind: CallKind, failure_code: Option<&str>, seller: Option<&str>) -> String {
    let kind = kind.to_string();
    let fields = [
        ("kind", kind.as_str()),
        ("failure_code", failure_code.unwrap_or_default()),
        ("seller", seller.unwrap_or_default()),
    ];
    format!("/ui/parked/replay{}", query(&fields))
}

/// `GET /ui/parked/replay`.
pub(super) async fn preview(State(ui): State<Ui>, _: Actor, Asked(mut fields): Asked) -> Answer {
    let group = Group::of(&mut fields);
    fields.done()?;
    let (members, more) = group.members(&ui).await?;
    Ok(Page::new("Replay a group", shown(&group, &members, more)))
}

/// `POST /ui/parked/replay`.
pub(super) async fn replay(State(ui): State<Ui>, Actor(session): Actor, Sent(mut fields): Sent) -> Answer {
    let (group, seen) = (Group::of(&mut fields), fields.text("seen"));
    let note = fields.note(&session.operator);
    fields.done()?;
    let (members, more) = group.members(&ui).await?;
    if seen != Some(fingerprint(&members)) {
        let body = html! {
            p.refused role="alert" { "Nothing was replayed: the group has changed since you saw it. This is the group now." }
            (shown(&group, &members, more))
        };
        return Ok(Page { status: StatusCode::CONFLICT, ..Page::new("Replay a group", body) });
    }
    let ids: Vec<_> = members.iter().map(|row| row.id).collect();
    let kind = group.kind;
    let done = to_its_end(&ui.operator, async move |operator| operator.replay_all(kind, &ids, &note).await).await??;
    let body = html! {
        p.done role="status" {
            (counted(done.replayed.len() as u64, group.kind.entity())) " replayed, " (done.skipped.len()) " skipped."
        }
        p { "The worker asks Stripe first whether each has happened. Your name and reason are in the history of each." }
        (leftovers(&done.leftovers))
        @if !done.skipped.is_empty() {
            @let rows: Vec<Markup> = done.skipped.iter().take(SHOWN).map(|(id, why)| html! {
                th scope="row" { (own(*id)) } td { (why) }
            }).collect();
            (table("Skipped", &[Text("Id"), Text("Why")], &rows))
        }
        @if more > 0 { p { a href=(link(group.kind, group.filter.failure_code.as_deref(), group.filter.seller.as_deref())) { (more) " more" } " are left." } }
        p { a href="/ui/audit" { "Audit" } " · " a href="/ui/parked" { "Failed and parked" } }
    };
    Ok(Page::new("Replayed", body))
}

fn shown(group: &Group, members: &[FailedCall], more: usize) -> Markup {
    if members.is_empty() {
        return html! {
            p { "Nothing that failed permanently and is still owed matches." }
            p { a href="/ui/parked" { "Failed and parked" } }
        };
    }
    let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
    for row in members {
        *sums.entry(&row.currency).or_default() += i128::from(row.amount);
    }
    let sums: Vec<String> = sums.into_iter().map(|(currency, sum)| text(sum, currency)).collect();
    let rows: Vec<Markup> = members.iter().take(SHOWN).map(row).collect();
    let what = counted(members.len() as u64, group.kind.entity());
    html! {
        p { strong { (what) ": " (sums.join(" + ")) } " will be tried again, oldest first." }
        @if more > 0 { p.notice { (more) " more match. They can be replayed after these." } }
        p {
            "Each gets its retries back and a new job. Before the worker calls Stripe it looks there whether it has happened: \
             no money moves twice."
        }
        (table("The oldest of them", &[Text("Id"), Number("Amount")], &rows))
        form.stacked method="post" action="/ui/parked/replay" {
            @for (name, value) in group.fields() { @if !value.is_empty() { input type="hidden" name=(name) value=(value); } }
            input type="hidden" name="seen" value=(fingerprint(members));
            (reason())
            p { button.go type="submit" { "Replay " (what) } " " a href="/ui/parked" { "Cancel" } }
        }
    }
}

fn row(call: &FailedCall) -> Markup {
    html! { th scope="row" { (own(call.id)) } td.number { (money(call.amount, &call.currency)) } }
}

/// Names exactly these rows.
fn fingerprint(members: &[FailedCall]) -> String {
    let digest = members.iter().fold(Sha256::new(), |digest, row| digest.chain_update(row.id));
    hex::encode(&digest.finalize()[..16])
}
