//! Output with what differs from run to run replaced by something of the same width, so that snapshots keep the layout.

use std::collections::HashMap;

/// `h` is a hexadecimal digit, `9` a decimal one; everything else is itself.
const UUID: &str = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
const TIMES: [(&str, &str); 3] =
    [("9999-99-99", "2026-01-02"), ("99:99:99", "03:04:05"), ("99-99 99:99 ", "01-02 03:04 ")];
const IDS: [&str; 2] = ["trr_", "req_"];

/// The text with ids and times redacted. The same id becomes the same number throughout.
pub(crate) fn redacted(text: &str) -> String {
    let mut ids: HashMap<String, usize> = HashMap::new();
    let mut number = |id: &str| {
        let next = ids.len() + 1;
        *ids.entry(id.to_owned()).or_insert(next)
    };
    let mut out = String::new();
    let mut rest = text;
    'text: while let Some(first) = rest.chars().next() {
        if let Some(id) = matching(rest, UUID) {
            out += &format!("00000000-0000-7000-8000-{:012}", number(&id[28..]));
            rest = &rest[id.len()..];
            continue;
        }
        if let Some(id) = rest.strip_prefix('…').and_then(|rest| matching(rest, "hhhhhhhh")) {
            out += &format!("…{:08}", number(id));
            rest = &rest['…'.len_utf8() + id.len()..];
            continue;
        }
        for (pattern, replacement) in TIMES {
            if let Some(time) = matching(rest, pattern) {
                out += replacement;
                rest = &rest[time.len()..];
                // Fractions of a second: three digits in a table, as many as it takes in JSON.
                if let Some(fraction) = rest.strip_prefix('.') {
                    rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
                    out += ".678";
                }
                continue 'text;
            }
        }
        for prefix in IDS {
            if let Some(id) = rest.strip_prefix(prefix) {
                let length = id.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(id.len());
                out += prefix;
                out += &"x".repeat(length);
                rest = &id[length..];
                continue 'text;
            }
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

fn matching<'a>(text: &'a str, pattern: &str) -> Option<&'a str> {
    let mut letters = text.chars();
    let fits = pattern.chars().all(|wanted| match (wanted, letters.next()) {
        ('h', Some(letter)) => letter.is_ascii_hexdigit(),
        ('9', Some(letter)) => letter.is_ascii_digit(),
        (wanted, letter) => letter == Some(wanted),
    });
    fits.then(|| &text[..pattern.len()])
}
