//! The configuration: defaults of `settings.rs`, then a TOML file, then the environment. Checked at the start, never changed.

mod checks;
mod effective;
mod error;
mod reader;
mod secret_list;
mod settings;
#[cfg(test)]
mod tests;
mod unknown;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use strum::EnumString;
use url::Url;

pub use self::effective::{Effective, EffectiveSetting, SettingSource};
pub use self::error::{ConfigError, Problem};
use self::reader::Reader;
pub use self::secret_list::{NoSecrets, SecretList};
pub use self::settings::Part;
pub use self::unknown::UnknownVariable;
use crate::ledger::DisputePolicy;

/// Names a TOML file with settings that differ from the defaults.
const FILE_VARIABLE: &str = "CLAWBACK_CONFIG";

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_URL`: `sqlite:` or `postgres://`; secret, since it may hold a password.
    pub database_url: SecretString,
    /// `AMQP_URL`: `amqp://` or `amqps://`; secret, since it may hold a password.
    pub amqp_url: SecretString,
    /// `DATABASE_URL_FILE`: where the URL was read from, and is read again when it changes.
    pub database_url_file: Option<PathBuf>,
    /// `AMQP_URL_FILE`: the same for each new connection to the broker.
    pub amqp_url_file: Option<PathBuf>,
    /// `RABBITMQ_MANAGEMENT_URL`: `http:` or `https:`; secret, since it may hold a password.
    pub management_url: Option<SecretString>,
    /// `HTTP_ADDR`: where the HTTP server listens; port 0 lets the system choose.
    pub http_addr: SocketAddr,
    /// `WORKER_HTTP_ADDR`: where `clawback worker` serves its health and metrics. Without it, it serves no HTTP.
    pub worker_http_addr: Option<SocketAddr>,
    /// `STRIPE_*`.
    pub stripe: StripeConfig,
    /// `HYPERSWITCH_WEBHOOK_SECRET`. Without it `POST /webhooks/hyperswitch` answers 404.
    pub hyperswitch_webhook_secret: Option<SecretList>,
    /// `API_TOKEN`: bearer tokens with full access.
    pub api_token: Option<SecretList>,
    /// `API_READ_TOKEN`: bearer tokens with read access only; none is in `api_token`.
    pub api_read_token: Option<SecretList>,
    /// `UI_ENABLED`: whether the pages under `/ui/` are served.
    pub ui_enabled: bool,
    /// `CONFIRM_FROM`: minor units of one currency from which a replay needs the amount typed; 0: never.
    pub confirm_from: u32,
    /// `REVERSAL_*`.
    pub reversal: ReversalConfig,
    /// `TRANSFER_RETRY_*`.
    pub transfer_retry: TransferRetryConfig,
    /// `APP_ENV`.
    pub app_env: AppEnv,
    /// `ALLOW_PLAINTEXT`: whether production may connect to other hosts unencrypted.
    pub allow_plaintext: bool,
    /// `LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `RUST_LOG`: directives that tracing's `EnvFilter` understands.
    pub rust_log: String,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: the base URL of the collector that traces are exported to, over HTTP.
    pub otlp_endpoint: Option<Url>,
    /// Which refunds and disputes take money back.
    pub claims: ClaimsConfig,
    /// `EVENTS_URL`: `https:` or `http:`; secret, since it may hold a password or a token.
    pub events_url: Option<SecretString>,
    /// `EVENTS_SECRET`: the first one signs.
    pub events_secret: Option<SecretList>,
    /// `DATABASE_MAX_CONNECTIONS`: of one process; at least 6.
    pub database_max_connections: u32,
    /// `INBOX_RETENTION`: at least 1 s.
    pub inbox_retention: Duration,
    /// `SHUTDOWN_DELAY`: at most 5 min.
    pub shutdown_delay: Duration,
    /// Variables that may be misspelt settings.
    pub unknown_variables: Vec<UnknownVariable>,
}

/// Which refunds and disputes take money back.
#[derive(Clone, Debug)]
pub struct ClaimsConfig {
    /// `REFUNDS_SINCE`: what was created earlier is held. `None`: since the ledger was first set up.
    pub refunds_since: Option<DateTime<Utc>>,
    /// `REVERSE_ON_PENDING` is `insufficient_funds`: reverse for refunds that wait for the platform's balance.
    pub reverse_on_pending: bool,
    /// `DISPUTE_POLICY`.
    pub dispute_policy: DisputePolicy,
}

/// How Stripe is reached.
#[derive(Clone, Debug)]
pub struct StripeConfig {
    /// `STRIPE_API_KEY`. A process that calls Stripe cannot do without.
    pub api_key: Option<SecretString>,
    /// `STRIPE_API_BASE`: `https`, or `http` outside production; without credentials, query and fragment.
    pub api_base: Url,
    /// `STRIPE_PROXY`: `http:` or `https:`; secret, since it may hold a password.
    pub proxy: Option<SecretString>,
    /// `STRIPE_MAX_RPS`: the ceiling in requests per second, of one worker; at least 1.
    pub max_rps: u32,
    /// `STRIPE_WEBHOOK_SECRET`. Without it `POST /webhooks/stripe` answers 404.
    pub webhook_secret: Option<SecretList>,
    /// Test mode is for development.
    takes_test_mode: bool,
    /// `STRIPE_DISCOVERY`: look up the transfers of payments that nobody registered.
    pub discovery: bool,
}

impl StripeConfig {
    /// Whether events and transfers are those of live mode: by the key, or else because production is. `None`: not known.
    #[must_use]
    pub fn livemode(&self) -> Option<bool> {
        let mode = self.api_key.as_ref().and_then(|key| key.expose_secret().split('_').nth(1));
        match mode {
            Some("live") => Some(true),
            Some("test") => Some(false),
            _ => (!self.takes_test_mode).then_some(true),
        }
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum AppEnv {
    /// Everything goes.
    Development,
    /// Settings that are unsafe with real money were refused.
    Production,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Config {
    /// Reads the process's environment and the file that `CLAWBACK_CONFIG` names, if it names one. In production the
    /// secrets that `parts` need must be set; a command that runs none of them needs none.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn load(parts: &[Part]) -> Result<Self, ConfigError> {
        Ok(Sources::of_the_process().read(parts)?.0)
    }

    /// Every setting with its source, as `load(&[])` reads them.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn effective() -> Result<Effective, ConfigError> {
        Ok(Sources::of_the_process().read(&[])?.1)
    }

    /// Every setting with its default, as a TOML file.
    #[must_use]
    pub fn defaults() -> String {
        settings::as_toml()
    }

    /// The configuration for all parts from the text of a TOML file and a set of environment variables. Of several
    /// variables with one name the last one counts.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn from_parts(
        toml: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: Vec<_> = environment.into_iter().collect();
        let unknown_variables = unknown::find(environment.iter().map(|(name, _)| name.as_str()));
        let (toml, problems) = (toml.map(str::to_owned), Vec::new());
        let sources = Sources { file: None, toml, environment, unknown_variables, problems };
        Ok(sources.read(&[Part::Server, Part::Worker])?.0)
    }

    /// The SQLite file of `DATABASE_URL`, if it does not exist; to connect could create it.
    #[must_use]
    pub fn missing_sqlite_file(&self) -> Option<&Path> {
        let url = self.database_url.expose_secret();
        let file = url.strip_prefix("sqlite:")?.split('?').next()?;
        let file = file.strip_prefix("//").unwrap_or(file);
        let in_memory = file.is_empty() || file.contains(":memory:") || url.contains("mode=memory");
        (!in_memory && !Path::new(file).exists()).then_some(Path::new(file))
    }

    /// Whether `DATABASE_URL` has its default.
    #[must_use]
    pub fn has_default_database(&self) -> bool {
        settings::setting("DATABASE_URL").is_some_and(|setting| setting.default == self.database_url.expose_secret())
    }

    /// The text of a setting's file as it is by now; `None` while it can't be read or is empty.
    #[must_use]
    pub fn read_again(file: &Path) -> Option<String> {
        let text = std::fs::read_to_string(file).ok()?;
        Some(text.trim_end_matches(['\r', '\n']).to_owned()).filter(|text| !text.is_empty())
    }

    fn build(reader: &Reader, unknown_variables: Vec<UnknownVariable>) -> Result<Self, Problem> {
        Ok(Self {
            database_url: reader.require::<String>("DATABASE_URL")?.into(),
            amqp_url: reader.require::<String>("AMQP_URL")?.into(),
            database_url_file: reader.file_of("DATABASE_URL"),
            amqp_url_file: reader.file_of("AMQP_URL"),
            management_url: reader.secret("RABBITMQ_MANAGEMENT_URL"),
            http_addr: reader.require("HTTP_ADDR")?,
            worker_http_addr: reader.get("WORKER_HTTP_ADDR"),
            stripe: StripeConfig {
                takes_test_mode: reader.get("APP_ENV") != Some(AppEnv::Production),
                api_key: reader.secret("STRIPE_API_KEY"),
                api_base: reader.require("STRIPE_API_BASE")?,
                proxy: reader.secret("STRIPE_PROXY"),
                max_rps: reader.require("STRIPE_MAX_RPS")?,
                webhook_secret: reader.get("STRIPE_WEBHOOK_SECRET"),
                discovery: reader.require::<String>("STRIPE_DISCOVERY")? == "on",
            },
            hyperswitch_webhook_secret: reader.get("HYPERSWITCH_WEBHOOK_SECRET"),
            api_token: reader.get("API_TOKEN"),
            api_read_token: reader.get("API_READ_TOKEN"),
            ui_enabled: reader.require("UI_ENABLED")?,
            confirm_from: reader.require("CONFIRM_FROM")?,
            reversal: ReversalConfig {
                worker_enabled: reader.require("REVERSAL_WORKER_ENABLED")?,
                max_retries: reader.require("REVERSAL_MAX_RETRIES")?,
                check_interval: reader.duration("REVERSAL_CHECK_INTERVAL")?,
                backoff_base: reader.duration("REVERSAL_BACKOFF_BASE")?,
                backoff_max: reader.duration("REVERSAL_BACKOFF_MAX")?,
                balance_deadline: reader.duration("REVERSAL_BALANCE_DEADLINE")?,
                prefetch: reader.require("REVERSAL_PREFETCH")?,
                concurrency: reader.require("REVERSAL_CONCURRENCY")?,
            },
            transfer_retry: TransferRetryConfig {
                enabled: reader.require("TRANSFER_RETRY_ENABLED")?,
                max_retries: reader.require("TRANSFER_RETRY_MAX_RETRIES")?,
                check_interval: reader.duration("TRANSFER_RETRY_CHECK_INTERVAL")?,
                backoff_base: reader.duration("TRANSFER_RETRY_BACKOFF_BASE")?,
                backoff_max: reader.duration("TRANSFER_RETRY_BACKOFF_MAX")?,
            },
            app_env: reader.require("APP_ENV")?,
            allow_plaintext: reader.require("ALLOW_PLAINTEXT")?,
            log_format: reader.require("LOG_FORMAT")?,
            rust_log: reader.require("RUST_LOG")?,
            otlp_endpoint: reader.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
            claims: ClaimsConfig {
                refunds_since: reader.time("REFUNDS_SINCE"),
                reverse_on_pending: reader.require::<String>("REVERSE_ON_PENDING")? == "insufficient_funds",
                dispute_policy: reader.require("DISPUTE_POLICY")?,
            },
            events_url: reader.secret("EVENTS_URL"),
            events_secret: reader.get("EVENTS_SECRET"),
            database_max_connections: reader.require("DATABASE_MAX_CONNECTIONS")?,
            inbox_retention: reader.duration("INBOX_RETENTION")?,
            shutdown_delay: reader.duration("SHUTDOWN_DELAY")?,
            unknown_variables,
        })
    }
}

/// Everything that a configuration is made of.
struct Sources {
    file: Option<PathBuf>,
    toml: Option<String>,
    environment: Vec<(String, String)>,
    unknown_variables: Vec<UnknownVariable>,
    /// What is wrong with the sources themselves.
    problems: Vec<Problem>,
}

impl Sources {
    fn of_the_process() -> Self {
        let mut problems = Vec::new();
        let mut refuse = |setting: &str, problem| problems.push(Problem { setting: setting.to_owned(), problem });
        let file = std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let toml = file.as_ref().and_then(|path| match std::fs::read_to_string(path) {
            Ok(toml) => Some(toml),
            Err(error) => {
                refuse(FILE_VARIABLE, format!("must name a readable file (got {path:?}: {error})"));
                None
            }
        });
        let (mut names, mut environment) = (Vec::new(), Vec::new());
        let known: Vec<String> = settings::variables().collect();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) if known.contains(&name) => environment.push((name.clone(), value)),
                Err(_) if known.contains(&name) => refuse(&name, "must be UTF-8".to_owned()),
                _ => {}
            }
            names.push(name);
        }
        let unknown_variables = unknown::find(names.iter().map(String::as_str));
        Self { file, toml, environment, unknown_variables, problems }
    }

    fn read(self, parts: &[Part]) -> Result<(Config, Effective), ConfigError> {
        let Self { file, toml, environment, unknown_variables, problems } = self;
        let mut reader = Reader::new(toml.as_deref(), environment, problems);
        checks::consistency(&mut reader, parts);
        checks::production(&mut reader, parts);
        let settings = effective::settings(&reader);
        let config = Config::build(&reader, unknown_variables.clone());
        let mut problems = reader.into_problems();
        match config {
            Ok(config) if problems.is_empty() => Ok((config, Effective { file, settings, unknown_variables })),
            Err(problem) if problems.is_empty() => {
                problems.push(problem);
                Err(ConfigError { problems, unknown_variables })
            }
            _ => Err(ConfigError { problems, unknown_variables }),
        }
    }
}
