//! Limits the requests per second of each token, and of each address without a valid one. Webhooks have no limit: providers
//! count a refusal as a failed delivery.

use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};

use super::problem::{Kind, Problem};

/// Requests per second with one token: sustained, and in a burst.
const WITH_A_TOKEN: Quota = quota(500, 1_000);
/// The same for requests without a valid token from one address.
const WITHOUT_A_TOKEN: Quota = quota(1, 100);
/// The number of addresses above which idle ones are dropped.
const MANY_PEERS: usize = 10_000;

/// The limits of one server.
#[derive(Debug)]
pub(super) struct Limits {
    operate: DefaultDirectRateLimiter,
    read: DefaultDirectRateLimiter,
    refused: DefaultKeyedRateLimiter<Option<IpAddr>>,
    clock: DefaultClock,
}

impl Limits {
    pub(super) fn new() -> Self {
        Self {
            operate: RateLimiter::direct(WITH_A_TOKEN),
            read: RateLimiter::direct(WITH_A_TOKEN),
            refused: RateLimiter::keyed(WITHOUT_A_TOKEN),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a request with the token that may do everything.
    pub(super) fn count_operate(&self) -> Result<(), Problem> {
        self.operate
            .check()
            .map_err(|until| self.too_many("this token's limit of 500 requests a second is used up", &until))
    }

    /// Counts a request with the token that may only read.
    pub(super) fn count_read(&self) -> Result<(), Problem> {
        self.read
            .check()
            .map_err(|until| self.too_many("this token's limit of 500 requests a second is used up", &until))
    }

    /// Counts a request without a valid token. Peers without a known address share one count.
    pub(super) fn count_refused(&self, peer: Option<IpAddr>) -> Result<(), Problem> {
        if self.refused.len() > MANY_PEERS {
            self.refused.retain_recent();
        }
        let used_up = "too many requests without a valid token; send `Authorization: Bearer $API_TOKEN`";
        self.refused.check_key(&peer).map_err(|until| self.too_many(used_up, &until))
    }

    fn too_many(&self, what: &str, until: &NotUntil<<DefaultClock as Clock>::Instant>) -> Problem {
        let seconds = until.wait_time_from(self.clock.now()).as_secs().saturating_add(1);
        Problem::new(Kind::TooManyRequests, format!("{what}; try again in {seconds} s")).retry_after(seconds)
    }
}

const fn quota(per_second: u32, at_once: u32) -> Quota {
    Quota::per_second(non_zero(per_second)).allow_burst(non_zero(at_once))
}

const fn non_zero(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use std::net::Ipv4Addr;

    use super::*;

    fn peer(last: u8) -> Option<IpAddr> {
        Some(Ipv4Addr::new(192, 0, 2, last).into())
    }

    #[test]
    fn one_address_that_guesses_is_slowed_down_and_no_other_one() {
        let limits = Limits::new();
        let refused = (0..200).filter(|_| limits.count_refused(peer(1)).is_err()).count();
        assert!((80..=100).contains(&refused), "{refused}");
        limits.count_refused(peer(2)).unwrap();
        limits.count_operate().unwrap();
    }

    #[test]
    fn one_tokens_flood_leaves_the_other_token_alone() {
        let limits = Limits::new();
        assert!((0..1_000_000).any(|_| limits.count_read().is_err()));
        limits.count_operate().unwrap();
    }
}
