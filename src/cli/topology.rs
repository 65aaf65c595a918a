//! `--management`: where RabbitMQ's management API is. Used by `clawback queues` and `clawback doctor`.

use anyhow::Result;
use clap::Args;
use url::Url;

use crate::app::{management_url, parse_management_url};
use crate::config::Config;

pub(super) use crate::operator::survey::{Survey, UNKNOWN_PORT, by_remedy, remedy, survey};

#[derive(Debug, Args)]
pub(super) struct Management {
    /// RabbitMQ's management API; default: RABBITMQ_MANAGEMENT_URL, or port 15672 of AMQP_URL's host
    #[arg(long, value_name = "URL", value_parser = parse_management_url)]
    management: Option<Url>,
}

impl Management {
    /// Without user and password in it, those of `AMQP_URL` count. None: nobody knows where it is.
    ///
    /// # Errors
    /// When the environment's URL can't be used. The error does not show it: it may contain a password.
    pub(super) fn url(self, config: &Config) -> Result<Option<Url>> {
        self.management.map_or_else(|| management_url(config), |url| Ok(Some(url)))
    }
}
