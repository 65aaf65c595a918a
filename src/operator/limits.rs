//! How long an operator's name and reason may be, at every door.

/// The longest operator name, in characters.
pub const OPERATOR_MAX_CHARS: usize = 100;
/// The longest reason, in characters.
pub const REASON_MAX_CHARS: usize = 500;

/// `text` on one line, without the space around it.
///
/// # Errors
/// What it must be, as it reads behind the name of the field.
pub fn one_line(text: &str, max_chars: usize) -> Result<String, String> {
    let trimmed = text.trim();
    let got = match trimmed.chars().count() {
        0 => "nothing".to_owned(),
        chars if chars > max_chars => format!("{chars} characters"),
        _ if trimmed.contains(char::is_control) => "a control character".to_owned(),
        _ => return Ok(trimmed.to_owned()),
    };
    Err(format!("must be one line of 1 to {max_chars} characters (got {got})"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use super::*;

    #[test]
    fn a_text_is_one_line_within_its_limit() {
        assert_eq!(one_line("  ada ", 3).unwrap(), "ada");
        assert_eq!(one_line("äöü", 3).unwrap(), "äöü");
        for (text, got) in [(" ", "nothing"), ("four", "4 characters"), ("a\nb", "a control character")] {
            assert_eq!(one_line(text, 3).unwrap_err(), format!("must be one line of 1 to 3 characters (got {got})"));
        }
    }
}
