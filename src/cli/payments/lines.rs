//! Lines of a file, one at a time, however long: what is longer than allowed is skipped, not held. Used by the readers of
//! both formats. It knows nothing of what stands in a line.

use std::io::{BufRead, Result};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of `input`.
pub(super) struct Lines<R> {
    input: R,
    max_bytes: usize,
    line: Vec<u8>,
    number: u64,
    bytes: u64,
}

/// A line, without its end.
pub(super) enum Line<'a> {
    Text(&'a str),
    /// It can't be one, and why.
    Bad(String),
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, max_bytes: usize) -> Self {
        Self { input, max_bytes, line: Vec::new(), number: 0, bytes: 0 }
    }

    /// The next line that is not blank, with its number, from 1.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Line<'_>)>> {
        loop {
            let Some(too_long) = self.read()? else { return Ok(None) };
            if too_long || !self.line.trim_ascii().is_empty() {
                return Ok(Some((self.number, self.shown(too_long))));
            }
        }
    }

    /// How much has been read, line ends included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn shown(&self, too_long: bool) -> Line<'_> {
        if too_long {
            return Line::Bad(format!("is longer than {} bytes, which no payment is", self.max_bytes));
        }
        match std::str::from_utf8(&self.line) {
            Ok(text) => Line::Text(text),
            Err(error) => Line::Bad(format!("is not UTF-8 (byte {}); save the file as UTF-8", error.valid_up_to() + 1)),
        }
    }

    /// Reads up to a line's end, and says whether the line was too long. None at the end of the file.
    fn read(&mut self) -> Result<Option<bool>> {
        self.line.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() && !any {
                return Ok(None);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            too_long |= self.line.len() + part.len() > self.max_bytes;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let is_last = end.is_some() || chunk.is_empty();
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            self.bytes += used as u64;
            any = true;
            if is_last {
                break;
            }
        }
        self.number += 1;
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        if self.line.ends_with(b"\r") {
            self.line.pop();
        }
        Ok(Some(too_long))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    fn lines(text: &[u8], max_bytes: usize) -> Vec<(u64, Result<String, String>)> {
        // A small buffer, so that lines are put together from several.
        let mut lines = Lines::new(std::io::BufReader::with_capacity(3, text), max_bytes);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            found.push((
                number,
                match line {
                    Line::Text(text) => Ok(text.to_owned()),
                    Line::Bad(problem) => Err(problem),
                },
            ));
        }
        assert_eq!(lines.bytes(), text.len() as u64);
        found
    }

    type Result<T, E> = std::result::Result<T, E>;

    #[test]
    fn line_ends_a_byte_order_mark_and_blank_lines_are_no_part_of_a_line() {
        let found = lines(b"\xef\xbb\xbfone\r\n\n \t\r\ntwo\nthree", 10);
        assert_eq!(found, [(1, Ok("one".into())), (4, Ok("two".into())), (5, Ok("three".into()))]);
        assert_eq!(lines(b"", 10), []);
        assert_eq!(lines(b"\n\n", 10), []);
    }

    #[test]
    fn what_is_too_long_or_not_utf8_is_bad_and_the_next_line_is_read_all_the_same() {
        let found = lines(b"0123456789a\n0123456789\n\xff\xfe\nend", 10);
        assert_eq!((found[0].0, found[1].clone()), (1, (2, Ok("0123456789".into()))));
        assert!(found[0].1.as_ref().unwrap_err().contains("longer than 10 bytes"), "{found:?}");
        assert!(found[2].1.as_ref().unwrap_err().contains("not UTF-8 (byte 1)"), "{found:?}");
        assert_eq!(found[3], (4, Ok("end".into())));
    }
}
