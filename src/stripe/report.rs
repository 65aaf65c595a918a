//! What comes back from a call that did not simply succeed. Each [`Meaning`] says what leads out of it.

use std::time::Duration;

use strum::{IntoStaticStr, VariantNames};

/// What happened to a call, for the worker to act on and for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it means for the job.
    pub meaning: Meaning,
    /// The HTTP status; none when no answer came.
    pub http_status: Option<u16>,
    /// Stripe's `Request-Id`, which its support asks for.
    pub request_id: Option<String>,
    /// Stripe's `error.code`, an open set of strings.
    pub code: Option<String>,
    /// For people: what Stripe or the network said. No secrets, at most [`MESSAGE_MAX_CHARS`] characters.
    pub message: String,
    /// How long Stripe asks to wait (`Retry-After`), at most [`RETRY_AFTER_MAX`].
    pub retry_after: Option<Duration>,
    /// Whether Stripe answered from what it had saved for the idempotency key (`Idempotent-Replayed: true`).
    pub replayed: bool,
}

impl Report {
    /// The report of answers that can't be used together.
    pub(super) fn unreadable(code: &str, message: String) -> Self {
        let (http_status, request_id, retry_after) = (None, None, None);
        let (meaning, code) = (Meaning::Unreadable, Some(code.to_owned()));
        Self { meaning, http_status, request_id, code, message, retry_after, replayed: false }
    }
}

/// The longest [`Report::message`], in characters.
pub const MESSAGE_MAX_CHARS: usize = 500;
/// The longest [`Report::retry_after`]: the limit that Stripe's own SDKs set to what a server may ask of them.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What an outcome means. "Same key" is the same generation; a new generation is a new idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Meaning {
    /// The money is taken back. Leads to `reversed`, with this id stored.
    Reversed {
        /// Stripe's id of the reversal, `trr_…`.
        reversal_id: String,
        /// Stripe's id of what moved the money, `txn_…`.
        balance_transaction: Option<String>,
    },
    /// The transfer is created. Leads to `completed`, with this id stored.
    Created {
        /// Stripe's id of the transfer, `tr_…`.
        transfer_id: String,
    },
    /// Stripe took it on but has not done it. Leads to looking again by GET, never to another POST.
    Pending {
        /// Stripe's id of the reversal, `trr_…`.
        reversal_id: String,
    },
    /// Stripe took it on and gave it up. Leads to `permanently_failed`.
    Ended {
        /// What Stripe calls it: `failed` or `canceled`.
        status: String,
    },
    /// A 2xx that can't be read or is not about what was asked: indeterminate. Leads to a reconciliation by GET.
    Unreadable,
    /// No answer: DNS, refused, timeout, reset. Leads to a retry with backoff, same key.
    Unreached,
    /// The server is not proven to be Stripe. Leads to a pause of the whole worker, and an alert.
    TlsFailed,
    /// Too much time passed between the check and the request, which was not sent. Leads to reading the row again.
    NotSent,
    /// An earlier call with this key is still running. Leads to a retry after a growing delay, same key.
    KeyInUse,
    /// Another request works on the transfer. Leads to a retry after a growing delay, same key.
    Locked,
    /// Too many calls. Leads to a slower WHOLE worker, and a retry with the same key.
    RateLimited,
    /// A 500, or a saved 5xx replayed: indeterminate. Leads to a look, then to the same key again, and to a new one only when
    /// Stripe has answered the old one from what it had saved.
    ServerError,
    /// Something between us and Stripe failed (502, 503, 504, 424). Leads to a retry with backoff, same key.
    Unavailable,
    /// Nothing is left on the transfer. Leads to a GET: ours by metadata, or reversed by somebody else.
    AlreadyReversed,
    /// Less is left than asked. Leads to a GET: ours by metadata, else `permanently_failed`. The amount never shrinks
    /// silently.
    MoreThanLeft,
    /// The account that is to pay is short of money: a reversal's connected account, or the platform that creates a
    /// transfer. Leads to the slow schedule with its own deadline, with a new epoch.
    BalanceInsufficient,
    /// Stripe knows no such transfer. Leads to `permanently_failed`; a burst of them pauses the worker (wrong account
    /// or mode).
    NoSuchTransfer,
    /// Stripe knows no such account, or no such charge, to make a transfer to or from. Leads to `permanently_failed`; a
    /// burst of them pauses the worker (wrong account or mode).
    NoSuchAccount,
    /// The key was used before with other parameters: our bug, or a ledger that was lost in between. Leads to a GET: ours by
    /// metadata, else `permanently_failed`; never to a silent new key.
    KeyMisused,
    /// The API key is refused: wrong, expired, short of a permission, or of the other mode. Leads to a pause of the
    /// whole worker, and an alert; burns no job's retries.
    Denied,
    /// Stripe lets the key do nothing with this object: its account may be closed or disconnected, or the key restricted. One
    /// account's is retried and then leads to `permanently_failed`; several accounts' pause the worker.
    Forbidden,
    /// Any other refusal. Leads to `permanently_failed`.
    Rejected,
}

impl Meaning {
    /// Its name as a label of metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.into()
    }

    /// Every [`Self::label`], and `read`, as which a read that found its object is counted.
    pub const LABELS: &[&str] = &{
        let mut labels = ["read"; Self::VARIANTS.len() + 1];
        let mut at = 0;
        while at < Self::VARIANTS.len() {
            labels[at + 1] = Self::VARIANTS[at];
            at += 1;
        }
        labels
    };

    /// A failure code of ours for an answer that carries none of Stripe's.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyInUse => "idempotency_key_in_use",
            Self::Locked => "lock_timeout",
            Self::RateLimited => "rate_limit",
            Self::Pending { .. } => "pending_at_stripe",
            Self::Unreached
            | Self::TlsFailed
            | Self::Unreadable
            | Self::ServerError
            | Self::Unavailable
            | Self::Denied
            | Self::Forbidden
            | Self::BalanceInsufficient
            | Self::AlreadyReversed => self.label(),
            _ => "rejected",
        }
    }
}
