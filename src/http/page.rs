//! What all lists share: their limits, and the cursor to the next page.

use chrono::{DateTime, Utc};
use sea_orm::Iterable;
use serde::Deserialize;
use uuid::Uuid;

use super::extract::{Given, Parameter};
use crate::ledger::{
    ClaimStatus, HistoryEntity, HistoryKind, ItemState, OperationAction, Recorded, ReversalStatus, SellerDebt, TIMES,
    TransferStatus, parse_time,
};

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 200;

/// The most rows of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(u64);

/// The last id of the previous page.
#[derive(Debug)]
pub(crate) struct Cursor(pub(crate) Uuid);

/// The last name of the previous page.
#[derive(Debug)]
pub(crate) struct TextCursor(pub(crate) String);

/// The last position of the previous page.
#[derive(Debug)]
pub(crate) struct Position(pub(crate) i32);

/// A time, or the beginning of a day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub(crate) DateTime<Utc>);

/// A text to compare with.
#[derive(Debug)]
pub(super) struct Text(pub(super) String);

/// The parameters of a list that has no others.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PageQuery {
    limit: Given<Limit>,
    cursor: Given<Cursor>,
}

impl PageQuery {
    /// The last id of the previous page, and the most rows of this one.
    pub(super) fn after_and_limit(self) -> (Option<Uuid>, u64) {
        (self.cursor.0.map(|Cursor(id)| id), self.limit.0.unwrap_or_default().rows())
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

impl Limit {
    pub(super) fn rows(self) -> u64 {
        self.0
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

impl Parameter for TextCursor {
    fn must() -> String {
        Cursor::must()
    }

    fn parse(text: &str) -> Option<Self> {
        Text::parse(text).map(|Text(text)| Self(text))
    }
}

impl Parameter for Position {
    fn must() -> String {
        Cursor::must()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|position| *position >= 0).map(Self)
    }
}

impl Parameter for Time {
    fn must() -> String {
        TIMES.to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        parse_time(text).map(Self)
    }
}

/// When rows were recorded, as two parameters say.
pub(crate) fn recorded(since: Option<Time>, until: Option<Time>) -> Recorded {
    Recorded { since: since.map(|Time(at)| at), until: until.map(|Time(at)| at) }
}

impl Parameter for Text {
    fn must() -> String {
        "1 to 255 bytes without control characters".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        let good = (1..=255).contains(&text.len()) && !text.contains(char::is_control);
        good.then(|| Self(text.to_owned()))
    }
}

/// An ISO 4217 code, in lower case.
#[derive(Debug)]
pub(crate) struct Currency(pub(crate) String);

/// `yes` or `no`.
#[derive(Debug)]
pub(crate) struct YesNo(pub(crate) bool);

/// `yes`: a condition that can only be asked for.
#[derive(Debug)]
pub(crate) struct Yes;

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    #[default]
    Newest,
    Oldest,
}

impl Parameter for Currency {
    fn must() -> String {
        "a three-letter ISO 4217 code".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_code.then(|| Self(text.to_ascii_lowercase()))
    }
}

impl Parameter for Order {
    fn must() -> String {
        "newest or oldest".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "newest" => Some(Self::Newest),
            "oldest" => Some(Self::Oldest),
            _ => None,
        }
    }
}

impl Parameter for Yes {
    fn must() -> String {
        "yes, or be left out".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        (text == "yes").then_some(Self)
    }
}

impl Parameter for YesNo {
    fn must() -> String {
        "yes or no".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "yes" => Some(Self(true)),
            "no" => Some(Self(false)),
            _ => None,
        }
    }
}

/// Reads a value of an enum by its name.
macro_rules! parameters {
    ($($name:ty),* $(,)?) => {
        $(impl Parameter for $name {
            fn must() -> String {
                format!("one of {}", Self::iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", "))
            }

            fn parse(text: &str) -> Option<Self> {
                Self::iter().find(|one| one.to_string() == text)
            }
        })*
    };
}

parameters! { ClaimStatus, HistoryEntity, HistoryKind, ItemState, OperationAction, ReversalStatus, SellerDebt, TransferStatus }
