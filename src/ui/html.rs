//! What pages are made of: links, ids, times, tables, filters.

use std::fmt::Display;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use url::form_urlencoded;
use uuid::Uuid;

use super::Instance;
use crate::ledger::now;

/// Rows of a page.
pub(super) const ROWS: u64 = 50;

/// `?a=1&b=2` of the values that are not empty, encoded; nothing without any.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter(|(_, value)| !value.is_empty()));
    let query = query.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

/// A link to the story of an id, by the id itself.
pub(super) fn story(id: &str) -> Markup {
    html! { a href={ "/ui/trace" (query(&[("id", id)])) } { (id) } }
}

/// A link to the story of something of Clawback's, by the end of its id: those of one moment begin alike.
pub(super) fn own(id: Uuid) -> Markup {
    let text = id.simple().to_string();
    html! { a.id href={ "/ui/trace?id=" (id) } title=(id) { "…" (&text[text.len() - 8..]) } }
}

/// A seller, as a link to what it owes.
pub(super) fn seller(id: &str) -> Markup {
    html! { a href={ "/ui/sellers" (query(&[("id", id)])) } { (id) } }
}

/// A status, colored by what it means.
pub(super) fn status(status: impl Display) -> Markup {
    let status = status.to_string();
    let kind = match status.as_str() {
        "permanently_failed" | "conflicting" | "refused" | "short_of_balance" | "less_left" | "error" => "bad",
        "pending"
        | "reversal_pending"
        | "unmatched"
        | "held"
        | "failed"
        | "running"
        | "interrupted"
        | "warning"
        | "waiting_for_balance" => "wait",
        "reversed" | "completed" | "matched" | "partially_reversed" | "done" | "ready" | "ok" => "good",
        _ => "plain",
    };
    html! { span class={ "status " (kind) } { (status.replace('_', " ")) } }
}

/// A moment as URLs have it.
pub(super) fn moment(at: DateTime<Utc>) -> String {
    at.format("%FT%TZ").to_string()
}

/// A moment, in UTC.
pub(super) fn time(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.format("%FT%TZ")) { (at.format("%F %T")) } }
}

/// How long ago, in the largest unit that fits.
pub(super) fn ago(at: DateTime<Utc>) -> Markup {
    let seconds = (now() - at).num_seconds().max(0);
    let text = match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    };
    html! { time datetime=(at.format("%FT%TZ")) title={ (at.format("%F %T")) " UTC" } { (text) } }
}

/// `3 reversals`, `1 reversal`.
pub(super) fn counted(number: impl Into<i128>, what: &str) -> String {
    let number = number.into();
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The head of a column.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head {
    /// Of texts.
    Text(&'static str),
    /// Of numbers, which stand at the right.
    Number(&'static str),
}

/// A table in a box of its own, which scrolls on a narrow screen.
pub(super) fn table(caption: &str, heads: &[Head], rows: &[Markup]) -> Markup {
    html! {
        div.scroll role="region" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead { tr { @for head in heads { @match head {
                    Head::Text(name) => th scope="col" { (name) },
                    Head::Number(name) => th.number scope="col" { (name) },
                } } } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

/// A form that filters a list; its values end up in the URL.
pub(super) fn filters(action: &str, fields: &Markup) -> Markup {
    form(action, fields, "Filter", "Filter the list")
}

/// A form that looks for an id.
pub(super) fn search(action: &str, label: &str, id: Option<&str>) -> Markup {
    form(action, &input("id", label, id), "Search", label)
}

fn form(action: &str, fields: &Markup, verb: &str, name: &str) -> Markup {
    html! {
        form.filters method="get" action=(action) role="search" aria-label=(name) {
            (fields)
            button type="submit" { (verb) }
            a href=(action) { "Clear" }
        }
    }
}

/// A choice among `values` in a form; the empty one is `any`.
pub(super) fn select<T: Display>(
    name: &str,
    label: &str,
    any: &str,
    values: impl IntoIterator<Item = T>,
    chosen: Option<&str>,
) -> Markup {
    html! {
        label { (label)
            select name=(name) {
                option value="" { (any) }
                @for value in values {
                    @let value = value.to_string();
                    option value=(value) selected[chosen == Some(value.as_str())] { (value.replace('_', " ")) }
                }
            }
        }
    }
}

/// A line of text in a form.
pub(super) fn input(name: &str, label: &str, value: Option<&str>) -> Markup {
    html! { label { (label) input name=(name) value=[value] autocomplete="off" spellcheck="false"; } }
}

/// How many rows match a filter, and the link to all of them as CSV.
pub(super) fn matching(path: &str, filter: &[(&str, &str)], count: &str) -> Markup {
    html! { p.help { (count) @if count == "1" { " row" } @else { " rows" } ". " (as_csv(path, filter)) } }
}

/// The link to all rows that match a filter.
pub(super) fn as_csv(path: &str, filter: &[(&str, &str)]) -> Markup {
    let pairs: Vec<_> = filter.iter().copied().chain([("format", "csv")]).collect();
    html! { a href={ (path) (query(&pairs)) } download { "All as CSV" } }
}

/// What is said in place of a table.
pub(super) fn no_rows(next: Option<&impl Display>) -> Markup {
    html! {
        p {
            @if next.is_some() { "None of the rows looked at so far match. The next page goes on." }
            @else { "Nothing matches." }
        }
    }
}

/// The links to the first page and to the next one.
pub(super) fn pages(path: &str, filter: &[(&str, &str)], is_first: bool, next: Option<impl Display>) -> Markup {
    let next = next.map(|next| next.to_string());
    html! {
        @if !is_first || next.is_some() {
            nav.pages aria-label="More rows" {
                @if !is_first { a href={ (path) (query(filter)) } { "First page" } }
                @if let Some(next) = &next {
                    @let pairs: Vec<_> = filter.iter().copied().chain([("cursor", next.as_str())]).collect();
                    a rel="next" href={ (path) (query(&pairs)) } { "Next page" }
                }
            }
        }
    }
}

/// What `refresh.js` renews every few seconds while `is_moving`.
pub(super) fn live(is_moving: bool, part: &Markup) -> Markup {
    html! { @if is_moving { div id="live" data-refresh="2" { (part) } } @else { (part) } }
}

/// Names and values.
pub(super) fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! { dl.facts { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } } }
}

/// The page of Stripe's dashboard about an id of Stripe's, for those that have one.
pub(super) fn dashboard(instance: &Instance, id: &str) -> Option<Markup> {
    let folder = match id.split_once('_')?.0 {
        "pi" | "ch" | "py" => "payments",
        "tr" => "connect/transfers",
        "acct" => "connect/accounts",
        "du" | "dp" => "disputes",
        "evt" => "events",
        "req" => "logs",
        _ => return None,
    };
    let mode = if instance.livemode == Some(false) { "test/" } else { "" };
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_plain.then(|| {
        html! { a.out href={ "https://dashboard.stripe.com/" (mode) (folder) "/" (id) } rel="noreferrer" { (id) " at Stripe" } }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_from_outside_are_encoded_in_urls_and_escaped_in_text() {
        let link = story("a&b=<script>\"/../ä").into_string();
        let expected =
            "<a href=\"/ui/trace?id=a%26b%3D%3Cscript%3E%22%2F..%2F%C3%A4\">a&amp;b=&lt;script&gt;&quot;/../ä</a>";
        assert_eq!(link, expected);
    }

    #[test]
    fn the_dashboard_has_pages_for_what_stripe_knows_in_the_mode_of_the_key() {
        let link = |livemode, id| {
            dashboard(&Instance { name: String::new(), livemode, management: None }, id).map(Markup::into_string)
        };
        let of_test = link(Some(false), "tr_1").unwrap_or_default();
        assert!(of_test.contains("https://dashboard.stripe.com/test/connect/transfers/tr_1\""), "{of_test}");
        assert!(link(Some(true), "pi_1").is_some_and(|link| link.contains(".com/payments/pi_1\"")));
        for id in ["order 7", "tr_1/../x", "tr_\"", "0199e2c4", "pay_1"] {
            assert_eq!(link(Some(true), id), None, "{id}");
        }
    }
}
