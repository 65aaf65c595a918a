//! What Clawback is told from outside: typed, checked at the start, and never changed afterwards.
//!
//! The defaults are `config/default.toml`. A TOML file named in `CLAWBACK_CONFIG` changes them, and environment variables
//! win over both. `main` and the tests load it; every other module is handed the part that it needs. It never connects
//! to anything, and neither its errors nor its `Debug` show a secret.

mod effective;
mod error;
mod production;
mod reader;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub use self::effective::{EffectiveSetting, SettingSource};
pub use self::error::{ConfigError, Problem};
use self::reader::Reader;

/// Names a TOML file with settings that differ from the defaults.
const FILE_VARIABLE: &str = "CLAWBACK_CONFIG";

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// RabbitMQ counts a queue's message TTL in these.
const MILLISECOND: Duration = Duration::from_millis(1);

/// The whole configuration. The names of the settings are those of the environment variables.
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_URL`: `sqlite:` or `postgres://`; secret, since it may hold a password.
    pub database_url: SecretString,
    /// `AMQP_URL`: `amqp://` or `amqps://`; secret, since it may hold a password.
    pub amqp_url: SecretString,
    /// `HTTP_ADDR`: where the HTTP server listens; port 0 lets the system choose.
    pub http_addr: SocketAddr,
    /// `WORKER_HTTP_ADDR`: where `clawback worker` serves its health and metrics. Without it, it serves no HTTP.
    pub worker_http_addr: Option<SocketAddr>,
    /// `STRIPE_*`.
    pub stripe: StripeConfig,
    /// `HYPERSWITCH_WEBHOOK_SECRET`. Without it that endpoint answers 404.
    pub hyperswitch_webhook_secret: Option<SecretString>,
    /// `API_TOKEN`: the bearer token that may do everything.
    pub api_token: Option<SecretString>,
    /// `API_READ_TOKEN`: the bearer token that may only read; never equal to `api_token`.
    pub api_read_token: Option<SecretString>,
    /// `REVERSAL_*`.
    pub reversal: ReversalConfig,
    /// `TRANSFER_RETRY_*`.
    pub transfer_retry: TransferRetryConfig,
    /// `APP_ENV`.
    pub app_env: AppEnv,
    /// `LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `RUST_LOG`: directives that tracing's `EnvFilter` understands.
    pub rust_log: String,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: the base URL of the collector that traces are exported to, over HTTP.
    pub otlp_endpoint: Option<Url>,
}

/// How Stripe is reached.
#[derive(Clone, Debug)]
pub struct StripeConfig {
    /// `STRIPE_API_KEY`. A process that calls Stripe cannot do without.
    pub api_key: Option<SecretString>,
    /// `STRIPE_API_BASE`: `https`, or `http` outside production; without credentials, query and fragment.
    pub api_base: Url,
    /// `STRIPE_MAX_RPS`: the ceiling in requests per second, of one worker; at least 1.
    pub max_rps: u32,
    /// `STRIPE_WEBHOOK_SECRET`. Without it `POST /webhooks/stripe` answers 404.
    pub webhook_secret: Option<SecretString>,
}

/// How transfers are reversed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReversalConfig {
    /// `REVERSAL_WORKER_ENABLED`.
    pub worker_enabled: bool,
    /// `REVERSAL_MAX_RETRIES`: calls after the first one, before a job is parked; at most 100.
    pub max_retries: u32,
    /// `REVERSAL_CHECK_INTERVAL`: between two looks of the relay and the sweeper when nothing wakes them.
    pub check_interval: Duration,
    /// `REVERSAL_BACKOFF_BASE`: the delay before the first retry; at least 1 ms.
    pub backoff_base: Duration,
    /// `REVERSAL_BACKOFF_MAX`: the longest delay before a retry; never below `backoff_base`.
    pub backoff_max: Duration,
    /// `REVERSAL_BALANCE_DEADLINE`: how long a seller's account may lack the money; or the platform's, for a transfer that
    /// is to be created.
    pub balance_deadline: Duration,
    /// `REVERSAL_PREFETCH`: unsettled messages that one consumer, of either job, may hold; at least 1.
    pub prefetch: u16,
    /// `REVERSAL_CONCURRENCY`: jobs of either kind that run at the same time; at least 1.
    pub concurrency: usize,
}

/// How transfers are created that were registered without a Stripe id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRetryConfig {
    /// `TRANSFER_RETRY_ENABLED`.
    pub enabled: bool,
    /// `TRANSFER_RETRY_MAX_RETRIES`: calls after the first one, before a job is parked; at most 100.
    pub max_retries: u32,
    /// `TRANSFER_RETRY_CHECK_INTERVAL`: between two looks of the sweeper.
    pub check_interval: Duration,
    /// `TRANSFER_RETRY_BACKOFF_BASE`: the delay before the first retry; at least 1 ms.
    pub backoff_base: Duration,
    /// `TRANSFER_RETRY_BACKOFF_MAX`: the longest delay before a retry; never below `backoff_base`.
    pub backoff_max: Duration,
}

/// Where Clawback runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppEnv {
    /// Everything goes.
    Development,
    /// Settings that are unsafe with real money were refused.
    Production,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Config {
    /// Reads the process's environment and the file that `CLAWBACK_CONFIG` names, if it names one.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong, not only the first thing.
    pub fn load() -> Result<Self, ConfigError> {
        Sources::of_the_process().read().1
    }

    /// What [`Self::load`] reads, setting by setting, with where each comes from, and the file if there is one.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn effective() -> Result<(Option<PathBuf>, Vec<EffectiveSetting>), ConfigError> {
        let sources = Sources::of_the_process();
        let file = sources.file.clone();
        let (settings, config) = sources.read();
        config.map(|_| (file, settings))
    }

    /// The configuration that the text of a TOML file and a set of environment variables make. Variables with other
    /// names than the settings' are ignored; of several with one name the last counts.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong, not only the first thing.
    pub fn from_parts(
        toml: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment = environment.into_iter().collect();
        Sources { reader: Reader::new(), file: None, toml: toml.map(str::to_owned), environment }.read().1
    }

    /// Reads every setting before it gives up, so that all problems are found at once.
    fn read_settings(reader: &mut Reader) -> Option<Self> {
        let database_url = reader.secret_url("DATABASE_URL", &["sqlite", "postgres", "postgresql"]);
        let amqp_url = reader.secret_url("AMQP_URL", &["amqp", "amqps"]);
        let http_addr = reader.parsed("HTTP_ADDR", "an IP address and a port, like 127.0.0.1:8080");
        let worker_http_addr =
            reader.optional_parsed("WORKER_HTTP_ADDR", "an IP address and a port, like 127.0.0.1:8081");
        let stripe = StripeConfig::read(reader);
        let hyperswitch_webhook_secret = reader.secret("HYPERSWITCH_WEBHOOK_SECRET");
        let api_token = reader.secret("API_TOKEN");
        let api_read_token = reader.secret("API_READ_TOKEN");
        let reversal = ReversalConfig::read(reader);
        let transfer_retry = TransferRetryConfig::read(reader);
        let environments = [("development", AppEnv::Development), ("production", AppEnv::Production)];
        let app_env = reader.one_of("APP_ENV", &environments);
        let log_format = reader.one_of("LOG_FORMAT", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let rust_log = reader.log_filter("RUST_LOG");
        let otlp_endpoint = reader.optional_url("OTEL_EXPORTER_OTLP_ENDPOINT", &["http", "https"]);

        if let (Some(Some(all)), Some(Some(read))) = (&api_token, &api_read_token)
            && all.expose_secret() == read.expose_secret()
        {
            reader
                .refuse("API_READ_TOKEN", "is the same as API_TOKEN, and so could write; give it another value".into());
        }
        Some(Self {
            database_url: database_url?,
            amqp_url: amqp_url?,
            http_addr: http_addr?,
            worker_http_addr: worker_http_addr?,
            stripe: stripe?,
            hyperswitch_webhook_secret: hyperswitch_webhook_secret?,
            api_token: api_token?,
            api_read_token: api_read_token?,
            reversal: reversal?,
            transfer_retry: transfer_retry?,
            app_env: app_env?,
            log_format: log_format?,
            rust_log: rust_log?,
            otlp_endpoint: otlp_endpoint?,
        })
    }
}

/// Everything that a configuration is made of.
struct Sources {
    /// With what was wrong with the sources themselves.
    reader: Reader,
    file: Option<PathBuf>,
    toml: Option<String>,
    environment: Vec<(String, String)>,
}

impl Sources {
    fn of_the_process() -> Self {
        let mut reader = Reader::new();
        let file = std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let toml = file.as_ref().and_then(|path| match std::fs::read_to_string(path) {
            Ok(toml) => Some(toml),
            Err(error) => {
                reader.refuse(FILE_VARIABLE, format!("{} cannot be read: {error}", path.display()));
                None
            }
        });
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().and_then(reader::setting) else { continue };
            match value.into_string() {
                Ok(value) => environment.push((name.to_owned(), value)),
                Err(_) => reader.refuse(name, "is not UTF-8".to_owned()),
            }
        }
        Self { reader, file, toml, environment }
    }

    fn read(self) -> (Vec<EffectiveSetting>, Result<Config, ConfigError>) {
        let Self { mut reader, toml, environment, .. } = self;
        reader.layer(toml.as_deref(), environment);
        let config = Config::read_settings(&mut reader);
        production::check(&mut reader);
        (effective::settings(&reader), reader.finish(config))
    }
}

impl StripeConfig {
    fn read(reader: &mut Reader) -> Option<Self> {
        let api_key = reader.secret("STRIPE_API_KEY");
        let api_base = reader.base_url("STRIPE_API_BASE", &["https", "http"]);
        let max_rps = reader.number("STRIPE_MAX_RPS", 1..=10_000);
        let webhook_secret = reader.secret("STRIPE_WEBHOOK_SECRET");
        if let Some(Some(key)) = &api_key
            && key.expose_secret().starts_with("pk_")
        {
            reader.refuse("STRIPE_API_KEY", "is a publishable key (pk_…); allowed: a secret or restricted key".into());
        }
        Some(Self { api_key: api_key?, api_base: api_base?, max_rps: max_rps?, webhook_secret: webhook_secret? })
    }
}

impl ReversalConfig {
    fn read(reader: &mut Reader) -> Option<Self> {
        let worker_enabled = reader.one_of("REVERSAL_WORKER_ENABLED", &reader::BOOLEANS);
        let max_retries = reader.number("REVERSAL_MAX_RETRIES", 0..=100);
        let check_interval = reader.duration("REVERSAL_CHECK_INTERVAL", MILLISECOND..=DAY);
        let backoff = reader.backoff("REVERSAL_BACKOFF_BASE", "REVERSAL_BACKOFF_MAX");
        let balance_deadline = reader.duration("REVERSAL_BALANCE_DEADLINE", SECOND..=365 * DAY);
        let prefetch = reader.number("REVERSAL_PREFETCH", 1..=2_000);
        let concurrency = reader.number("REVERSAL_CONCURRENCY", 1..=2_000);
        let (backoff_base, backoff_max) = backoff?;
        Some(Self {
            worker_enabled: worker_enabled?,
            max_retries: max_retries?,
            check_interval: check_interval?,
            backoff_base,
            backoff_max,
            balance_deadline: balance_deadline?,
            prefetch: prefetch?,
            concurrency: concurrency?,
        })
    }
}

impl TransferRetryConfig {
    fn read(reader: &mut Reader) -> Option<Self> {
        let enabled = reader.one_of("TRANSFER_RETRY_ENABLED", &reader::BOOLEANS);
        let max_retries = reader.number("TRANSFER_RETRY_MAX_RETRIES", 0..=100);
        let check_interval = reader.duration("TRANSFER_RETRY_CHECK_INTERVAL", MILLISECOND..=DAY);
        let backoff = reader.backoff("TRANSFER_RETRY_BACKOFF_BASE", "TRANSFER_RETRY_BACKOFF_MAX");
        let (backoff_base, backoff_max) = backoff?;
        Some(Self {
            enabled: enabled?,
            max_retries: max_retries?,
            check_interval: check_interval?,
            backoff_base,
            backoff_max,
        })
    }
}
