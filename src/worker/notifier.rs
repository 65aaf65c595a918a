//! Posts notifications to another system, signed as Standard Webhooks: <https://www.standardwebhooks.com>.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Url, redirect, retry};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;
use uuid::Uuid;

use crate::ledger::now;

/// For a whole request.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How a secret may begin; base64 follows.
const PREFIX: &str = "whsec_";

/// What a secret that signs must be.
pub const SIGNING_SECRET: &str =
    "whsec_ and the base64 of 24 to 64 bytes; make one with: echo whsec_$(openssl rand -base64 32)";

/// The key that such a secret is.
#[must_use]
pub fn signing_key(secret: &str) -> Option<Vec<u8>> {
    let key = BASE64_STANDARD.decode(secret.strip_prefix(PREFIX).unwrap_or(secret)).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// Tells another system what happens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Notifier {
    http: reqwest::Client,
    /// May hold a password or a token.
    url: Arc<SecretString>,
    key: Arc<SecretSlice<u8>>,
}

/// Why a [`Notifier`] can't be made. Shows no secret.
#[derive(Debug, thiserror::Error)]
pub enum NotifierError {
    /// The URL is none.
    #[error("EVENTS_URL can't be used: {0}")]
    Url(#[from] url::ParseError),
    /// The secret is none.
    #[error("EVENTS_SECRET must be {SIGNING_SECRET}")]
    Secret,
    /// TLS could not be set up.
    #[error("the HTTP client can't be set up (are the system's CA certificates installed?): {0}")]
    Setup(#[source] reqwest::Error),
}

impl Notifier {
    /// Posts to `url`, signed with `secret` (`whsec_` and base64).
    ///
    /// # Errors
    /// [`NotifierError`] when one of them can't be used.
    pub fn new(url: &SecretString, secret: &SecretString) -> Result<Self, NotifierError> {
        Url::parse(url.expose_secret())?;
        let key = signing_key(secret.expose_secret()).ok_or(NotifierError::Secret)?;
        // An error only says that the process has chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("clawback/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(NotifierError::Setup)?;
        Ok(Self { http, url: Arc::new(url.clone()), key: Arc::new(key.into()) })
    }

    /// Posts `body` under `id`, once.
    ///
    /// # Errors
    /// Why it is not known to be taken, without the URL.
    pub(super) async fn post(&self, id: Uuid, body: &str) -> Result<(), String> {
        let (id, timestamp) = (id.to_string(), now().timestamp().to_string());
        let signature = self.signature(&id, &timestamp, body).ok_or("it can't be signed")?;
        let request = self.http.post(self.url.expose_secret()).header(CONTENT_TYPE, "application/json");
        let request = request.header("webhook-id", id).header("webhook-timestamp", timestamp);
        let sent = request.header("webhook-signature", signature).body(body.to_owned()).send().await;
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("EVENTS_URL answered {}", answer.status())),
            Err(error) => Err(format!("EVENTS_URL did not answer: {:#}", anyhow::Error::from(error.without_url()))),
        }
    }

    /// `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
    fn signature(&self, id: &str, timestamp: &str, body: &str) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret()).ok()?;
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        Some(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
    }
}
