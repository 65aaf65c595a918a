//! What `clawback doctor` finds, for every door that shows it. The checks themselves are in `cli::doctor`.

use serde::Serialize;
use utoipa::ToSchema;

use super::Watched;

/// How it is; ordered from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::Display, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works or can't be checked, and needs a look.
    Warning,
    /// It does not work.
    Error,
}

/// What one check found.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DoctorFinding)]
pub struct Finding {
    /// What was checked.
    pub check: String,
    /// How it is.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// What to do, if anything.
    pub remedy: Option<String>,
}

/// All findings. Names are only ever added.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Diagnosis {
    /// The worst of all.
    pub status: Status,
    /// In the order in which they are shown.
    pub checks: Vec<Finding>,
}

/// The doctor of this process.
pub type Doctor = Watched<Diagnosis>;

impl Diagnosis {
    /// Of these.
    #[must_use]
    pub fn of(checks: Vec<Finding>) -> Self {
        let status = checks.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok);
        Self { status, checks }
    }

    /// How many are so.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|finding| finding.status == status).count()
    }
}
