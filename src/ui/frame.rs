//! What surrounds every page: the navigation, which installation this is, who looks, and what is paused or away.

use maud::{DOCTYPE, Markup, html};
use queues::ConnectionState;

use super::html::time;
use super::session::Session;
use super::{Ui, style};
use crate::http::Rights;
use crate::ledger::Situation;

const PAGES: [(&str, &str); 15] = [
    ("/ui/", "Overview"),
    ("/ui/attention", "Attention"),
    ("/ui/held", "Held"),
    ("/ui/refunds", "Refunds"),
    ("/ui/disputes", "Disputes"),
    ("/ui/reversals", "Reversals"),
    ("/ui/transfers", "Transfers"),
    ("/ui/parked", "Failed and parked"),
    ("/ui/sellers", "Sellers"),
    ("/ui/trace", "Trace"),
    ("/ui/queues", "Queues"),
    ("/ui/audit", "Audit"),
    ("/ui/operations", "Operations"),
    ("/ui/reconcile", "Reconcile"),
    ("/ui/doctor", "Doctor"),
];

/// The whole document.
pub(super) fn around(
    ui: &Ui,
    session: Option<&Session>,
    situation: Option<&Situation>,
    path: &str,
    title: &str,
    body: &Markup,
) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Clawback · " (ui.instance.name) }
                link rel="stylesheet" href={ "/ui/style.css?v=" (style::version()) };
                link rel="icon" type="image/svg+xml" href={ "/ui/icon.svg?v=" (style::version()) };
                script src={ "/ui/refresh.js?v=" (style::version()) } defer {}
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header {
                    p.brand { a href="/ui/" { "Clawback" } " " (badge(ui)) " " span.instance { (ui.instance.name) } }
                    @if let Some(session) = session { (who(session)) }
                }
                @if session.is_some() { (navigation(path)) (notices(ui, situation)) }
                main id="main" tabindex="-1" {
                    h1 { (title) }
                    (body)
                }
                footer { "Times are in UTC. Clawback " (env!("CARGO_PKG_VERSION")) }
            }
        }
    }
}

fn badge(ui: &Ui) -> Markup {
    match ui.instance.livemode {
        Some(true) => html! { strong.badge.live { "live" } },
        Some(false) => html! { strong.badge.test { "test" } },
        None => html! { strong.badge title="This process has no STRIPE_API_KEY" { "mode unknown" } },
    }
}

fn who(session: &Session) -> Markup {
    html! {
        form.who method="post" action="/ui/logout" {
            span { (session.operator) @if session.rights == Rights::Read { " (read only)" } }
            button type="submit" { "Log out" }
        }
    }
}

fn navigation(path: &str) -> Markup {
    let is_here = |page: &str| page == path || (page != "/ui/" && path.starts_with(&format!("{page}/")));
    html! {
        nav.main aria-label="Main" {
            ul {
                @for (page, name) in PAGES {
                    li { a href=(page) aria-current=[is_here(page).then_some("page")] { (name) } }
                }
            }
            form method="get" action="/ui/trace" role="search" aria-label="Trace" {
                label { span.hidden { "Any id" } input name="id" placeholder="re_… pi_… tr_… or any id" required; }
                button type="submit" { "Trace" }
            }
        }
    }
}

fn notices(ui: &Ui, situation: Option<&Situation>) -> Markup {
    let broker = ui.broker.as_ref().map(|state| state.borrow().clone());
    let outage = situation.and_then(|situation| situation.processes.outage());
    html! {
        @for pause in situation.iter().flat_map(|situation| &situation.pauses) {
            p.notice role="status" {
                strong { (pause.what()) " is paused" } " since " (time(pause.created_at)) " by " (pause.operator) ": " (pause.reason)
                ". " a href="/ui/queues#pauses" { "Resume" }
            }
        }
        @if let Some(process) = outage {
            p.notice role="status" {
                strong { "Stripe can't be used" }
                @if let Some(since) = process.outage_since { " since " (time(since)) }
                ": " (process.outage_reason.as_deref().unwrap_or_default())
                ". Jobs wait, and no retries are used up. Stripe is probed, and work goes on by itself. "
                a href="/ui/queues#alive" { "Probe it now" }
            }
        }
        @if situation.is_some_and(|situation| situation.processes.workers().next().is_none()) {
            p.notice role="status" { strong { "No worker is alive" } ": nobody calls Stripe. " a href="/ui/queues#alive" { "Who is alive" } }
        }
        @match broker {
            None | Some(ConnectionState::Connected) => {},
            Some(ConnectionState::Blocked) => p.notice role="status" {
                strong { "The broker accepts nothing" } ": memory or disk alarm. Jobs wait in the outbox."
            },
            Some(_) => p.notice role="status" {
                strong { "No connection to the broker." } " Jobs wait in the outbox; webhooks are still taken."
            },
        }
    }
}
