//! Where RabbitMQ's management API is, which is asked for what AMQP does not tell.

use anyhow::{Result, anyhow};
use secrecy::ExposeSecret;
use url::Url;

use crate::config::Config;

const MANAGEMENT_URL: &str = "RABBITMQ_MANAGEMENT_URL";
const ALLOWED: &str = "must be like http://HOST:15672 or https://HOST:15671";
/// The management API's usual ports beside the usual ports of AMQP: plain, and with TLS.
const USUAL_PORTS: [(&str, u16, &str, u16); 2] = [("amqp", 5672, "http", 15672), ("amqps", 5671, "https", 15671)];

/// The URL in the environment, or the usual port of `AMQP_URL`'s host. None: nobody knows where it is.
///
/// # Errors
/// When the environment's URL can't be used. The error does not show it: it may contain a password.
pub fn management_url(config: &Config) -> Result<Option<Url>> {
    match std::env::var(MANAGEMENT_URL).ok().filter(|url| !url.is_empty()) {
        Some(text) => parse_management_url(&text)
            .map(Some)
            .map_err(|_| anyhow!("{MANAGEMENT_URL} {ALLOWED} (its value is not shown)")),
        None => Ok(beside_amqp(config)),
    }
}

fn beside_amqp(config: &Config) -> Option<Url> {
    let amqp = Url::parse(config.amqp_url.expose_secret()).ok()?;
    let mut usual = USUAL_PORTS.into_iter();
    let (.., scheme, port) =
        usual.find(|(scheme, port, ..)| amqp.scheme() == *scheme && amqp.port().unwrap_or(*port) == *port)?;
    Url::parse(&format!("{scheme}://{}:{port}", amqp.host_str()?)).ok()
}

/// A URL that may be the management API's.
///
/// # Errors
/// What it must be.
pub fn parse_management_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; it {ALLOWED}"))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(format!("it {ALLOWED}")) }
}
