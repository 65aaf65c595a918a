//! The parameters of a query string, each with an error that names it, its value, and what is allowed.
//!
//! Used by the routes that list. A parameter that nobody knows is refused: a misspelt filter must not list everything.

use std::fmt::Display;
use std::ops::RangeInclusive;

use url::form_urlencoded;
use uuid::Uuid;

use super::problem::Problem;

/// Longer values are cut in errors, in characters.
const SHOWN_CHARS: usize = 60;

/// The parameters of one request. An empty value is a value: a script whose variable is empty must not get everything.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Takes the query string apart.
    ///
    /// # Errors
    /// When a parameter is none of `known`, or comes twice.
    pub(super) fn parse(query: &str, known: &[&str]) -> Result<Self, Problem> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let problem = format!("is not a parameter of this route; allowed: {}", known.join(", "));
                return Err(Problem::invalid_parameter(&shown(&name), &problem));
            }
            if parameters.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Problem::invalid_parameter(&name, "is given twice; allowed: once"));
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(parameters))
    }

    /// The one of `allowed` that is spelt like the value.
    pub(super) fn one_of<T: Copy + Display>(&self, name: &str, allowed: &[T]) -> Result<Option<T>, Problem> {
        let Some(value) = self.value(name) else { return Ok(None) };
        if let Some(found) = allowed.iter().find(|candidate| candidate.to_string() == value) {
            return Ok(Some(*found));
        }
        let allowed = allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Err(refused(name, value, &allowed))
    }

    /// A whole number within `allowed`.
    pub(super) fn number(&self, name: &str, allowed: RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.parse().ok().filter(|number| allowed.contains(number));
        let range = || format!("a whole number from {} to {}", allowed.start(), allowed.end());
        number.map(Some).ok_or_else(|| refused(name, value, &range()))
    }

    /// Where a page begins.
    pub(super) fn cursor(&self, name: &str) -> Result<Option<Uuid>, Problem> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| refused(name, value, "the next_cursor of the page before"))
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

fn refused(name: &str, value: &str, allowed: &str) -> Problem {
    Problem::invalid_parameter(name, &format!("{:?} is not acceptable; allowed: {allowed}", shown(value)))
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
