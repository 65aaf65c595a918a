//! What a look at Stripe's list shows, whatever the kind of call.

/// What Stripe's list shows.
#[derive(Debug)]
pub(super) struct Sight {
    /// What it has of ours, if anything that matters.
    pub(super) seen: Option<Seen>,
    /// The newest that another program made in our place.
    pub(super) foreign: Option<String>,
    /// The list accounts for everything that Stripe says has happened. Lists can lag.
    pub(super) complete: bool,
    /// Stripe's `Request-Id` of the list.
    pub(super) request_id: Option<String>,
}

/// What Stripe has of ours.
#[derive(Debug)]
pub(super) enum Seen {
    /// It is done, under this id, and by this balance transaction where Stripe shows one.
    Done { id: String, balance_transaction: Option<String> },
    /// It was done otherwise than asked.
    Mismatch { code: &'static str, message: String },
    /// Stripe ended it without doing it.
    Ended { message: String },
    /// Stripe has accepted it and is not done.
    Accepted { id: String, status: String },
}
