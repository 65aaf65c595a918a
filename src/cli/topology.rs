//! Compares the queues on the broker with the wanted ones, and says what to do about a difference. Used by
//! `clawback queues` and `clawback doctor`. It changes nothing.

use anyhow::{Result, anyhow};
use clap::Args;
use queues::{Broker, BrokerError, Difference, QueueStatus, Topology, TopologyReport};
use secrecy::ExposeSecret;
use url::Url;

use crate::config::Config;

const MANAGEMENT_URL: &str = "RABBITMQ_MANAGEMENT_URL";
const ALLOWED: &str = "must be like http://HOST:15672 or https://HOST:15671";
/// The management API's usual ports beside the usual ports of AMQP: plain, and with TLS.
const USUAL_PORTS: [(&str, u16, &str, u16); 2] = [("amqp", 5672, "http", 15672), ("amqps", 5671, "https", 15671)];

pub(super) const UNKNOWN_PORT: &str = "the management API's port is unknown, because AMQP_URL has another port than 5672; \
     name it with --management or RABBITMQ_MANAGEMENT_URL";

#[derive(Debug, Args)]
pub(super) struct Management {
    /// RabbitMQ's management API; default: RABBITMQ_MANAGEMENT_URL, or port 15672 of AMQP_URL's host
    #[arg(long, value_name = "URL", value_parser = parse)]
    management: Option<Url>,
}

impl Management {
    /// Without user and password in it, those of `AMQP_URL` count. None: nobody knows where it is.
    ///
    /// # Errors
    /// When the environment's URL can't be used. The error does not show it: it may contain a password.
    pub(super) fn url(self, config: &Config) -> Result<Option<Url>> {
        let environment = std::env::var(MANAGEMENT_URL).ok().filter(|url| !url.is_empty());
        match (self.management, environment) {
            (Some(url), _) => Ok(Some(url)),
            (None, Some(text)) => {
                parse(&text).map(Some).map_err(|_| anyhow!("{MANAGEMENT_URL} {ALLOWED} (its value is not shown)"))
            }
            (None, None) => Ok(beside_amqp(config)),
        }
    }
}

fn beside_amqp(config: &Config) -> Option<Url> {
    let amqp = Url::parse(config.amqp_url.expose_secret()).ok()?;
    let mut usual = USUAL_PORTS.into_iter();
    let (.., scheme, port) =
        usual.find(|(scheme, port, ..)| amqp.scheme() == *scheme && amqp.port().unwrap_or(*port) == *port)?;
    Url::parse(&format!("{scheme}://{}:{port}", amqp.host_str()?)).ok()
}

fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; it {ALLOWED}"))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(format!("it {ALLOWED}")) }
}

/// The queues of one topology as they are on the broker.
pub(super) struct Survey {
    pub(super) report: TopologyReport,
    pub(super) queues: Vec<QueueStatus>,
    /// Why only AMQP was asked, which reports neither policies nor bindings, and one difference per queue at most.
    pub(super) limited: Option<String>,
}

/// Asks the management API where it answers, and AMQP otherwise.
pub(super) async fn survey(
    broker: &Broker,
    topology: &Topology,
    management: Option<&Url>,
) -> Result<Survey, BrokerError> {
    let compared = async {
        let limited = match management {
            None => UNKNOWN_PORT.to_owned(),
            Some(url) => match broker.check_with_management(topology, url).await {
                Ok(report) => return Ok((report, None)),
                Err(error) => error.to_string(),
            },
        };
        Ok((broker.check(topology).await?, Some(limited)))
    };
    let ((report, limited), queues) = tokio::try_join!(compared, broker.verify(topology))?;
    Ok(Survey { report, queues, limited })
}

impl Survey {
    pub(super) fn queue(&self, name: &str) -> Option<&QueueStatus> {
        self.queues.iter().find(|queue| queue.name == name && queue.exists)
    }

    /// No worker takes jobs from the work queue.
    pub(super) fn no_consumer(&self, topology: &Topology) -> Option<Difference> {
        let work = self.queue(topology.queue()).filter(|work| work.consumers == 0)?;
        let (wanted, found) = (Some("1 or more".to_owned()), Some("0".to_owned()));
        Some(Difference::new(&format!("queue `{}`", work.name), "consumers", wanted, found))
    }
}

/// What to do about a difference.
pub(super) fn remedy(difference: &Difference) -> &'static str {
    match difference.property.as_str() {
        "existence" => "`clawback queues declare` declares what is missing",
        "consumers" => "start `clawback worker`",
        "version" => "use RabbitMQ 3.10 or newer",
        flag if flag.starts_with("feature flag ") => "rabbitmqctl enable_feature_flag all",
        "leader" => {
            "bring back the broker's missing node; if none is missing, the broker has lost the queue: delete it, then \
             `clawback queues declare`; the ledger publishes its jobs again"
        }
        policy if policy.starts_with("policy ") => "change the policy or its pattern: it must not apply to this queue",
        _ => "a queue can't be changed: let it drain, delete it, then `clawback queues declare`",
    }
}

/// The differences in words, grouped by remedy, in the order found.
pub(super) fn by_remedy<'a>(differences: impl IntoIterator<Item = &'a Difference>) -> Vec<(String, &'static str)> {
    let mut found: Vec<(String, &'static str)> = Vec::new();
    for difference in differences {
        let remedy = remedy(difference);
        let described = match difference.property.as_str() {
            "existence" => format!("{} is missing", difference.object),
            _ => difference.to_string(),
        };
        match found.iter_mut().find(|(_, known)| *known == remedy) {
            Some((text, _)) => *text = format!("{text}; {described}"),
            None => found.push((described, remedy)),
        }
    }
    found
}
