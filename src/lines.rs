//! Rows as lines for programs and spreadsheets: CSV with stable columns, or JSON, one object a line.

use serde::Serialize;
use serde_json::Value;

/// A row that is written as one line.
pub trait Line: Serialize {
    /// The names of its fields, in the order of the columns. Names are only ever added, at the end.
    const COLUMNS: &'static [&'static str];
}

/// A struct that is a [`Line`]: its fields are the columns.
macro_rules! line {
    ($(#[$of_row:meta])* $visible:vis struct $name:ident {
        $($(#[$of_column:meta])* $column_visible:vis $column:ident: $type:ty,)*
    }) => {
        $(#[$of_row])*
        $visible struct $name { $($(#[$of_column])* $column_visible $column: $type,)* }

        impl $crate::lines::Line for $name {
            const COLUMNS: &'static [&'static str] = &[$(stringify!($column)),*];
        }
    };
}
pub(crate) use line;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// A header, then RFC 4180 with `\n`. A text that a spreadsheet would run as a formula begins with `'`.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

impl Lines {
    /// What comes before the first row.
    #[must_use]
    pub fn header<L: Line>(self) -> String {
        match self {
            Self::Csv => L::COLUMNS.join(",") + "\n",
            Self::Ndjson => String::new(),
        }
    }

    /// These rows, each with its line end.
    ///
    /// # Errors
    /// When a row can't be serialized.
    pub fn of<L: Line>(self, rows: &[L]) -> serde_json::Result<String> {
        let mut text = String::new();
        for row in rows {
            match self {
                Self::Csv => text.push_str(&csv(L::COLUMNS, &serde_json::to_value(row)?)),
                Self::Ndjson => text.push_str(&serde_json::to_string(row)?),
            }
            text.push('\n');
        }
        Ok(text)
    }
}

fn csv(columns: &[&str], row: &Value) -> String {
    let field = |column: &&str| match &row[*column] {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    };
    columns.iter().map(field).collect::<Vec<_>>().join(",")
}

/// What came from outside must not be run by the spreadsheet that opens the file.
fn quoted(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if text.contains(['"', ',', '\n', '\r']) {
        return format!("\"{guard}{}\"", text.replace('"', "\"\""));
    }
    format!("{guard}{text}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use super::*;

    line! {
        #[derive(Serialize)]
        struct Row {
            text: &'static str,
            number: i64,
            missing: Option<bool>,
        }
    }

    #[test]
    fn no_text_is_a_formula_or_breaks_its_line() {
        let csv = |text| Lines::Csv.of(&[Row { text, number: -1, missing: None }]).unwrap();
        for (text, written) in [
            ("plain", "plain,-1,\n"),
            ("=1+1", "'=1+1,-1,\n"),
            ("+1", "'+1,-1,\n"),
            ("-1", "'-1,-1,\n"),
            ("@SUM(A1)", "'@SUM(A1),-1,\n"),
            ("\t=1", "'\t=1,-1,\n"),
            ("\r=1", "\"'\r=1\",-1,\n"),
            ("=HYPERLINK(\"http://x\",1)", "\"'=HYPERLINK(\"\"http://x\"\",1)\",-1,\n"),
            ("two\nlines", "\"two\nlines\",-1,\n"),
            ("", ",-1,\n"),
        ] {
            assert_eq!(csv(text), written);
        }
        assert_eq!(Lines::Csv.header::<Row>(), "text,number,missing\n");
        let json = Lines::Ndjson.of(&[Row { text: "=1\n", number: 1, missing: Some(true) }]).unwrap();
        assert_eq!(json, "{\"text\":\"=1\\n\",\"number\":1,\"missing\":true}\n");
    }
}
