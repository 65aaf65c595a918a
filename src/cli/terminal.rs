//! What goes to the terminal in the end: whole texts, with coloured status words where somebody looks, and without a
//! complaint when the reader has seen enough (`clawback … | head`). Used by the commands that answer and end.

use std::io::{ErrorKind, IsTerminal, Result, Write, stdout};

use chrono::{DateTime, Utc};

/// Ids that have no space to break at get one after so many characters: what the deepest indent leaves of a line.
const LONGEST_WORD: usize = 60;

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";

/// Writes `text` to stdout.
pub(super) fn print(text: &[u8]) -> Result<()> {
    let in_colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut out = output();
    match std::str::from_utf8(text) {
        Ok(text) if in_colour => out.write_all(coloured(text).as_bytes())?,
        _ => out.write_all(text)?,
    }
    out.flush()
}

/// Stdout, for what is written bit by bit. Takes everything, also when nobody reads it any more.
pub(super) fn output() -> impl Write {
    WhileRead(stdout())
}

struct WhileRead<W>(W);

impl<W: Write> Write for WhileRead<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}

/// For what came from elsewhere: nothing in it moves a cursor or is wider than a line.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut word = 0;
    for letter in text.chars() {
        let letter = if letter.is_control() { ' ' } else { letter };
        word = if letter.is_whitespace() { 0 } else { word + 1 };
        if word > LONGEST_WORD {
            plain.push(' ');
            word = 1;
        }
        plain.push(letter);
    }
    plain
}

/// A time in the way that every table shows it.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.format("%F %T UTC").to_string()
}

/// Status words in the colour of how they stand.
fn coloured(text: &str) -> String {
    let is_of_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut coloured = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_of_word) {
        let (before, from_word) = rest.split_at(start);
        let (word, after) = from_word.split_at(from_word.find(|letter| !is_of_word(letter)).unwrap_or(from_word.len()));
        coloured.push_str(before);
        match colour(word) {
            Some(colour) => coloured.extend([colour, word, RESET]),
            None => coloured.push_str(word),
        }
        rest = after;
    }
    coloured.push_str(rest);
    coloured
}

fn colour(word: &str) -> Option<&'static str> {
    match word {
        "permanently_failed" | "conflicting" => Some(RED),
        "pending" | "reversal_pending" | "unmatched" | "failed" => Some(YELLOW),
        "reversed" | "completed" | "matched" | "partially_reversed" => Some(GREEN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_status_words_are_coloured() {
        assert_eq!(
            coloured("0199 permanently_failed, not irreversed"),
            format!("0199 {RED}permanently_failed{RESET}, not irreversed")
        );
        assert_eq!(coloured("pending → reversed"), format!("{YELLOW}pending{RESET} → {GREEN}reversed{RESET}"));
        assert_eq!(coloured("äöü"), "äöü");
    }

    #[test]
    fn what_came_from_elsewhere_moves_no_cursor_and_fits_a_line() {
        assert_eq!(plain("a\x1b[2Jb\nc"), "a [2Jb c");
        assert_eq!(plain(&"x".repeat(130)), format!("{0} {0} {1}", "x".repeat(60), "x".repeat(10)));
    }
}
