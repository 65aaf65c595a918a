//! Stands before every page: who looks, whether the request comes from the pages themselves, and what browsers may do with the
//! answer.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::page::{Page, Refusal};
use super::session::{self, Session};
use super::{Ui, frame};
use crate::http::Rights;
use crate::ledger::{Situation, now};

/// Nothing from elsewhere, nothing inline, and no other site may frame a page or take a form.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub(super) struct Visitor(pub(super) Session);

/// Somebody who is logged in and may act.
#[derive(Clone, Debug)]
pub(super) struct Actor(pub(super) Session);

impl FromRequestParts<Ui> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Ui) -> Result<Self, Refusal> {
        parts.extensions.get().cloned().map(Self).ok_or_else(|| {
            // A form whose session has ended is not sent again by a link.
            let path = if parts.method.is_safe() { parts.uri.to_string() } else { "/ui/".to_owned() };
            Refusal::LogIn(path)
        })
    }
}

impl FromRequestParts<Ui> for Actor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, ui: &Ui) -> Result<Self, Refusal> {
        let Visitor(session) = Visitor::from_request_parts(parts, ui).await?;
        if session.rights == Rights::Operate { Ok(Self(session)) } else { Err(Refusal::read_only()) }
    }
}

/// Around every route under `/ui/`.
pub(super) async fn guard(State(ui): State<Ui>, mut request: Request, next: Next) -> Response {
    let session = session::of(request.headers(), &ui.tokens, now());
    let path = request.uri().path().to_owned();
    let response = match check(&ui, &request, session.as_ref()) {
        Err(refusal) => refusal.into_response(),
        Ok(()) => {
            if let Some(session) = session.clone() {
                request.extensions_mut().insert(session);
            }
            next.run(request).await
        }
    };
    let is_page = response.extensions().get::<Page>().is_some();
    let situation = if session.is_some() && is_page { ui.situation().await } else { None };
    with_headers(framed(&ui, session.as_ref(), situation.as_deref(), &path, response))
}

fn check(ui: &Ui, request: &Request, session: Option<&Session>) -> Result<(), Refusal> {
    if !ui.tokens.are_configured() {
        let to_do =
            html! { "Set API_TOKEN, and API_READ_TOKEN for those who only look; then log in here with one of them." };
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "Not configured",
            "These pages are off: no token is set.",
            to_do,
        ));
    }
    if !request.method().is_safe() && is_foreign(request.headers()) {
        let detail = "This form was sent by another site, so nothing was done.";
        let to_do = html! { "If you meant it, do it from the " a href="/ui/" { "pages" } " themselves." };
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Refused", detail, to_do));
    }
    match session {
        Some(session) => Ok(ui.tokens.count(session.rights)?),
        None => Ok(()),
    }
}

/// Whether a browser says that another site sends this. A client that is no browser says nothing, and carries no cookie that
/// somebody else could use.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(ORIGIN) else { return false };
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_none() || host != text(HOST)
}

/// The page in its frame.
fn framed(
    ui: &Ui,
    session: Option<&Session>,
    situation: Option<&Situation>,
    path: &str,
    mut response: Response,
) -> Response {
    let Some(Page { title, body, .. }) = response.extensions_mut().remove::<Page>() else { return response };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Response::from_parts(parts, frame::around(ui, session, situation, path, &title, &body).into_string().into())
}

fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Not `no-referrer`: with it browsers send `Origin: null` with our own forms.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use super::*;

    #[test]
    fn only_the_pages_themselves_and_what_is_no_browser_may_send_forms() {
        for (headers, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://clawback.example")], true),
            (&[("origin", "https://clawback.example")], false),
            (&[("origin", "https://clawback.example:444")], true),
            (&[("origin", "https://evil.example")], true),
            (&[("origin", "null")], true),
        ] {
            let mut map = HeaderMap::from_iter([(HOST, "clawback.example".parse().unwrap())]);
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            assert_eq!(is_foreign(&map), expected, "{headers:?}");
        }
    }
}
