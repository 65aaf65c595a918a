//! One line of the doctor's: what was checked, how it is, and what to do.

use std::io::{Result, Write};

use chrono::{DateTime, TimeDelta, Utc};

use crate::cli::output::wrap;
pub(super) use crate::operator::doctor::{Finding, Status};

/// Smaller differences are ignored: Stripe gives its time to the second.
const SAME_TIME: TimeDelta = TimeDelta::seconds(5);

impl Finding {
    pub(super) fn ok(check: &str, message: impl Into<String>) -> Self {
        Self { check: check.to_owned(), status: Status::Ok, message: message.into(), remedy: None }
    }

    pub(super) fn warning(check: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Warning, remedy: Some(remedy.into()), ..Self::ok(check, message) }
    }

    pub(super) fn error(check: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Error, remedy: Some(remedy.into()), ..Self::ok(check, message) }
    }

    /// Whether `theirs` lies between `asked` and now. A difference of `error_from` or more is an error.
    pub(super) fn clock(
        check: &str,
        whose: &str,
        theirs: DateTime<Utc>,
        asked: DateTime<Utc>,
        error_from: Option<TimeDelta>,
    ) -> Self {
        let now = Utc::now();
        let off = (asked - theirs).max(theirs - now).max(TimeDelta::zero());
        if off < SAME_TIME {
            return Self::ok(check, format!("{whose} clock and this machine's agree"));
        }
        let direction = if theirs > now { "behind" } else { "ahead of" };
        let message = format!("this machine's clock is {} s {direction} {whose}", off.num_seconds());
        let remedy = "set the clocks by NTP (timedatectl shows whether it runs); Stripe's signatures count for 300 s";
        match error_from {
            Some(limit) if off >= limit => Self::error(check, message, remedy),
            _ => Self::warning(check, message, remedy),
        }
    }

    /// At most 80 columns wide.
    pub(super) fn show(&self, out: &mut impl Write, in_color: bool) -> Result<()> {
        const INDENT: &str = "         ";
        let (word, color) = match self.status {
            Status::Ok => ("ok", "32"),
            Status::Warning => ("warning", "33"),
            Status::Error => ("error", "31;1"),
        };
        let mut text = Vec::new();
        wrap(&mut text, INDENT, INDENT, &format!("{}: {}", self.check, self.message))?;
        if let Some(remedy) = &self.remedy {
            wrap(&mut text, INDENT, INDENT, &format!("→ {remedy}"))?;
        }
        // The word stands in the first line's indent.
        let padding = &INDENT[word.len()..];
        if in_color {
            write!(out, "\x1b[{color}m{word}\x1b[0m{padding}")?;
        } else {
            write!(out, "{word}{padding}")?;
        }
        out.write_all(&text[INDENT.len()..])
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_told_with_the_direction_and_the_seconds() {
        let asked = Utc::now();
        let clock = |off: i64| {
            let theirs = asked + TimeDelta::seconds(off);
            Finding::clock("clock", "Stripe's", theirs, asked, Some(TimeDelta::seconds(300)))
        };
        assert_eq!([0, 2, -2].map(|off| clock(off).status), [Status::Ok; 3]);
        assert_eq!([60, -60].map(|off| clock(off).status), [Status::Warning; 2]);
        assert_eq!([900, -900].map(|off| clock(off).status), [Status::Error; 2]);
        assert!(clock(900).message.contains("behind Stripe's"), "{:?}", clock(900));
        assert_eq!(clock(-900).message, "this machine's clock is 900 s ahead of Stripe's");
    }

    #[test]
    fn a_line_is_at_most_80_columns_wide_and_colored_only_on_request() {
        let finding = Finding::warning("check", "word ".repeat(40), "remedy ".repeat(20));
        let show = |in_color| {
            let mut out = Vec::new();
            finding.show(&mut out, in_color).unwrap();
            String::from_utf8(out).unwrap()
        };
        let plain = show(false);
        assert!(plain.starts_with("warning  check: word"), "{plain}");
        assert!(plain.lines().all(|line| line.chars().count() <= 80) && !plain.contains('\x1b'), "{plain}");
        assert_eq!(show(true), plain.replacen("warning", "\x1b[33mwarning\x1b[0m", 1));
    }
}
