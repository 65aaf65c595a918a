//! What an operator says with every command that changes something: who asks for it, and why. Both are required, because
//! both go into the history.

use serde::Deserialize;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::ledger::Note;

const OPERATOR_MAX_CHARS: usize = 100;
const REASON_MAX_CHARS: usize = 500;

/// Who asks for it, and why. Both go into the history.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"operator": "ada", "reason": "the seller has paid in"}))]
pub(crate) struct OperatorRequest {
    /// The operator's name, on one line.
    #[schema(max_length = 100, pattern = "\\S")]
    operator: String,
    /// For those who read the history later, on one line.
    #[schema(max_length = 500, pattern = "\\S")]
    reason: String,
}

impl OperatorRequest {
    /// The note for the history.
    ///
    /// # Errors
    /// A problem at the field that is empty, too long, or has control characters.
    pub(super) fn note(&self) -> Result<Note, Problem> {
        let operator = plain("operator", &self.operator, OPERATOR_MAX_CHARS)?;
        let reason = plain("reason", &self.reason, REASON_MAX_CHARS)?;
        Ok(Note::new(operator, reason))
    }
}

/// `value` without the space around it.
fn plain<'a>(field: &str, value: &'a str, max_chars: usize) -> Result<&'a str, Problem> {
    let trimmed = value.trim();
    let chars = trimmed.chars().count();
    let problem = if chars == 0 {
        "is empty".to_owned()
    } else if chars > max_chars {
        format!("has {chars} characters")
    } else if trimmed.contains(char::is_control) {
        "has a control character (a line break?)".to_owned()
    } else {
        return Ok(trimmed);
    };
    Err(Problem::invalid(field.to_owned(), &format!("{problem}; allowed: one line of 1 to {max_chars} characters")))
}
