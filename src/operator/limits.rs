//! What an operator's name and reason may be, at every door.

use crate::ledger::PROGRAMS;

/// The longest operator name, in characters.
pub const OPERATOR_MAX_CHARS: usize = 100;
/// The longest reason, in characters.
pub const REASON_MAX_CHARS: usize = 500;

/// An operator's name, as [`one_line`] has it. A program's is refused: in the history nobody could tell the two apart.
///
/// # Errors
/// What it must be, as it reads behind the name of the field.
pub fn operator_name(text: &str) -> Result<String, String> {
    let name = one_line(text, OPERATOR_MAX_CHARS)?;
    match PROGRAMS.iter().find(|program| name.eq_ignore_ascii_case(program)) {
        Some(program) => Err(format!("must be a person's name (got {program:?}, a part of Clawback in the history)")),
        None => Ok(name),
    }
}

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
    fn nobody_acts_under_the_name_of_a_program() {
        assert_eq!(operator_name(" ada ").unwrap(), "ada");
        assert_eq!(operator_name("workers").unwrap(), "workers");
        for name in PROGRAMS {
            for given in [name.to_owned(), format!(" {}\t", name.to_uppercase())] {
                assert!(operator_name(&given).unwrap_err().starts_with("must be a person's name (got "), "{given}");
            }
        }
    }

    #[test]
    fn a_text_is_one_line_within_its_limit() {
        assert_eq!(one_line("  ada ", 3).unwrap(), "ada");
        assert_eq!(one_line("äöü", 3).unwrap(), "äöü");
        for (text, got) in [(" ", "nothing"), ("four", "4 characters"), ("a\nb", "a control character")] {
            assert_eq!(one_line(text, 3).unwrap_err(), format!("must be one line of 1 to 3 characters (got {got})"));
        }
    }
}
