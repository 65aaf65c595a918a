//! What every fault test needs: a broker that may be broken, a network that breaks, and a load that is counted.

#[path = "../../support/eventually.rs"]
mod eventually;
mod load;
pub(crate) mod own_broker;
mod place;
#[path = "../../support/program.rs"]
mod program;
mod proxy;
mod random;

pub(crate) use {
    eventually::eventually,
    load::{JOBS, Load, handled_everything, outcome_of, publish_until_confirmed},
    own_broker::OwnBroker,
    place::{Job, Place},
    program::program,
    proxy::Proxy,
    random::Random,
};

use std::{env, time::Duration};

/// Longer than anything here takes, on a machine that does other things as well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The broker that `./dev test` has set up, which others use too.
pub(crate) fn shared_broker() -> String {
    env::var("AMQP_URL").expect("AMQP_URL is not set: run the tests with `./dev test`, which sets up RabbitMQ")
}
