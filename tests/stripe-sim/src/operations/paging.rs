//! Pages of a list: `limit`, `starting_after`, `ending_before`, `has_more`, over items that are sorted newest first.

use chrono::{DateTime, Utc};

use super::params::Params;
use crate::shapes::ApiError;

const LIMIT: usize = 10;
const LIMIT_MAX: usize = 100;

#[derive(Debug)]
pub(crate) struct Paging {
    limit: usize,
    starting_after: Option<String>,
    ending_before: Option<String>,
}

impl Paging {
    pub(crate) fn take(params: &mut Params) -> Result<Paging, ApiError> {
        let limit = match params.positive("limit")? {
            None => LIMIT,
            Some(limit) => usize::try_from(limit).ok().filter(|limit| *limit <= LIMIT_MAX).ok_or_else(|| {
                ApiError::invalid(format!("This value must be less than or equal to {LIMIT_MAX} (passed: {limit})."))
                    .code("parameter_invalid_integer")
                    .param("limit")
            })?,
        };
        let (starting_after, ending_before) = (params.text("starting_after")?, params.text("ending_before")?);
        if starting_after.is_some() && ending_before.is_some() {
            let message = "You cannot parameterize both starting_after and ending_before.";
            return Err(ApiError::invalid(message).param("ending_before"));
        }
        Ok(Paging { limit, starting_after, ending_before })
    }

    /// The page of `items`, and whether more lies beyond it in the direction of paging.
    pub(crate) fn cut<'a, T>(&self, items: &[&'a T], id: impl Fn(&T) -> &str) -> Result<(Vec<&'a T>, bool), ApiError> {
        let find = |cursor: &str, param: &str| {
            let at = items.iter().position(|item| id(item) == cursor);
            at.ok_or_else(|| ApiError { status: 400, ..ApiError::missing("object", cursor, param) })
        };
        if let Some(cursor) = &self.ending_before {
            let end = find(cursor, "ending_before")?;
            let start = end.saturating_sub(self.limit);
            return Ok((items[start..end].to_vec(), start > 0));
        }
        let start = match &self.starting_after {
            Some(cursor) => find(cursor, "starting_after")? + 1,
            None => 0,
        };
        let end = items.len().min(start + self.limit);
        Ok((items[start..end].to_vec(), end < items.len()))
    }
}

/// A range of times of creation, in seconds since 1970: `created`, `created[gt]`, `[gte]`, `[lt]`, `[lte]`.
#[derive(Debug)]
pub(crate) struct Created {
    from: i64,
    to: i64,
}

impl Created {
    pub(crate) fn take(params: &mut Params) -> Result<Created, ApiError> {
        let exact = params.integer("created")?;
        let mut from = exact.unwrap_or(i64::MIN);
        let mut to = exact.unwrap_or(i64::MAX);
        from = params.integer("created[gte]")?.map_or(from, |of| from.max(of));
        from = params.integer("created[gt]")?.map_or(from, |of| from.max(of.saturating_add(1)));
        to = params.integer("created[lte]")?.map_or(to, |of| to.min(of));
        to = params.integer("created[lt]")?.map_or(to, |of| to.min(of.saturating_sub(1)));
        Ok(Created { from, to })
    }

    pub(crate) fn admits(&self, created: DateTime<Utc>) -> bool {
        (self.from..=self.to).contains(&created.timestamp())
    }
}
