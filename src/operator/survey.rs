//! Compares the queues on the broker with the wanted ones, and says what to do about a difference: for `clawback queues`, `clawback
//! doctor` and the page about queues. It changes nothing.

use std::time::Duration;

use queues::{Broker, BrokerError, Difference, QueueStatus, Topology, TopologyReport};
use serde::Serialize;
use url::Url;
use utoipa::ToSchema;

use super::{Operator, Watched};
use crate::ledger::Situation;

/// Why the management API was not asked.
pub const UNKNOWN_PORT: &str = "the management API's port is unknown, because AMQP_URL has another port than 5672; \
     name it with --management or RABBITMQ_MANAGEMENT_URL";

/// A broker that takes longer is away.
const PATIENCE: Duration = Duration::from_secs(5);
/// A management API that takes longer is not asked.
const MANAGEMENT_PATIENCE: Duration = Duration::from_secs(3);

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
            Some(url) => {
                let checked = broker.check_with_management(topology, url);
                match tokio::time::timeout(MANAGEMENT_PATIENCE, checked).await {
                    Ok(Ok(report)) => return Ok((report, None)),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("the management API did not answer within {} s", MANAGEMENT_PATIENCE.as_secs()),
                }
            }
        };
        Ok((broker.check(topology).await?, Some(limited)))
    };
    let ((report, limited), queues) = tokio::try_join!(compared, broker.queue_statuses(topology))?;
    Ok(Survey { report, queues, limited })
}

/// The queues of every topology, as they were some seconds ago; or why the broker could not be asked.
pub type Surveys = Watched<Result<Vec<(Topology, Survey)>, String>>;

impl Operator {
    /// The way to ask for [`survey`] of each topology.
    #[must_use]
    pub fn surveys(self, management: Option<Url>) -> Surveys {
        Watched::new(move || {
            let (operator, management) = (self.clone(), management.clone());
            async move {
                let surveyed = tokio::time::timeout(PATIENCE, operator.survey(management.as_ref())).await;
                surveyed.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
            }
        })
    }

    async fn survey(self, management: Option<&Url>) -> Result<Vec<(Topology, Survey)>, BrokerError> {
        let Self { broker, topologies, .. } = self;
        let surveys = topologies.iter().map(|topology| survey(&broker, topology, management));
        let surveys = futures_util::future::try_join_all(surveys).await?;
        Ok(topologies.into_iter().zip(surveys).collect())
    }
}

/// A queue, and how full it is. What is unknown is null, never 0.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QueueView {
    /// Its name.
    #[schema(examples("reversals"))]
    pub name: String,
    /// Whether it exists.
    pub exists: bool,
    /// Messages that are ready.
    pub messages: Option<u32>,
    /// Messages that workers hold.
    pub unacknowledged: Option<u64>,
    /// Its consumers.
    pub consumers: Option<u32>,
}

/// How the broker differs from what is wanted.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QueueProblem {
    /// What differs: a queue, an exchange, a binding or the broker.
    pub object: String,
    /// What of it.
    pub property: String,
    /// As it should be.
    pub wanted: Option<String>,
    /// As it is.
    pub found: Option<String>,
    /// What to do.
    pub remedy: &'static str,
}

/// All queues, and what is wrong with them. Names are only ever added.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Verified {
    /// RabbitMQ's, if it says so.
    pub broker_version: Option<String>,
    /// Why only AMQP was asked, which tells neither policies and bindings, nor what workers hold.
    pub limited: Option<String>,
    /// Why live workers take no jobs for now.
    pub paused: Option<String>,
    /// Each queue.
    pub queues: Vec<QueueView>,
    /// What differs. Empty: everything is as wanted.
    pub problems: Vec<QueueProblem>,
}

impl Verified {
    /// A work queue without consumers is a problem, unless live workers are `paused`.
    #[must_use]
    pub fn of(surveys: &[(Topology, Survey)], paused: Option<String>) -> Self {
        let mut verified = Self { paused, ..Self::default() };
        for (topology, survey) in surveys {
            let report = &survey.report;
            let unattended = survey.no_consumer(topology).filter(|_| verified.paused.is_none());
            verified.broker_version = report.broker_version.clone().or(verified.broker_version);
            verified.limited = survey.limited.clone().or(verified.limited);
            verified.problems.extend(report.differences.iter().chain(&unattended).map(QueueProblem::of));
            verified.queues.extend(survey.queues.iter().map(|queue| QueueView {
                name: queue.name.clone(),
                exists: queue.exists,
                messages: queue.exists.then_some(queue.messages),
                unacknowledged: report.unacknowledged.get(&queue.name).copied(),
                consumers: queue.exists.then_some(queue.consumers),
            }));
        }
        verified
    }
}

impl QueueProblem {
    /// With what to do about it.
    #[must_use]
    pub fn of(difference: &Difference) -> Self {
        let Difference { object, property, wanted, found, .. } = difference.clone();
        Self { object, property, wanted, found, remedy: remedy(difference) }
    }

    fn in_words(&self) -> String {
        let Self { object, property, wanted, found, .. } = self;
        match property.as_str() {
            "existence" => format!("{object} is missing"),
            _ => Difference::new(object, property, wanted.clone(), found.clone()).to_string(),
        }
    }
}

/// Why live workers take no jobs for now, if that is so.
#[must_use]
pub fn paused_workers(situation: &Situation) -> Option<String> {
    situation.processes.outage()?;
    situation.why_waiting(None)
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

/// The problems in words, grouped by remedy, in the order found.
pub fn by_remedy<'a>(problems: impl IntoIterator<Item = &'a QueueProblem>) -> Vec<(String, &'static str)> {
    let mut found: Vec<(String, &'static str)> = Vec::new();
    for problem in problems {
        let described = problem.in_words();
        match found.iter_mut().find(|(_, known)| *known == problem.remedy) {
            Some((text, _)) => *text = format!("{text}; {described}"),
            None => found.push((described, problem.remedy)),
        }
    }
    found
}
