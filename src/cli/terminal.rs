//! Writes to stdout: status words in color on a terminal, and no error when the reader has gone (`clawback … | head`).

use std::io::{ErrorKind, IsTerminal, Result, Write, stdout};

use chrono::{DateTime, Utc};

/// A longer word is split: this is what the deepest indent leaves of a line.
const LONGEST_WORD: usize = 60;

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";

/// Writes `text` to stdout.
pub(super) fn print(text: &[u8]) -> Result<()> {
    let mut out = output();
    match std::str::from_utf8(text) {
        Ok(text) if in_color() => out.write_all(colored(text).as_bytes())?,
        _ => out.write_all(text)?,
    }
    out.flush()
}

pub(super) fn in_color() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Stdout, for what is written bit by bit. Accepts everything, also after its reader has gone.
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

/// Text from outside, made safe to print: nothing in it moves a cursor or is wider than a line.
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

/// A time as every table shows it.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.format("%F %T UTC").to_string()
}

/// Colors the status words.
fn colored(text: &str) -> String {
    let is_of_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut colored = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_of_word) {
        let (before, from_word) = rest.split_at(start);
        let (word, after) = from_word.split_at(from_word.find(|letter| !is_of_word(letter)).unwrap_or(from_word.len()));
        colored.push_str(before);
        match color(word) {
            Some(color) => colored.extend([color, word, RESET]),
            None => colored.push_str(word),
        }
        rest = after;
    }
    colored.push_str(rest);
    colored
}

fn color(word: &str) -> Option<&'static str> {
    match word {
        "permanently_failed" | "conflicting" => Some(RED),
        "pending" | "reversal_pending" | "unmatched" | "held" | "failed" => Some(YELLOW),
        "reversed" | "completed" | "matched" | "partially_reversed" => Some(GREEN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_status_words_are_colored() {
        assert_eq!(
            colored("0199 permanently_failed, not irreversed"),
            format!("0199 {RED}permanently_failed{RESET}, not irreversed")
        );
        assert_eq!(colored("pending → reversed"), format!("{YELLOW}pending{RESET} → {GREEN}reversed{RESET}"));
        assert_eq!(colored("äöü"), "äöü");
    }

    #[test]
    fn text_from_outside_moves_no_cursor_and_fits_a_line() {
        assert_eq!(plain("a\x1b[2Jb\nc"), "a [2Jb c");
        assert_eq!(plain(&"x".repeat(130)), format!("{0} {0} {1}", "x".repeat(60), "x".repeat(10)));
    }
}
