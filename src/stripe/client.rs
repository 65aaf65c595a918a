//! The client: sends a request once. It never retries, follows no redirect, reads no endless answer, and shows no API key.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Proxy, RequestBuilder, redirect, retry};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::answer::{Answer, unanswered};
use super::fence::{Fenced, WriteBy};
use super::outcome::Asked;
use super::report::Report;
use super::types::{CreateTransfer, ReverseTransfer, Transfer, TransferReversal};

/// The API version that every request names; the answers' shapes are those of this version.
pub const API_VERSION: &str = "2026-08-26.dahlia";

/// Stripe answers in 1 s; a connection that takes longer than this won't come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole call, body included, unless [`Client::with_timeout`] says otherwise.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// More idle connections than one worker has calls under way are of no use.
const POOL_MAX_IDLE: usize = 32;
const FORM: &str = "application/x-www-form-urlencoded";
/// The page size of lists: the most that Stripe gives.
const PAGE_LIMIT: &str = "100";
/// A list that is longer can't be read as a whole: one look would take all the turns there are.
const MOST_PAGES: usize = 100;

/// A client of Stripe's API for one account. Cheap to clone; clones share the connection pool.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Arc<Url>,
    timeout: Duration,
    write_by: Option<WriteBy>,
    pace: Option<Pace>,
}

/// Waits for the turn of a request.
#[derive(Clone)]
struct Pace(Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>);

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pace")
    }
}

/// Why a [`Client`] can't be made. Never shows the key.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL is not one to put paths behind.
    #[error("the Stripe API base {url:?} {problem}; it should look like https://api.stripe.com")]
    Base {
        /// The URL without its credentials.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The key does not fit into a header.
    #[error("the Stripe API key {0}")]
    ApiKey(&'static str),
    /// The proxy's URL can't be used.
    #[error("STRIPE_PROXY can't be used: {0}")]
    Proxy(#[source] reqwest::Error),
    /// TLS could not be set up.
    #[error("the HTTP client can't be set up (are the system's CA certificates installed?): {0}")]
    Setup(#[source] reqwest::Error),
}

impl Client {
    /// A client for the API at `base` (`https://api.stripe.com`, or a simulator's address).
    ///
    /// TLS is verified against the system's certificates. All goes through `proxy` (`http://USER:PASSWORD@HOST:PORT`), if there
    /// is one; proxies named in the environment are not used.
    ///
    /// # Errors
    /// [`ClientError`] when the base is not http(s) or carries credentials, a query or a fragment, when the key is
    /// empty or has characters that no header may carry, when the proxy's URL can't be used, or when the system has no CA
    /// certificates.
    pub fn new(base: Url, api_key: SecretString, proxy: Option<&SecretString>) -> Result<Client, ClientError> {
        check_base(&base)?;
        // An error only says that the process has chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let proxy = proxy.map(|url| Proxy::all(url.expose_secret())).transpose();
        let proxy = proxy.map_err(|error| ClientError::Proxy(error.without_url()))?;
        let http = reqwest::Client::builder().no_proxy();
        let http = proxy.into_iter().fold(http, reqwest::ClientBuilder::proxy);
        let http = http
            .default_headers(default_headers(&api_key)?)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .pool_max_idle_per_host(POOL_MAX_IDLE)
            .user_agent(concat!("clawback/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Client { http, base: Arc::new(base), timeout: TOTAL_TIMEOUT, write_by: None, pace: None })
    }

    /// The same client with another limit to how long a whole call may take.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Client {
        Client { timeout, ..self }
    }

    /// The same client for a call that must not be written any more once `time` is over.
    #[must_use]
    pub fn write_within(&self, time: Duration) -> Client {
        Client { write_by: Some(WriteBy::within(time)), ..self.clone() }
    }

    /// The same client, which waits for `turn` before each request that reads.
    #[must_use]
    pub fn paced(&self, turn: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Client {
        Client { pace: Some(Pace(Arc::new(turn))), ..self.clone() }
    }

    /// Asks Stripe to reverse a transfer, once, under the command's idempotency key.
    ///
    /// Whatever happens comes back as a [`Report`]. Dropping the future, or dying in it, leaves open whether Stripe did
    /// it: the same command with the same epoch is then safe to send again within 23 hours.
    pub async fn reverse_transfer(&self, command: &ReverseTransfer) -> Report {
        let url = self.url(&[&command.transfer_id, "reversals"]);
        match self.post(url, command.idempotency_key(), &command.form()).await {
            Ok(answer) => answer.classify(Asked::Reversal(command)),
            Err(report) => report,
        }
    }

    /// Asks Stripe to create a transfer, once, under the command's idempotency key. As [`Self::reverse_transfer`].
    pub async fn create_transfer(&self, command: &CreateTransfer) -> Report {
        match self.post(self.url(&[]), command.idempotency_key(), &command.form()).await {
            Ok(answer) => answer.classify(Asked::Creation(command)),
            Err(report) => report,
        }
    }

    /// Asks for any one transfer: whether Stripe answers, and takes the key. Gives Stripe's clock, to the second, if it
    /// tells it.
    ///
    /// # Errors
    /// The [`Report`] of whatever was not a list.
    pub async fn ping(&self) -> Result<Option<DateTime<Utc>>, Report> {
        let request = self.http.get(self.url(&[])).query(&[("limit", "1")]);
        let response = request.timeout(self.timeout).send().await.map_err(|error| unanswered(error, None))?;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let clock = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()).map(|clock| clock.to_utc());
        let answer = Answer::of(response).await?;
        answer.read::<Page<Transfer>>().map(|_| clock).ok_or_else(|| answer.classify(Asked::Read))
    }

    /// Reads a transfer.
    ///
    /// # Errors
    /// The [`Report`] of whatever was not a readable transfer of that id.
    pub async fn get_transfer(&self, id: &str) -> Result<Transfer, Report> {
        let answer = self.get(self.http.get(self.url(&[id]))).await?;
        let transfer = answer.read().filter(|transfer: &Transfer| transfer.id == id);
        transfer.ok_or_else(|| answer.classify(Asked::Read))
    }

    /// Reads what a connected account (`acct_…`), or without one the platform, has available, in minor units by currency.
    ///
    /// # Errors
    /// The [`Report`] of whatever was not a balance.
    pub async fn available(&self, account: Option<&str>) -> Result<BTreeMap<String, i64>, Report> {
        let request = self.http.get(self.at(&["balance"]));
        let request = account.into_iter().fold(request, |request, account| request.header("stripe-account", account));
        let answer = self.send(request).await?;
        match answer.read::<Balance>() {
            Some(balance) => Ok(balance.available.into_iter().map(|of| (of.currency, of.amount)).collect()),
            None => Err(answer.classify(Asked::Read)),
        }
    }

    /// Reads all reversals of a transfer, over all pages.
    ///
    /// # Errors
    /// The [`Report`] of the first page that failed: an incomplete list would look like an absent reversal.
    pub async fn list_reversals(&self, transfer_id: &str) -> Result<Listed<TransferReversal>, Report> {
        self.list_reversals_until(transfer_id, |_| false).await
    }

    /// Reads the reversals of a transfer up to the page with one that is `wanted`.
    ///
    /// # Errors
    /// As [`Self::list_reversals`].
    pub async fn list_reversals_until(
        &self,
        transfer_id: &str,
        wanted: impl Fn(&TransferReversal) -> bool,
    ) -> Result<Listed<TransferReversal>, Report> {
        let url = self.url(&[transfer_id, "reversals"]);
        self.list(url, &[], |reversal: &TransferReversal| &reversal.id, wanted).await
    }

    /// Reads all transfers among which `command`'s must be if it was carried out, over all pages: those that were created
    /// from `since` on, if that is given.
    ///
    /// # Errors
    /// The [`Report`] of the first page that failed: an incomplete list would look like an absent transfer.
    pub async fn list_transfers(
        &self,
        command: &CreateTransfer,
        since: Option<DateTime<Utc>>,
    ) -> Result<Listed<Transfer>, Report> {
        let since = since.map(|since| since.timestamp().to_string());
        let filter: Vec<_> =
            [command.filter()].into_iter().chain(since.as_deref().map(|at| ("created[gte]", at))).collect();
        self.list(self.url(&[]), &filter, |transfer: &Transfer| &transfer.id, |_| false).await
    }

    /// Reads the object at `path` (`["charges", "ch_1"]`), and gives the `Request-Id` with it.
    ///
    /// # Errors
    /// The [`Report`] of whatever was not such an object.
    pub async fn read<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<(T, Option<String>), Report> {
        let answer = self.get(self.http.get(self.at(path)).query(query)).await?;
        match answer.read() {
            Some(object) => Ok((object, answer.request_id())),
            None => Err(answer.classify(Asked::Read)),
        }
    }

    /// Reads one page of the list at `path`, from behind the object `after` on.
    ///
    /// # Errors
    /// The [`Report`] of whatever was not such a page.
    pub async fn page<T: DeserializeOwned>(
        &self,
        path: &[&str],
        filter: &[(&str, &str)],
        after: Option<&str>,
    ) -> Result<(Page<T>, Option<String>), Report> {
        let mut request = self.http.get(self.at(path)).query(filter).query(&[("limit", PAGE_LIMIT)]);
        if let Some(after) = after {
            request = request.query(&[("starting_after", after)]);
        }
        let answer = self.get(request).await?;
        match answer.read() {
            Some(page) => Ok((page, answer.request_id())),
            None => Err(answer.classify(Asked::Read)),
        }
    }

    async fn list<T: DeserializeOwned>(
        &self,
        url: Url,
        filter: &[(&str, &str)],
        id: impl Fn(&T) -> &String,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<Listed<T>, Report> {
        let mut items: Vec<T> = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..MOST_PAGES {
            let mut request = self.http.get(url.clone()).query(filter).query(&[("limit", PAGE_LIMIT)]);
            if let Some(last) = items.last() {
                request = request.query(&[("starting_after", id(last))]);
            }
            let answer = self.get(request).await?;
            let Some(page) = answer.read::<Page<T>>() else {
                return Err(answer.classify(Asked::Read));
            };
            // A page that brings nothing new, though there is more, would be asked for for ever.
            let repeats = !page.data.iter().all(|item| seen.insert(id(item).clone()));
            if repeats || (page.has_more && page.data.is_empty()) {
                return Err(answer.classify(Asked::Read));
            }
            let is_there = page.data.iter().any(&wanted);
            items.extend(page.data);
            if is_there || !page.has_more {
                return Ok(Listed { items, request_id: answer.request_id() });
            }
        }
        let message = format!("the list at Stripe has more than {} objects, too many to look through", items.len());
        Err(Report::unreadable("list_too_long", message))
    }

    fn url(&self, segments: &[&str]) -> Url {
        self.at(&[&["transfers"], segments].concat())
    }

    /// The base's path, `v1`, then `segments`, each percent-encoded.
    fn at(&self, segments: &[&str]) -> Url {
        let mut url = Url::clone(&self.base);
        // Never an error: `check_base` has refused the URLs without a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(segments);
        }
        url
    }

    async fn post(&self, url: Url, key: String, form: &[(&'static str, String)]) -> Result<Answer, Report> {
        let body = Body::wrap(Fenced::new(form, self.write_by));
        let request = self.http.post(url).header("idempotency-key", key).header(CONTENT_TYPE, FORM).body(body);
        self.send(request).await
    }

    /// Sends a request that reads, in its turn.
    async fn get(&self, request: RequestBuilder) -> Result<Answer, Report> {
        if let Some(Pace(turn)) = &self.pace {
            turn().await;
        }
        self.send(request).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, Report> {
        let response = request.timeout(self.timeout).send().await.map_err(|error| unanswered(error, None))?;
        Answer::of(response).await
    }
}

#[derive(Deserialize)]
struct Balance {
    available: Vec<Money>,
}

#[derive(Deserialize)]
struct Money {
    amount: i64,
    currency: String,
}

/// A whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// Newest first.
    pub items: Vec<T>,
    /// `Request-Id` of the last page.
    pub request_id: Option<String>,
}

/// A page of a list. Without `has_more` it would be unknown whether the list is complete.
#[derive(Debug, Clone, Deserialize)]
pub struct Page<T> {
    /// Newest first.
    pub data: Vec<T>,
    /// Whether older ones follow.
    pub has_more: bool,
}

fn check_base(base: &Url) -> Result<(), ClientError> {
    let problem = if !matches!(base.scheme(), "http" | "https") {
        "is not an http(s) URL"
    } else if !base.username().is_empty() || base.password().is_some() {
        "carries credentials"
    } else if base.query().is_some() || base.fragment().is_some() {
        "carries a query or a fragment"
    } else {
        return Ok(());
    };
    let mut url = base.clone();
    // Errors say that there is nothing to hide; the host and path are not secret.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    Err(ClientError::Base { url: url.into(), problem })
}

fn default_headers(api_key: &SecretString) -> Result<HeaderMap, ClientError> {
    if api_key.expose_secret().is_empty() {
        return Err(ClientError::ApiKey("is empty"));
    }
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", api_key.expose_secret()))
        .map_err(|_| ClientError::ApiKey("has characters that no header can carry (a line break at its end?)"))?;
    bearer.set_sensitive(true);
    let version = HeaderValue::from_static(API_VERSION);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, bearer), (HeaderName::from_static("stripe-version"), version)]))
}
