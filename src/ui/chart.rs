//! Charts, drawn on the server: bars, each with its value as a title. Every chart has its table beside it.

use maud::{Markup, html};

const WIDTH: u32 = 600;
const HEIGHT: u32 = 110;
/// Below the bars, for the first and the last label.
const FOOT: u32 = 18;

/// A bar.
pub(super) struct Bar {
    /// What it is of: a day, an age.
    pub(super) label: String,
    /// How high it is.
    pub(super) value: i64,
    /// The value as people read it.
    pub(super) text: String,
}

/// A chart of these bars; nothing where all are 0. Read aloud as `name`, and the table says the rest.
pub(super) fn bars(name: &str, bars: &[Bar]) -> Markup {
    let highest = bars.iter().map(|bar| bar.value).max().unwrap_or_default();
    let count = u32::try_from(bars.len()).unwrap_or(u32::MAX).max(1);
    let step = WIDTH / count;
    let height = |value: i64| {
        let part = i128::from(value.max(0)) * i128::from(HEIGHT) / i128::from(highest.max(1));
        // What is there is seen.
        u32::try_from(part).unwrap_or(HEIGHT).max(u32::from(value > 0))
    };
    html! {
        @if highest > 0 {
            svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT + FOOT) } role="img" aria-label=(name) {
                line x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
                @for (at, bar) in (0_u32..).zip(bars) {
                    @let height = height(bar.value);
                    rect x=(at * step + 1) y=(HEIGHT - height) width=(step.saturating_sub(2).max(1)) height=(height) {
                        title { (bar.label) ": " (bar.text) }
                    }
                }
                @if let (Some(first), Some(last)) = (bars.first(), bars.last()) {
                    text x="0" y=(HEIGHT + FOOT - 4) { (first.label) }
                    text.end x=(count * step) y=(HEIGHT + FOOT - 4) { (last.label) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_bar_fills_the_chart_and_a_small_one_is_seen() {
        let bar = |value| Bar { label: format!("day <{value}>"), value, text: format!("{value} EUR") };
        let chart = bars("Taken back", &[bar(1), bar(1_000_000), bar(0)]).into_string();
        assert!(chart.contains("height=\"110\"") && chart.contains("height=\"1\""), "{chart}");
        assert!(chart.contains("<title>day &lt;1&gt;: 1 EUR</title>") && !chart.contains("style="), "{chart}");
        assert_eq!(bars("Nothing", &[bar(0)]).into_string(), "");
    }
}
