//! What a handler answers: a page, or why there is none. `guard` puts it into the frame.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use crate::http::Problem;
use crate::ledger::{FieldProblem, LedgerError};

/// A page without its frame.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) title: String,
    pub(super) body: Markup,
}

/// Why there is no such page.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Somebody must log in, and come back to this path.
    LogIn(String),
    /// What is wrong, and what to do.
    Page(Box<Page>),
    /// An error of the ledger, or of the tokens.
    Problem(Box<Problem>),
}

/// What handlers answer.
pub(super) type Answer = Result<Page, Refusal>;

impl Page {
    pub(super) fn new(title: impl Into<String>, body: Markup) -> Self {
        Self { status: StatusCode::OK, title: title.into(), body }
    }
}

impl Refusal {
    /// A page that says what is wrong, and what to do.
    pub(super) fn new(status: StatusCode, title: &str, detail: impl Into<String>, to_do: Markup) -> Self {
        let detail: String = detail.into();
        let body = html! {
            p.refused { (detail) }
            p { (to_do) }
        };
        Self::Page(Box::new(Page { status, title: title.to_owned(), body }))
    }

    /// 404.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        let to_do = html! { "Search for any id in " a href="/ui/trace" { "Trace" } ", or go to the " a href="/ui/" { "overview" } "." };
        Self::new(StatusCode::NOT_FOUND, "Not found", detail, to_do)
    }

    /// 422, with every field that is wrong.
    pub(super) fn invalid(problems: &[FieldProblem]) -> Self {
        let body = html! {
            p.refused { "This can't be used:" }
            ul { @for problem in problems { li { (problem.to_string()) } } }
            p { "Go back and correct it, or go to the " a href="/ui/" { "overview" } "." }
        };
        let title = "Check the fields".to_owned();
        Self::Page(Box::new(Page { status: StatusCode::UNPROCESSABLE_ENTITY, title, body }))
    }

    /// 403, for a session that may only look.
    pub(super) fn read_only() -> Self {
        let to_do = html! { a href="/ui/logout" { "Log out" } ", and log in with API_TOKEN." };
        Self::new(
            StatusCode::FORBIDDEN,
            "Read only",
            "This session began with API_READ_TOKEN, which may only look.",
            to_do,
        )
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        Self::Problem(Box::new(error.into()))
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::LogIn(path) => {
                let next = if path == "/ui/" { String::new() } else { super::html::query(&[("next", &path)]) };
                Redirect::to(&format!("/ui/login{next}")).into_response()
            }
            Self::Page(page) => page.into_response(),
            Self::Problem(problem) => {
                let (title, detail) = problem.in_words();
                let mut response = problem.into_response();
                let status = response.status();
                let to_do = html! { "Go back, or to the " a href="/ui/" { "overview" } "." };
                let body = html! { p.refused { (detail) } p { (to_do) } };
                response.extensions_mut().insert(Page { status, title: title.to_owned(), body });
                response
            }
        }
    }
}

/// For paths and methods that no page has.
pub(super) async fn unknown() -> Refusal {
    Refusal::not_found("There is no such page.")
}
