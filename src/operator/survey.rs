//! Compares the queues on the broker with the wanted ones, and says what to do about a difference: for `clawback queues`, `clawback
//! doctor` and the page about queues. It changes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use queues::{Broker, BrokerError, Difference, QueueStatus, Topology, TopologyReport};
use tokio::sync::Mutex;
use url::Url;

use super::Operator;

/// Why the management API was not asked.
pub const UNKNOWN_PORT: &str = "the management API's port is unknown, because AMQP_URL has another port than 5672; \
     name it with --management or RABBITMQ_MANAGEMENT_URL";

/// How long the broker is not asked again how full its queues are.
const DEPTHS_FRESH_FOR: Duration = Duration::from_secs(10);
/// A broker that takes longer is away.
const DEPTHS_TIME_LIMIT: Duration = Duration::from_secs(2);

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

/// How full each queue is, as of some seconds ago at most; nothing while the broker can't be asked.
pub type Depths = Arc<dyn Fn() -> BoxFuture<'static, Arc<[QueueStatus]>> + Send + Sync>;

impl Operator {
    /// The way to ask how full the queues are: at most every few seconds, whoever asks.
    #[must_use]
    pub fn depths(self) -> Depths {
        let (operator, last) = (Arc::new(self), Arc::new(Mutex::new(None::<(Instant, Arc<[QueueStatus]>)>)));
        Arc::new(move || {
            let (operator, last) = (Arc::clone(&operator), Arc::clone(&last));
            async move {
                let mut last = last.lock().await;
                if let Some((_, known)) = last.as_ref().filter(|(at, _)| at.elapsed() < DEPTHS_FRESH_FOR) {
                    return Arc::clone(known);
                }
                let looks = operator.topologies.iter().map(|topology| operator.broker.verify(topology));
                let looked = tokio::time::timeout(DEPTHS_TIME_LIMIT, futures_util::future::try_join_all(looks)).await;
                let found = looked.ok().and_then(Result::ok).unwrap_or_default().into_iter().flatten();
                let found: Arc<[QueueStatus]> = found.filter(|queue| queue.exists).collect();
                *last = Some((Instant::now(), Arc::clone(&found)));
                found
            }
            .boxed()
        })
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
