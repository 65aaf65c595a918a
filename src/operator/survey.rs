//! Compares the queues on the broker with the wanted ones, and says what to do about a difference: for `clawback queues`, `clawback
//! doctor` and the page about queues. It changes nothing.

use queues::{Broker, BrokerError, Difference, QueueStatus, Topology, TopologyReport};
use url::Url;

use super::Operator;

/// Why the management API was not asked.
pub const UNKNOWN_PORT: &str = "the management API's port is unknown, because AMQP_URL has another port than 5672; \
     name it with --management or RABBITMQ_MANAGEMENT_URL";

/// The queues of one topology as they are on the broker.
#[derive(Debug)]
pub struct Survey {
    /// How the broker differs from the topology.
    pub report: TopologyReport,
    /// Each queue.
    pub queues: Vec<QueueStatus>,
    /// Why only AMQP was asked, which reports neither policies nor bindings, and one difference per queue at most.
    pub limited: Option<String>,
}

/// Asks the management API where it answers, and AMQP otherwise.
///
/// # Errors
/// When the broker can't be reached.
pub async fn survey(broker: &Broker, topology: &Topology, management: Option<&Url>) -> Result<Survey, BrokerError> {
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

impl Operator {
    /// [`survey`] of each topology, with the topology.
    ///
    /// # Errors
    /// As [`survey`].
    pub async fn survey(&self, management: Option<&Url>) -> Result<Vec<(&Topology, Survey)>, BrokerError> {
        let surveys = self.topologies.iter().map(async |topology| {
            let survey = survey(&self.broker, topology, management).await?;
            Ok((topology, survey))
        });
        futures_util::future::try_join_all(surveys).await
    }
}

impl Survey {
    /// The queue of this name, if it exists.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&QueueStatus> {
        self.queues.iter().find(|queue| queue.name == name && queue.exists)
    }

    /// No worker takes jobs from the work queue.
    #[must_use]
    pub fn no_consumer(&self, topology: &Topology) -> Option<Difference> {
        let work = self.queue(topology.queue()).filter(|work| work.consumers == 0)?;
        let (wanted, found) = (Some("1 or more".to_owned()), Some("0".to_owned()));
        Some(Difference::new(&format!("queue `{}`", work.name), "consumers", wanted, found))
    }
}

/// What to do about a difference.
#[must_use]
pub fn remedy(difference: &Difference) -> &'static str {
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
pub fn by_remedy<'a>(differences: impl IntoIterator<Item = &'a Difference>) -> Vec<(String, &'static str)> {
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
