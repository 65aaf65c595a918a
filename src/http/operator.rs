//! The body of every request that changes something for an operator: who, and why. Both go into the history.

use serde::Deserialize;
use utoipa::ToSchema;

use super::extract::Input;
use crate::ledger::{FieldProblem, Note};
use crate::operator::limits::{REASON_MAX_CHARS, one_line, operator_name};

/// Who requests it, and why. Both go into the history.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"operator": "ada", "reason": "the seller has paid in"}))]
pub(crate) struct OperatorRequest {
    /// The operator's name, on one line.
    #[schema(max_length = 100, pattern = "\\S")]
    operator: String,
    /// For later readers of the history, on one line.
    #[schema(max_length = 500, pattern = "\\S")]
    reason: String,
}

impl Input for OperatorRequest {
    fn problems(&self) -> Vec<FieldProblem> {
        problems_of(&self.operator, ("reason", &self.reason))
    }
}

impl OperatorRequest {
    /// The note for the history.
    pub(super) fn note(&self) -> Note {
        note(&self.operator, &self.reason)
    }
}

/// Who writes a note, and its text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"operator": "ada", "text": "asked Stripe, ticket 4711"}))]
pub(crate) struct NoteRequest {
    /// The operator's name, on one line.
    #[schema(max_length = 100, pattern = "\\S")]
    operator: String,
    /// What others should know, on one line.
    #[schema(max_length = 500, pattern = "\\S")]
    text: String,
}

impl Input for NoteRequest {
    fn problems(&self) -> Vec<FieldProblem> {
        problems_of(&self.operator, ("text", &self.text))
    }
}

impl NoteRequest {
    /// The note.
    pub(super) fn note(&self) -> Note {
        note(&self.operator, &self.text)
    }
}

/// Who retries a creation, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"operator": "ada", "reason": "the account is verified now"}))]
pub(crate) struct RetryRequest {
    /// The operator's name, on one line.
    #[schema(max_length = 100, pattern = "\\S")]
    operator: String,
    /// For later readers of the history, on one line.
    #[schema(max_length = 500, pattern = "\\S")]
    reason: String,
    /// For a large amount (`CONFIRM_FROM`): the transfer's amount and currency, typed.
    #[serde(default)]
    #[schema(max_length = 255, examples("1200000 eur"))]
    pub(super) confirm_amount: Option<String>,
}

impl Input for RetryRequest {
    fn problems(&self) -> Vec<FieldProblem> {
        problems_of(&self.operator, ("reason", &self.reason))
    }
}

impl RetryRequest {
    /// The note for the history.
    pub(super) fn note(&self) -> Note {
        note(&self.operator, &self.reason)
    }
}

/// What is wrong with the two; the second is a reason or another text, with the name of its field.
pub(super) fn problems_of(operator: &str, (field, text): (&str, &str)) -> Vec<FieldProblem> {
    let checked = [("operator", operator_name(operator)), (field, one_line(text, REASON_MAX_CHARS))];
    checked.into_iter().filter_map(|(field, checked)| Some(FieldProblem::new(field, checked.err()?))).collect()
}

/// The note for the history.
pub(super) fn note(operator: &str, reason: &str) -> Note {
    Note::new(operator.trim(), reason.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi::component;
    use crate::operator::limits::OPERATOR_MAX_CHARS;

    #[test]
    fn the_document_has_the_limits_of_every_door() {
        let schema = &component("OperatorRequest")["properties"];
        assert_eq!(schema["operator"]["maxLength"], OPERATOR_MAX_CHARS);
        assert_eq!(schema["reason"]["maxLength"], REASON_MAX_CHARS);
    }
}
