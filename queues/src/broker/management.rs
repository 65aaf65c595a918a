//! Compares a topology with the broker through RabbitMQ's management API, read-only.

use super::{
    Broker, BrokerError,
    check::{Difference, TopologyReport, without_leader},
};
use crate::{Argument, Binding, ExchangeSpec, QueueSpec, Topology, connection::close};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(10);
/// The first version whose quorum queues have a message TTL and dead-letter at least once.
const OLDEST_VERSION: (u32, u32) = (3, 10);
/// Policies that would expire, drop or divert jobs. Where the queue has the argument, the argument counts, or the smaller
/// of two numbers.
const POLICIES: [&str; 9] = [
    "message-ttl",
    "expires",
    "max-length",
    "max-length-bytes",
    "overflow",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "delivery-limit",
];

/// Why the management API gave no answer. No text holds its password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagementError {
    /// No answer.
    #[error("RabbitMQ's management API at {address} cannot be reached: {reason}; is the plugin enabled?")]
    #[non_exhaustive]
    Unreachable {
        /// Scheme, host and port.
        address: String,
        /// What the operating system said.
        reason: String,
    },
    /// Another answer than expected.
    #[error(
        "RabbitMQ's management API at {address} answered {status} for {path}; the user needs the tag `management` \
         and access to the vhost"
    )]
    #[non_exhaustive]
    Refused {
        /// Scheme, host and port.
        address: String,
        /// The path that was asked for.
        path: String,
        /// The HTTP status.
        status: u16,
    },
    /// The AMQP part of the check failed.
    #[error(transparent)]
    Amqp(#[from] BrokerError),
}

impl Broker {
    /// Compares the broker with the topology through RabbitMQ's management API at `management`
    /// (`http://USER:PASSWORD@HOST:15672`; user and password default to the AMQP URL's), in the AMQP URL's vhost: every
    /// queue's type, arguments and policies, the exchanges, the bindings, the version and the feature flag that dead-lettering
    /// needs; and, through AMQP, whether every queue's leader answers. It changes nothing. Each request has 10 s. Without the API,
    /// use [`check`](Self::check). It installs ring as rustls's provider for the process, unless there is one.
    ///
    /// # Errors
    /// [`ManagementError::Unreachable`], also when a request takes too long; [`ManagementError::Refused`] for another answer than
    /// expected; [`ManagementError::Amqp`] when there is no AMQP connection. A difference is not an error.
    pub async fn check_with_management(
        &self,
        topology: &Topology,
        management: &Url,
    ) -> Result<TopologyReport, ManagementError> {
        let api = self.api(management)?;
        let (mut differences, mut unacknowledged) = (Vec::new(), BTreeMap::new());
        let overview = api.get(&["overview"]).await?.unwrap_or_default();
        let broker_version = overview["rabbitmq_version"].as_str().map(str::to_owned);
        if broker_version.as_deref().and_then(version).is_none_or(|version| version < OLDEST_VERSION) {
            let wanted = Some("3.10 or newer".to_owned());
            differences.push(Difference::new("broker", "version", wanted, broker_version.clone()));
        }
        let flags = self.feature_flags(management).await.unwrap_or_default();
        differences.extend(compare_flags(broker_version.as_deref().and_then(version), &flags));
        for queue in topology.queues() {
            let found = api.get(&["queues", &api.vhost, &queue.name]).await?;
            let held = found.as_ref().and_then(|found| found["messages_unacknowledged"].as_u64());
            unacknowledged.extend(held.map(|held| (queue.name.clone(), held)));
            differences.extend(compare_queue(&queue, found.as_ref()));
        }
        for exchange in topology.exchanges() {
            let path = ["exchanges", &api.vhost, &exchange.name];
            differences.extend(compare_exchange(&exchange, api.get(&path).await?.as_ref()));
            let [kind, vhost, name] = path;
            let bound = api.get(&[kind, vhost, name, "bindings", "source"]).await?.unwrap_or_default();
            let wanted = topology.bindings().into_iter().filter(|binding| binding.source == exchange.name);
            differences.extend(wanted.filter_map(|binding| compare_binding(&binding, &bound)));
        }
        let connection = self.connect("check").await?;
        differences.extend(without_leader(self, &connection, topology).await);
        close(&connection).await;
        Ok(TopologyReport { broker_version, differences, unacknowledged })
    }

    /// The broker's feature flags and whether each is enabled. Newer brokers do not list retired flags; some versions show
    /// flags to administrators only.
    ///
    /// # Errors
    /// [`ManagementError::Unreachable`], also when it takes longer than 10 s; [`ManagementError::Refused`] for another answer than
    /// expected.
    pub async fn feature_flags(&self, management: &Url) -> Result<BTreeMap<String, bool>, ManagementError> {
        let flags = self.api(management)?.get(&["feature-flags"]).await?.unwrap_or_default();
        let named = |flag: &Value| Some((flag["name"].as_str()?.to_owned(), flag["state"] == "enabled"));
        Ok(flags.as_array().into_iter().flatten().filter_map(named).collect())
    }

    fn api(&self, management: &Url) -> Result<Api, ManagementError> {
        let uri = self.next_uri();
        let mut api = Api::new(management, &uri.vhost)?;
        if api.user.is_empty() {
            let ours = &uri.authority.userinfo;
            (api.user, api.password) = (ours.username.clone(), Some(ours.password.clone()));
        }
        Ok(api)
    }
}

/// Without `stream_queue` RabbitMQ before 4.0 dead-letters at most once, whatever a queue's arguments say, and only logs it
/// (`rabbit_quorum_queue` of 3.10.8). An unlisted flag counts as enabled.
fn compare_flags(version: Option<(u32, u32)>, flags: &BTreeMap<String, bool>) -> Option<Difference> {
    let is_off = flags.get("stream_queue") == Some(&false);
    let (enabled, disabled) = (Some("enabled".to_owned()), Some("disabled".to_owned()));
    (is_off && version.is_some_and(|version| version < (4, 0)))
        .then(|| Difference::new("broker", "feature flag stream_queue", enabled, disabled))
}

fn compare_queue(wanted: &QueueSpec, found: Option<&Value>) -> Vec<Difference> {
    let object = format!("queue `{}`", wanted.name);
    let Some(found) = found else { return vec![Difference::missing(&object)] };
    let mut differences = Vec::new();
    if found["durable"] != true {
        let found = Some(shown(&found["durable"]));
        differences.push(Difference::new(&object, "durable", Some("true".to_owned()), found));
    }
    let none = serde_json::Map::new();
    let arguments = found["arguments"].as_object().unwrap_or(&none);
    for (&name, argument) in &wanted.arguments {
        let value = arguments.get(name);
        // A vhost may make quorum queues by default, without the argument.
        let value = if name == "x-queue-type" { found.get("type").or(value) } else { value };
        let is_same = match argument {
            Argument::Text(text) => value.and_then(Value::as_str) == Some(text.as_str()),
            Argument::Integer(number) => value.and_then(Value::as_i64) == Some(*number),
            Argument::Flag(flag) => value.and_then(Value::as_bool) == Some(*flag),
        };
        if !is_same {
            differences.push(Difference::new(&object, name, Some(argument.to_string()), value.map(shown)));
        }
    }
    for (name, value) in arguments {
        if name.starts_with("x-") && !wanted.arguments.contains_key(name.as_str()) {
            differences.push(Difference::new(&object, name, None, Some(shown(value))));
        }
    }
    for name in POLICIES {
        // An empty policy is an empty array, on some versions.
        let Some(value) = found["effective_policy_definition"].get(name) else { continue };
        let argument = wanted.arguments.get(format!("x-{name}").as_str());
        let is_harmless = match argument {
            Some(Argument::Integer(number)) => value.as_i64().is_some_and(|value| value >= *number),
            Some(Argument::Text(_) | Argument::Flag(_)) => true,
            None => false,
        };
        if !is_harmless {
            let wanted = argument.map(ToString::to_string);
            differences.push(Difference::new(&object, &format!("policy {name}"), wanted, Some(shown(value))));
        }
    }
    differences
}

/// Named by its routing key.
fn compare_binding(wanted: &Binding, found: &Value) -> Option<Difference> {
    let kind = if wanted.to_queue { "queue" } else { "exchange" };
    let is_it = |found: &Value| {
        found["destination"] == *wanted.destination
            && found["destination_type"] == kind
            && found["routing_key"] == *wanted.routing_key
    };
    let exists = found.as_array().into_iter().flatten().any(is_it);
    (!exists).then(|| Difference::missing(&format!("binding `{}`", wanted.routing_key)))
}

fn compare_exchange(wanted: &ExchangeSpec, found: Option<&Value>) -> Vec<Difference> {
    let object = format!("exchange `{}`", wanted.name);
    let Some(found) = found else { return vec![Difference::missing(&object)] };
    [("type", Value::from(wanted.kind)), ("durable", Value::from(true))]
        .into_iter()
        .filter(|(property, wanted)| found[*property] != *wanted)
        .map(|(property, wanted)| {
            Difference::new(&object, property, Some(shown(&wanted)), Some(shown(&found[property])))
        })
        .collect()
}

/// Texts without quotes, everything else as JSON.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Major and minor.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

struct Api {
    client: Client,
    base: Url,
    address: String,
    user: String,
    password: Option<String>,
    vhost: String,
}

impl Api {
    fn new(management: &Url, vhost: &str) -> Result<Self, ManagementError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // An error means that another thread was faster.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let mut base = management.clone();
        let user = decoded(base.username());
        let password = base.password().map(decoded);
        let no_credentials = base.set_username("").and_then(|()| base.set_password(None));
        let address = base.origin().ascii_serialization();
        let unusable = |reason: String| ManagementError::Unreachable { address: address.clone(), reason };
        if no_credentials.is_err() || base.cannot_be_a_base() {
            return Err(unusable("the URL is not like http://USER:PASSWORD@HOST:15672".to_owned()));
        }
        let client = Client::builder().timeout(TIMEOUT).build().map_err(|error| unusable(text(error)))?;
        Ok(Self { client, base, address, user, password, vhost: vhost.to_owned() })
    }

    /// `None` for "not found".
    async fn get(&self, path: &[&str]) -> Result<Option<Value>, ManagementError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("api").extend(path);
        }
        let unreachable = |error| ManagementError::Unreachable { address: self.address.clone(), reason: text(error) };
        let request = self.client.get(url.clone()).basic_auth(&self.user, self.password.as_ref());
        let response = request.send().await.map_err(unreachable)?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => response.json().await.map(Some).map_err(unreachable),
            status => Err(ManagementError::Refused {
                address: self.address.clone(),
                path: url.path().to_owned(),
                status: status.as_u16(),
            }),
        }
    }
}

/// The text with its causes, which hold the operating system's words, and without the URL.
fn text(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A URL's user and password are percent-encoded.
fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_without_which_expired_jobs_can_be_lost_is_found_where_it_counts() {
        let flags = |enabled| BTreeMap::from([("stream_queue".to_owned(), enabled)]);
        let found = compare_flags(Some((3, 10)), &flags(false)).map(|difference| difference.to_string());
        assert_eq!(found.as_deref(), Some("broker: feature flag stream_queue is disabled, wanted enabled"));
        assert_eq!(compare_flags(Some((3, 10)), &flags(true)), None);
        assert_eq!(compare_flags(Some((3, 10)), &BTreeMap::new()), None);
        assert_eq!(compare_flags(Some((4, 0)), &flags(false)), None);
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(version("3.10.8"), Some((3, 10)));
        assert!(version("3.9.29").unwrap() < OLDEST_VERSION && version("4.0.5").unwrap() > OLDEST_VERSION);
        assert_eq!(version("unknown"), None);
    }
}
