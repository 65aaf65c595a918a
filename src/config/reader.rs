//! Layers the sources, and turns the text of each setting into its type, collecting what is wrong on the way.
//!
//! Only `config` uses it. A read gives `None` after it has noted a problem, so the caller goes on to the next setting and
//! gives up at the end. It never puts the value of a secret into a problem.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use config::{Environment, File, FileFormat, Source};
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::effective::SettingSource;
use super::error::{ConfigError, Problem};
use super::{Config, DAY, MILLISECOND};

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The environment variables. A TOML file has the same names in lower case.
pub(super) const SETTINGS: [&str; 28] = [
    "DATABASE_URL",
    "AMQP_URL",
    "HTTP_ADDR",
    "WORKER_HTTP_ADDR",
    "STRIPE_API_KEY",
    "STRIPE_API_BASE",
    "STRIPE_MAX_RPS",
    "STRIPE_WEBHOOK_SECRET",
    "HYPERSWITCH_WEBHOOK_SECRET",
    "API_TOKEN",
    "API_READ_TOKEN",
    "REVERSAL_WORKER_ENABLED",
    "REVERSAL_MAX_RETRIES",
    "REVERSAL_CHECK_INTERVAL",
    "REVERSAL_BACKOFF_BASE",
    "REVERSAL_BACKOFF_MAX",
    "REVERSAL_BALANCE_DEADLINE",
    "REVERSAL_PREFETCH",
    "REVERSAL_CONCURRENCY",
    "TRANSFER_RETRY_ENABLED",
    "TRANSFER_RETRY_MAX_RETRIES",
    "TRANSFER_RETRY_CHECK_INTERVAL",
    "TRANSFER_RETRY_BACKOFF_BASE",
    "TRANSFER_RETRY_BACKOFF_MAX",
    "APP_ENV",
    "LOG_FORMAT",
    "RUST_LOG",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Settings whose values no message shows.
pub(super) const SECRETS: [&str; 7] = [
    "DATABASE_URL",
    "AMQP_URL",
    "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "HYPERSWITCH_WEBHOOK_SECRET",
    "API_TOKEN",
    "API_READ_TOKEN",
];

pub(super) const BOOLEANS: [(&str, bool); 2] = [("true", true), ("false", false)];

/// The setting of that name, if there is one.
pub(super) fn setting(name: &str) -> Option<&'static str> {
    SETTINGS.into_iter().find(|setting| *setting == name)
}

/// The sources, layered, and what was found wrong so far.
pub(super) struct Reader {
    layers: config::Config,
    /// The variables that were set, by which a problem's source is told.
    variables: HashMap<String, String>,
    /// The keys that the file has.
    keys: HashSet<String>,
    problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn new() -> Self {
        let (variables, keys) = (HashMap::new(), HashSet::new());
        Self { layers: config::Config::default(), variables, keys, problems: Vec::new() }
    }

    /// Puts the file over the defaults, and the environment over both.
    pub(super) fn layer(&mut self, toml: Option<&str>, environment: impl IntoIterator<Item = (String, String)>) {
        let mut builder = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(file) = toml.and_then(|toml| self.known_keys(toml)) {
            builder = builder.add_source(file);
        }
        self.variables = environment.into_iter().filter(|(name, _)| setting(name).is_some()).collect();
        self.variables.retain(|_, value| !value.is_empty());
        builder = builder.add_source(Environment::default().source(Some(self.variables.clone())));
        match builder.build() {
            Ok(layers) => self.layers = layers,
            Err(error) => self.refuse("the configuration", format!("cannot be read: {error}")),
        }
    }

    /// The file as a source, unless it is no TOML or has a key that nothing would read.
    fn known_keys(&mut self, toml: &str) -> Option<File<config::FileSourceString, FileFormat>> {
        let file = File::from_str(toml, FileFormat::Toml);
        let keys = match file.collect() {
            Ok(table) => table.into_keys().collect::<HashSet<_>>(),
            Err(error) => {
                // The full text quotes the line, and a secret may stand there.
                let text = error.to_string();
                let place = text.lines().next().unwrap_or_default();
                self.refuse("the configuration file", format!("is not TOML: {place}"));
                return None;
            }
        };
        let known = |key: &String| SETTINGS.iter().any(|setting| setting.to_lowercase() == *key);
        let mut unknown: Vec<String> = keys.iter().filter(|key| !known(key)).cloned().collect();
        unknown.sort();
        for key in &unknown {
            let lower = key.to_lowercase();
            let advice = if known(&lower) {
                format!("write it in lower case: {lower}")
            } else {
                "config/default.toml has all keys, none of them in a [section]".to_owned()
            };
            self.refuse(key, format!("in the configuration file is not a setting; {advice}"));
        }
        self.keys = keys;
        unknown.is_empty().then_some(file)
    }

    /// The configuration, if nothing was found wrong.
    pub(super) fn finish(self, config: Option<Config>) -> Result<Config, ConfigError> {
        match config {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(ConfigError::new(self.problems)),
        }
    }

    /// Notes that a setting can't be used. The text must not show a secret.
    pub(super) fn refuse(&mut self, setting: &str, problem: String) {
        self.problems.push(Problem { setting: setting.to_owned(), problem });
    }

    /// The text of a setting; `None` if it is not set, or empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.layers.get_string(&name.to_lowercase()).ok().filter(|text| !text.is_empty())
    }

    /// Where a setting's value comes from.
    pub(super) fn source(&self, name: &str) -> SettingSource {
        if self.variables.contains_key(name) {
            SettingSource::Environment
        } else if self.keys.contains(&name.to_lowercase()) {
            SettingSource::File
        } else {
            SettingSource::Default
        }
    }

    /// Notes that the value of a setting can't be used: the value itself only where it is no secret.
    fn refuse_value(&mut self, name: &str, allowed: &str) {
        let problem = match self.text(name) {
            None => format!("is empty, or not a single value; allowed: {allowed}"),
            // A URL with an @ may carry a password, whichever setting it was put into.
            Some(text) if SECRETS.contains(&name) || text.contains('@') => {
                format!("has a value (not shown here) that is not allowed; allowed: {allowed}")
            }
            Some(text) => format!("is {text:?}; allowed: {allowed}"),
        };
        let in_file = !self.variables.contains_key(name);
        let setting = if in_file { format!("{} (in the file)", name.to_lowercase()) } else { name.to_owned() };
        self.problems.push(Problem { setting, problem });
    }

    fn required<T>(&mut self, name: &str, allowed: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = self.text(name).and_then(|text| parse(&text));
        if value.is_none() {
            self.refuse_value(name, allowed);
        }
        value
    }

    /// `Some(None)` when the setting is not set.
    fn optional<T>(&mut self, name: &str, allowed: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
        let not_single = self.layers.get::<config::Value>(&name.to_lowercase()).is_ok_and(|v| v.into_string().is_err());
        if self.text(name).is_none() && !not_single {
            return Some(None);
        }
        self.required(name, allowed, parse).map(Some)
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, allowed: &str) -> Option<T> {
        self.required(name, allowed, |text| text.parse().ok())
    }

    pub(super) fn optional_parsed<T: FromStr>(&mut self, name: &str, allowed: &str) -> Option<Option<T>> {
        self.optional(name, allowed, |text| text.parse().ok())
    }

    pub(super) fn number<T: FromStr + PartialOrd + Display>(
        &mut self,
        name: &str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.required(name, &allowed, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    pub(super) fn duration(&mut self, name: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let (from, to) = (written(*range.start()), written(*range.end()));
        let allowed = format!("a duration from {from} to {to}, like 90s, 1m or 30d");
        self.required(name, &allowed, |text| humantime::parse_duration(text).ok().filter(|d| range.contains(d)))
    }

    /// The shortest and the longest delay before a retry.
    pub(super) fn backoff(&mut self, base_name: &str, max_name: &str) -> Option<(Duration, Duration)> {
        let base = self.duration(base_name, MILLISECOND..=7 * DAY);
        let max = self.duration(max_name, MILLISECOND..=7 * DAY);
        let (base, max) = (base?, max?);
        if max < base {
            let (base, max) = (written(base), written(max));
            self.refuse(max_name, format!("is {max}; allowed: {base_name} ({base}) or longer"));
            return None;
        }
        Some((base, max))
    }

    pub(super) fn one_of<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.required(name, &names.join(" or "), |text| {
            choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
        })
    }

    pub(super) fn log_filter(&mut self, name: &str) -> Option<String> {
        self.required(name, "directives like info or info,clawback=debug", |text| {
            EnvFilter::try_new(text).ok().map(|_| text.to_owned())
        })
    }

    /// A secret without white space, which neither a header nor a copied line end could carry.
    pub(super) fn secret(&mut self, name: &str) -> Option<Option<SecretString>> {
        self.optional(name, "printable ASCII characters without white space", |text| {
            text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| SecretString::from(text))
        })
    }

    /// A URL that may hold a password. SQLite's are not URLs to the letter, so only their scheme is looked at.
    pub(super) fn secret_url(&mut self, name: &str, schemes: &[&str]) -> Option<SecretString> {
        self.required(name, &format!("a URL that starts with {}:", schemes.join(": or ")), |text| {
            let (scheme, _) = text.split_once(':')?;
            let sound = schemes.contains(&scheme) && (scheme == "sqlite" || Url::parse(text).is_ok());
            sound.then(|| SecretString::from(text))
        })
    }

    /// A URL behind which paths are put.
    pub(super) fn base_url(&mut self, name: &str, schemes: &[&str]) -> Option<Url> {
        let allowed = format!("a URL that starts with {}://, without password, ? and #", schemes.join(":// or "));
        self.required(name, &allowed, |text| base_url(text, schemes))
    }

    pub(super) fn optional_url(&mut self, name: &str, schemes: &[&str]) -> Option<Option<Url>> {
        let allowed = format!("a URL that starts with {}://, without password, ? and #", schemes.join(":// or "));
        self.optional(name, &allowed, |text| base_url(text, schemes))
    }
}

/// As one would write it into the configuration; humantime alone makes months of 30.44 days out of 90 days.
fn written(duration: Duration) -> String {
    let (days, rest) = (duration.as_secs() / DAY.as_secs(), duration.as_millis() % DAY.as_millis());
    if days > 0 && rest == 0 { format!("{days}d") } else { humantime::format_duration(duration).to_string() }
}

fn base_url(text: &str, schemes: &[&str]) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    (schemes.contains(&url.scheme()) && url.has_host() && plain).then_some(url)
}
