//! Reads a file line by line. A line beyond the limit is skipped rather than held in memory.

use std::io::{BufRead, Read, Result};

pub(super) struct Lines<R> {
    input: R,
    max_bytes: usize,
    line: Vec<u8>,
    number: u64,
    /// Read so far, line ends included.
    pub(super) bytes: u64,
}

/// The text without its line end, or why the line can't be used.
pub(super) type Line<'a> = std::result::Result<&'a str, String>;

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, max_bytes: usize) -> Self {
        Self { input, max_bytes, line: Vec::new(), number: 0, bytes: 0 }
    }

    /// The next line that is not blank, with its number, from 1.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Line<'_>)>> {
        self.line.clear();
        while self.line.trim_ascii().is_empty() {
            self.line.clear();
            // Two more than the longest line: its end may be CR LF.
            let limit = self.max_bytes as u64 + 2;
            let mut read = self.input.by_ref().take(limit).read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            if !self.line.ends_with(b"\n") {
                read += self.input.skip_until(b'\n')?;
            }
            self.number += 1;
            self.bytes += read as u64;
        }
        let mut line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.number == 1 {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        let text = if line.len() > self.max_bytes {
            Err(format!("is longer than {} bytes, the limit for a line", self.max_bytes))
        } else {
            let invalid = |error: std::str::Utf8Error| error.valid_up_to() + 1;
            std::str::from_utf8(line)
                .map_err(|error| format!("is not UTF-8 (byte {}); save the file as UTF-8", invalid(error)))
        };
        Ok(Some((self.number, text)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_a_byte_order_mark_are_stripped_and_bad_lines_spoil_no_other() {
        let text = b"\xef\xbb\xbfone\r\n\n \t\r\n0123456789\r\n0123456789a\n\xff\xfe\n0123456789012345\nend";
        // A small buffer, so lines are put together from several reads.
        let mut lines = Lines::new(std::io::BufReader::with_capacity(3, &text[..]), 10);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            found.push(format!("{number} {}", line.map(str::to_owned).unwrap_or_else(|problem| problem)));
        }
        let too_long = "is longer than 10 bytes, the limit for a line";
        let expected = [
            "1 one".to_owned(),
            "4 0123456789".to_owned(),
            format!("5 {too_long}"),
            "6 is not UTF-8 (byte 1); save the file as UTF-8".to_owned(),
            format!("7 {too_long}"),
            "8 end".to_owned(),
        ];
        assert_eq!(found, expected);
        assert_eq!(lines.bytes, text.len() as u64);
    }
}
