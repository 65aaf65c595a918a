//! Logging in with one of the API's tokens, and out again.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::header::{ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::Ui;
use super::guard::Visitor;
use super::input::{Asked, Fields, Sent};
use super::page::{Answer, Page, Refusal};
use super::session;
use crate::ledger::now;
use crate::operator::limits::OPERATOR_MAX_CHARS;

/// What a wrong token costs.
const DELAY: Duration = Duration::from_millis(500);

/// `GET /ui/login`.
pub(super) async fn show(Asked(mut fields): Asked) -> Answer {
    let next = next(&mut fields);
    fields.done()?;
    Ok(Page::new("Log in", form(&next, "", None)))
}

/// `POST /ui/login`.
pub(super) async fn log_in(
    State(ui): State<Ui>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Sent(mut fields): Sent,
) -> Result<Response, Refusal> {
    let (token, next) = (fields.secret("token"), next(&mut fields));
    let operator = fields.operator();
    fields.done()?;
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    if origin.starts_with("http://") && !session::is_loopback_http(&headers) {
        let detail = "A token must not be sent unencrypted.";
        let to_do = html! { "Open these pages over https, or on the machine itself as http://127.0.0.1." };
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Not over http", detail, to_do));
    }
    match ui.tokens.log_in(token.trim(), Some(peer.ip())) {
        Ok((rights, key)) => {
            tracing::info!(operator, ?rights, "logged in to /ui/");
            let cookie = session::begin(&headers, &operator, &key, now());
            Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to(&next)).into_response())
        }
        Err(problem) => {
            tokio::time::sleep(DELAY).await;
            let (_, why) = problem.in_words();
            let status = problem.into_response().status();
            let body = form(&next, &operator, Some(&why));
            Ok(Page { status, title: "Log in".to_owned(), body }.into_response())
        }
    }
}

/// `GET /ui/logout`.
pub(super) async fn ask_to_log_out(_: Visitor) -> Page {
    Page::new("Log out", html! { form method="post" action="/ui/logout" { button.go type="submit" { "Log out" } } })
}

/// `POST /ui/logout`.
pub(super) async fn log_out(headers: HeaderMap) -> impl IntoResponse {
    (AppendHeaders([(SET_COOKIE, session::end(&headers))]), Redirect::to("/ui/login"))
}

fn form(next: &str, operator: &str, problem: Option<&str>) -> Markup {
    html! {
        @if let Some(problem) = problem { p.refused role="alert" { "Not logged in: " (problem) } }
        form.stacked method="post" action="/ui/login" {
            label { "Token"
                input type="password" name="token" required autocomplete="current-password" aria-describedby="token-help";
            }
            p.help id="token-help" { "API_TOKEN to act, API_READ_TOKEN to look only." }
            label { "Your name"
                input name="operator" value=(operator) required maxlength=(OPERATOR_MAX_CHARS) autocomplete="username"
                    aria-describedby="operator-help";
            }
            p.help id="operator-help" { "It goes into the history with all that you do." }
            input type="hidden" name="next" value=(next);
            button.go type="submit" { "Log in" }
        }
    }
}

/// Where to go afterwards: only to a page of ours.
fn next(fields: &mut Fields) -> String {
    let next = fields.text("next").filter(|next| next.starts_with("/ui/") && !next.contains('\\'));
    next.unwrap_or_else(|| "/ui/".to_owned())
}
