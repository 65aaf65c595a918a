//! Where RabbitMQ's management API is, which is asked for what AMQP does not tell.

use secrecy::ExposeSecret;
use url::Url;

use crate::config::Config;

/// The management API's usual ports beside the usual ports of AMQP: plain, and with TLS.
const USUAL_PORTS: [(&str, u16, &str, u16); 2] = [("amqp", 5672, "http", 15672), ("amqps", 5671, "https", 15671)];

/// `RABBITMQ_MANAGEMENT_URL`, or the usual port of `AMQP_URL`'s host. None: nobody knows where it is.
#[must_use]
pub fn management_url(config: &Config) -> Option<Url> {
    match &config.management_url {
        Some(url) => Url::parse(url.expose_secret()).ok(),
        None => beside_amqp(config),
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
    let must = "it must be like http://HOST:15672 or https://HOST:15671";
    let url = Url::parse(text).map_err(|error| format!("{error}; {must}"))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(must.to_owned()) }
}
