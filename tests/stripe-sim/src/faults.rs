//! The faults that tests and hands can put in the way of requests, and the queue in which they wait.
//!
//! A fault is for one transfer or any, for writes or for reads, and for a number of times. The first that fits a
//! request is taken. The queue decides only that; the exchange plays the fault.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::random_faults::RandomFaults;

/// What goes wrong. In JSON: `{"kind": "slow", "delay_ms": 200}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Does and saves everything, then cuts the connection instead of answering. Replays are cut too.
    ApplyThenDropConnection,
    /// Cuts the connection; nothing is done, nothing saved.
    DropBeforeApply,
    /// A 500 that is saved for the key; nothing is done.
    ServerError,
    /// A 500 from an edge, before the request is looked at: nothing is done, and nothing saved.
    ServerErrorAtTheEdge,
    /// A 500 that is saved for the key, although it was done.
    ServerErrorApplied,
    /// 409, as if the key were in flight. Not saved.
    #[serde(rename = "conflict_409")]
    Conflict409,
    /// 429. Not saved.
    RateLimited {
        /// The `Retry-After` header, in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// 429 with `code=lock_timeout`. Not saved.
    LockTimeout,
    /// 503 with an HTML body. Not saved.
    UnavailableHtml,
    /// 502 with an HTML body. Not saved.
    BadGateway,
    /// Waits, with the key in flight, then does and answers normally, also when the client has gone.
    Slow {
        /// In milliseconds of real time.
        delay_ms: u64,
    },
    /// Waits, with the key in flight, then cuts the connection; nothing is done, nothing saved.
    SlowThenNothing {
        /// In milliseconds of real time.
        delay_ms: u64,
    },
    /// 400 with `code=balance_insufficient`, whatever the balance. Saved.
    BalanceInsufficient,
    /// 401. Not saved.
    Unauthorized,
    /// 403 with `code=more_permissions_required`. Not saved.
    PermissionDenied,
    /// An error of Stripe's in these words. Saved, but for 401, 403 and 429.
    Refused {
        /// The HTTP status.
        status: u16,
        /// `error.code`, if there is one.
        #[serde(default)]
        code: Option<String>,
        /// `error.message`.
        message: String,
    },
    /// The reversal is created with `status=pending` and reserves its amount. Saved.
    Pending,
    /// The reversal is created with `status=failed` and takes nothing. Saved.
    Failed,
    /// 200 with a body that is no JSON, as from a proxy in between.
    #[serde(rename = "garbage_200")]
    Garbage200 {
        /// Whether it was done, and the real answer saved (the default), or not done and not saved.
        #[serde(default = "yes")]
        applied: bool,
    },
    /// Somebody else reverses first, then the request runs normally.
    AlreadyReversedElsewhere {
        /// How much they take, in minor units; all that is left by default.
        #[serde(default)]
        amount: Option<i64>,
    },
}

fn yes() -> bool {
    true
}

/// Which requests a fault is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Access {
    /// POST
    #[default]
    Writes,
    /// GET
    Reads,
}

impl Fault {
    /// Whether only a request that is really executed meets it: neither a replay nor a refused request uses it up.
    pub(crate) fn is_in_execution(&self) -> bool {
        match self {
            Fault::Refused { status, .. } => !matches!(status, 401 | 403 | 429),
            Fault::ServerError
            | Fault::ServerErrorApplied
            | Fault::Slow { .. }
            | Fault::SlowThenNothing { .. }
            | Fault::BalanceInsufficient
            | Fault::Pending
            | Fault::Failed
            | Fault::Garbage200 { .. }
            | Fault::AlreadyReversedElsewhere { .. } => true,
            Fault::ApplyThenDropConnection
            | Fault::DropBeforeApply
            | Fault::ServerErrorAtTheEdge
            | Fault::Conflict409
            | Fault::RateLimited { .. }
            | Fault::LockTimeout
            | Fault::UnavailableHtml
            | Fault::BadGateway
            | Fault::Unauthorized
            | Fault::PermissionDenied => false,
        }
    }

    /// Whether it has a meaning for requests that only read.
    pub(crate) fn fits_reads(&self) -> bool {
        !matches!(
            self,
            Fault::BalanceInsufficient
                | Fault::Pending
                | Fault::Failed
                | Fault::AlreadyReversedElsewhere { .. }
                | Fault::Conflict409
        )
    }
}

/// The faults that wait for their requests.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    waiting: VecDeque<Waiting>,
    random: Option<RandomFaults>,
}

#[derive(Debug)]
struct Waiting {
    /// None: any.
    transfer: Option<String>,
    access: Access,
    fault: Fault,
    times: u32,
}

impl Faults {
    /// An error says that the fault has no meaning for such requests.
    pub(crate) fn add(
        &mut self,
        transfer: Option<String>,
        access: Access,
        fault: Fault,
        times: u32,
    ) -> Result<(), String> {
        if access == Access::Reads && !fault.fits_reads() {
            return Err(format!("fault {fault:?}: it has no meaning for reads"));
        }
        if times > 0 {
            self.waiting.push_back(Waiting { transfer, access, fault, times });
        }
        Ok(())
    }

    /// From now on, for requests that meet no waiting fault.
    pub(crate) fn at_random(&mut self, random: RandomFaults) {
        self.random = Some(random);
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.random = None;
    }

    /// Takes the fault that a request meets. A replay passes those by that only an execution meets, and leaves them
    /// waiting.
    pub(crate) fn take(&mut self, transfer: Option<&str>, access: Access, is_replay: bool) -> Option<Fault> {
        let at = self.waiting.iter().position(|waiting| {
            let fits = waiting.transfer.as_deref().is_none_or(|wanted| Some(wanted) == transfer);
            fits && waiting.access == access && !(is_replay && waiting.fault.is_in_execution())
        });
        let Some(at) = at else {
            let random = self.random.as_mut().and_then(|random| random.draw(access));
            return random.filter(|fault| !(is_replay && fault.is_in_execution()));
        };
        let waiting = self.waiting.get_mut(at)?;
        waiting.times -= 1;
        let fault = waiting.fault.clone();
        if waiting.times == 0 {
            self.waiting.remove(at);
        }
        Some(fault)
    }
}
