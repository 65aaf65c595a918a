//! Compares the queues on the broker with those that are wanted, and says what to do about a difference. Used by
//! `clawback queues` and `clawback doctor`. It changes nothing.

use queues::{Broker, BrokerError, Difference, Topology, TopologyReport};
use secrecy::ExposeSecret;
use url::Url;

use crate::config::Config;

/// Where AMQP has its usual port, RabbitMQ's management API has its own, too: plain, and with TLS.
const USUAL_PORTS: [(&str, u16, &str, u16); 2] = [("amqp", 5672, "http", 15672), ("amqps", 5671, "https", 15671)];

pub(super) const UNKNOWN_PORT: &str =
    "AMQP_URL has another port than 5672, so that the management API's is not known; --management names it";

/// What a comparison found.
pub(super) struct Comparison {
    pub(super) report: TopologyReport,
    /// Why only AMQP was asked, which tells neither policies nor the binding nor a second difference of a queue.
    pub(super) limited: Option<String>,
}

/// RabbitMQ's management API: as said on the command line, or else beside AMQP where that has its usual port. Without
/// user and password, so that those of `AMQP_URL` are taken.
pub(super) fn management(config: &Config, said: Option<Url>) -> Option<Url> {
    said.or_else(|| {
        let amqp = Url::parse(config.amqp_url.expose_secret()).ok()?;
        let mut usual = USUAL_PORTS.into_iter();
        let (.., scheme, port) =
            usual.find(|(scheme, port, ..)| amqp.scheme() == *scheme && amqp.port().unwrap_or(*port) == *port)?;
        Url::parse(&format!("{scheme}://{}:{port}", amqp.host_str()?)).ok()
    })
}

/// A value for `--management`.
pub(super) fn parse_management(text: &str) -> Result<Url, String> {
    let allowed = "allowed: http://HOST:15672 or https://HOST:15671";
    let url = Url::parse(text).map_err(|error| format!("{error}; {allowed}"))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(allowed.to_owned()) }
}

/// Through the management API where it answers, and through AMQP otherwise.
pub(super) async fn compare(
    broker: &Broker,
    topology: &Topology,
    management: Option<&Url>,
) -> Result<Comparison, BrokerError> {
    let limited = match management {
        None => UNKNOWN_PORT.to_owned(),
        Some(url) => match broker.check_with_management(topology, url).await {
            Ok(report) => return Ok(Comparison { report, limited: None }),
            Err(error) => error.to_string(),
        },
    };
    Ok(Comparison { report: broker.check(topology).await?, limited: Some(limited) })
}

/// Nobody takes jobs from the work queue.
pub(super) fn no_consumer(topology: &Topology) -> Difference {
    let (wanted, found) = (Some("1 or more".to_owned()), Some("0".to_owned()));
    Difference::new(&format!("queue `{}`", topology.queue()), "consumers", wanted, found)
}

/// What to do about a difference.
pub(super) fn remedy(difference: &Difference) -> &'static str {
    match difference.property.as_str() {
        "existence" => "`clawback queues declare` declares what is missing",
        "consumers" => "start `clawback worker`",
        "version" => "use RabbitMQ 3.10 or newer",
        flag if flag.starts_with("feature flag ") => "rabbitmqctl enable_feature_flag all",
        "leader" => {
            "bring back the broker's node that is away; if none is, the broker has lost the queue: delete it, then \
             `clawback queues declare`, and its jobs are published again from the ledger"
        }
        policy if policy.starts_with("policy ") => {
            "change the policy, or its pattern, so that it leaves this queue alone"
        }
        _ => "a queue can't be changed: let it run empty, delete it, then `clawback queues declare`",
    }
}

/// The differences in words, those with one remedy together, in the order in which they were found.
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
