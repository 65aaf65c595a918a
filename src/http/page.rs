//! What all lists share: their limits, and the cursor to the next page.

use uuid::Uuid;

use super::extract::Parameter;

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 200;

/// The most rows of a page.
#[derive(Debug)]
pub(super) struct Limit(u64);

/// The last id of the previous page.
#[derive(Debug)]
pub(super) struct Cursor(pub(super) Uuid);

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

impl Limit {
    /// One more than requested tells whether there is a next page.
    pub(super) fn and_one(&self) -> u64 {
        self.0.saturating_add(1)
    }

    /// The page out of these rows, and the cursor to the next one.
    pub(super) fn cut<T>(&self, mut rows: Vec<T>, id: impl Fn(&T) -> Uuid) -> (Vec<T>, Option<Uuid>) {
        let wanted = usize::try_from(self.0).unwrap_or(usize::MAX);
        let there_is_more = rows.len() > wanted;
        rows.truncate(wanted);
        let next = rows.last().filter(|_| there_is_more).map(id);
        (rows, next)
    }
}

impl Parameter for Limit {
    fn must() -> String {
        format!("an integer from 1 to {MAX_LIMIT}")
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).map(Self)
    }
}

impl Parameter for Cursor {
    fn must() -> String {
        "the next_cursor of the previous page".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}
