//! What `clawback queues` and `clawback doctor` share: where RabbitMQ's management API is, and why a queue has no consumer.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use url::Url;

use crate::app::{self, management_url, parse_management_url};
use crate::config::Config;
use crate::ledger::Situation;

pub(super) use crate::operator::survey::{
    QueueProblem, Survey, UNKNOWN_PORT, Verified, by_remedy, paused_workers, remedy, survey,
};

#[derive(Debug, Default, Args)]
pub(super) struct Management {
    /// RabbitMQ's management API; default: RABBITMQ_MANAGEMENT_URL, or port 15672 of AMQP_URL's host
    #[arg(long, value_name = "URL", value_parser = parse_management_url)]
    management: Option<Url>,
}

impl Management {
    /// Without user and password in it, those of `AMQP_URL` count. None: nobody knows where it is.
    pub(super) fn url(self, config: &Config) -> Option<Url> {
        self.management.or_else(|| management_url(config))
    }
}

/// Who is alive and what keeps jobs waiting, as far as the database can be asked in a few seconds.
pub(super) async fn situation(config: &Config) -> Option<Arc<Situation>> {
    let ask = async {
        let ledger = app::connect_ledger(config).await.ok()?;
        let situation = ledger.situation().await.ok();
        let _ = ledger.close().await;
        situation
    };
    tokio::time::timeout(Duration::from_secs(4), ask).await.ok().flatten()
}
