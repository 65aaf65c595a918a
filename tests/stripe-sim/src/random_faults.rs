//! Faults at random from a seed: the same seed and the same requests meet the same faults.
//!
//! Asked by the queue of faults for a request that meets no waiting one. Only faults that a correct client gets over
//! are drawn: nothing that would need a hand to heal, such as a pending reversal.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::faults::{Access, Fault};

#[derive(Debug)]
pub(crate) struct RandomFaults {
    rng: StdRng,
    share: f64,
}

impl RandomFaults {
    /// `share` of the requests meet one: 0 is none, 1 all.
    pub(crate) fn new(seed: u64, share: f64) -> Result<RandomFaults, String> {
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("share {share}: from 0 to 1 is allowed"));
        }
        Ok(RandomFaults { rng: StdRng::seed_from_u64(seed), share })
    }

    pub(crate) fn draw(&mut self, access: Access) -> Option<Fault> {
        if !self.rng.random_bool(self.share) {
            return None;
        }
        let delay_ms = self.rng.random_range(1..200);
        let faults = [
            Fault::ApplyThenDropConnection,
            Fault::DropBeforeApply,
            Fault::ServerError,
            Fault::ServerErrorApplied,
            Fault::Conflict409,
            Fault::RateLimited { retry_after: None },
            Fault::LockTimeout,
            Fault::UnavailableHtml,
            Fault::BadGateway,
            Fault::Slow { delay_ms },
            Fault::SlowThenNothing { delay_ms },
            Fault::BalanceInsufficient,
            Fault::Garbage200 { applied: true },
            Fault::Garbage200 { applied: false },
        ];
        let fault = faults.choose(&mut self.rng)?.clone();
        (access == Access::Writes || fault.fits_reads()).then_some(fault)
    }
}
