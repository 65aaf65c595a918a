//! Amounts as people read them. Clawback counts in Stripe's minor units, whose number of decimals depends on the currency.

use maud::{Markup, html};

/// Currencies without decimals at Stripe. ISO 4217 has none for ISK and UGX either, but Stripe counts them in hundredths.
const WITHOUT_DECIMALS: [&str; 15] =
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"];
/// Currencies with three decimals.
const THREE_DECIMALS: [&str; 7] = ["bhd", "iqd", "jod", "kwd", "lyd", "omr", "tnd"];

/// `12,345.00 EUR`.
pub(super) fn text(minor_units: i128, currency: &str) -> String {
    let decimals = match currency {
        code if WITHOUT_DECIMALS.contains(&code) => 0,
        code if THREE_DECIMALS.contains(&code) => 3,
        _ => 2,
    };
    let sign = if minor_units < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", minor_units.unsigned_abs(), width = decimals + 1);
    let (whole, part) = digits.split_at(digits.len() - decimals);
    let point = if decimals == 0 { "" } else { "." };
    format!("{sign}{}{point}{part} {}", grouped(whole), currency.to_uppercase())
}

/// The amount as [`text`], with its minor units for programs.
pub(super) fn money(minor_units: impl Into<i128>, currency: &str) -> Markup {
    let minor_units = minor_units.into();
    html! { data.money value=(minor_units) { (text(minor_units, currency)) } }
}

fn grouped(digits: &str) -> String {
    let grouped = digits.char_indices().flat_map(|(at, digit)| {
        let comma = (at > 0 && (digits.len() - at).is_multiple_of(3)).then_some(',');
        comma.into_iter().chain([digit])
    });
    grouped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_its_currencys_decimals() {
        for (minor_units, currency, expected) in [
            (6_000, "eur", "60.00 EUR"),
            (5, "usd", "0.05 USD"),
            (0, "eur", "0.00 EUR"),
            (1_234_567_890, "eur", "12,345,678.90 EUR"),
            (-100_000, "eur", "-1,000.00 EUR"),
            (500, "jpy", "500 JPY"),
            (123_456, "jpy", "123,456 JPY"),
            (1_500, "kwd", "1.500 KWD"),
            (1_000, "isk", "10.00 ISK"),
        ] {
            assert_eq!(text(minor_units, currency), expected);
        }
        assert_eq!(money(500_i64, "jpy").into_string(), r#"<data class="money" value="500">500 JPY</data>"#);
    }
}
