//! The table of settings. Reading, `clawback config` and `config/default.toml` follow from it; tests hold `.env.template`
//! and `docker-compose.yml` to it.

use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use tracing_subscriber::EnvFilter;
use url::Url;

use self::Group::{Api, Claims, Connections, Creations, Events, Process, Reversals, Stripe};
use super::SecretList;
use crate::worker::{SIGNING_SECRET, signing_key};

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// The environment variable. In a TOML file it is the same in lower case.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Empty: none.
    pub(super) default: &'static str,
    pub(super) group: Group,
    /// The part of Clawback that does not start in production without it.
    pub(super) needed_by: Option<Part>,
    /// What it is for, in one line.
    pub(super) help: &'static str,
}

/// A part of Clawback with needs of its own. `clawback run` has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Webhooks and API.
    Server,
    /// The worker, which calls Stripe.
    Worker,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// An IP address and a port.
    Address,
    /// A URL that may hold a password, with one of these schemes. Shown without user, password and query.
    SecretUrl(&'static [&'static str]),
    /// A URL to append paths to, with one of these schemes.
    Url(&'static [&'static str]),
    Secret,
    /// Secrets separated by commas; the first one signs.
    Secrets,
    /// The same, as Standard Webhooks has them.
    SigningSecrets,
    /// A whole number between these, inclusive.
    Number(u32, u32),
    /// A duration between these, inclusive.
    Duration(Duration, Duration),
    Choice(&'static [&'static str]),
    LogFilter,
    Time,
}

/// The headings of `config/default.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Connections,
    Stripe,
    Api,
    Reversals,
    Claims,
    Creations,
    Events,
    Process,
}

const BOOLEAN: Kind = Kind::Choice(&["true", "false"]);
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const INTERVAL: Kind = Kind::Duration(MILLISECOND, DAY);
/// RabbitMQ counts a queue's message TTL in milliseconds.
const RETRY_DELAY: Kind = Kind::Duration(MILLISECOND, Duration::from_secs(7 * 24 * 60 * 60));
const RETRIES: Kind = Kind::Number(0, 100);
const LONG: Kind = Kind::Duration(SECOND, Duration::from_secs(365 * 24 * 60 * 60));

#[rustfmt::skip] // one setting, one or two lines
pub(super) const SETTINGS: &[Setting] = &[
    row(Connections, "DATABASE_URL", Kind::SecretUrl(&["sqlite", "postgres", "postgresql"]), "sqlite://clawback.db?mode=rwc",
        "The ledger: sqlite://FILE?mode=rwc, or postgres://USER:PASSWORD@HOST/DATABASE?sslmode=require"),
    row(Connections, "DATABASE_MAX_CONNECTIONS", Kind::Number(6, 1_000), "20",
        "The most connections to the database of one process: three for the relay, the others for changes and for reading"),
    row(Connections, "AMQP_URL", Kind::SecretUrl(&["amqp", "amqps"]), "amqp://guest:guest@127.0.0.1:5672/%2f",
        "The broker: amqp://USER:PASSWORD@HOST:5672/VHOST, or amqps:// for TLS; the vhost / is written %2f"),
    row(Connections, "RABBITMQ_MANAGEMENT_URL", Kind::SecretUrl(&["http", "https"]), "",
        "RabbitMQ's management API, which doctor, queues and pages ask; unset: port 15672, or with TLS 15671, of AMQP_URL's host"),
    row(Connections, "HTTP_ADDR", Kind::Address, "127.0.0.1:8080",
        "Where webhooks, API, health and metrics are served"),
    row(Connections, "WORKER_HTTP_ADDR", Kind::Address, "",
        "Where `clawback worker` serves health and metrics; unset: it serves no HTTP"),

    row(Stripe, "STRIPE_API_KEY", Kind::Secret, "",
        "The platform's secret key (sk_…), or a restricted key (rk_…) that may write transfers and read charges, payment intents, refunds and disputes")
        .needed_by(Part::Worker),
    row(Stripe, "STRIPE_API_BASE", Kind::Url(&["https", "http"]), "https://api.stripe.com",
        "Where Stripe's API is; only tests and the simulator change it"),
    row(Stripe, "STRIPE_PROXY", Kind::SecretUrl(&["http", "https"]), "",
        "The HTTP proxy to Stripe, like http://USER:PASSWORD@proxy:3128; unset: none, whatever HTTPS_PROXY says"),
    row(Stripe, "STRIPE_MAX_RPS", Kind::Number(1, 10_000), "20",
        "The most requests per second of one worker; Stripe allows an account 100 in live mode, 25 in a sandbox"),
    row(Stripe, "STRIPE_WEBHOOK_SECRET", Kind::Secrets, "",
        "Signing secrets (whsec_…) of the webhook endpoints, comma-separated; unset: POST /webhooks/stripe answers 404")
        .needed_by(Part::Server),

    row(Stripe, "STRIPE_DISCOVERY", Kind::Choice(&["on", "off"]), "on",
        "Whether Clawback looks up the transfers of payments that nobody registered, and registers them"),

    row(Api, "HYPERSWITCH_WEBHOOK_SECRET", Kind::Secrets, "",
        "Payment response hash keys of Hyperswitch profiles, comma-separated; unset: POST /webhooks/hyperswitch answers 404"),
    row(Api, "API_TOKEN", Kind::Secrets, "",
        "Bearer tokens with full access to /v1, comma-separated; unset, and API_READ_TOKEN too: /v1 answers 404")
        .needed_by(Part::Server),
    row(Api, "API_READ_TOKEN", Kind::Secrets, "",
        "Bearer tokens with read access only, comma-separated"),
    row(Api, "UI_ENABLED", BOOLEAN, "true",
        "Whether the pages under /ui/ are served; they need one of the tokens to log in"),
    row(Api, "CONFIRM_FROM", Kind::Number(0, u32::MAX), "1000000",
        "From so many minor units of one currency, a replay needs the amount typed; 0: never"),

    row(Reversals, "REVERSAL_WORKER_ENABLED", BOOLEAN, "true",
        "Whether this process reverses transfers"),
    row(Reversals, "REVERSAL_MAX_RETRIES", RETRIES, "5",
        "Retries of one reversal before its job is parked"),
    row(Reversals, "REVERSAL_CHECK_INTERVAL", INTERVAL, "1m",
        "How often relay and sweeper check for work when nothing wakes them"),
    row(Reversals, "REVERSAL_BACKOFF_BASE", RETRY_DELAY, "1m",
        "The delay before the first retry; each further retry doubles it"),
    row(Reversals, "REVERSAL_BACKOFF_MAX", RETRY_DELAY, "1h",
        "The longest delay before a retry"),
    row(Reversals, "REVERSAL_BALANCE_DEADLINE", LONG, "30d",
        "How long a reversal waits for the seller's balance, or a creation for the platform's, before its job is parked"),
    row(Reversals, "REVERSAL_PREFETCH", Kind::Number(1, 2_000), "256",
        "Unacknowledged messages of one consumer"),
    row(Reversals, "REVERSAL_CONCURRENCY", Kind::Number(1, 2_000), "128",
        "Jobs of each kind that run at the same time in one process"),

    row(Claims, "REFUNDS_SINCE", Kind::Time, "",
        "Refunds and disputes created before this time or date are held until accepted; unset: the first set-up of the ledger"),
    row(Claims, "REVERSE_ON_PENDING", Kind::Choice(&["off", "insufficient_funds"]), "off",
        "Whether refunds that wait for the platform's balance already reverse transfers"),
    row(Claims, "DISPUTE_POLICY", Kind::Choice(&["off", "lost", "withdrawn"]), "off",
        "Which disputes reverse transfers: none, lost ones, or all with withdrawn funds"),

    row(Creations, "TRANSFER_RETRY_ENABLED", BOOLEAN, "true",
        "Whether this process creates transfers; if no process does, they stay pending"),
    row(Creations, "TRANSFER_RETRY_MAX_RETRIES", RETRIES, "5",
        "Retries of one creation before its job is parked"),
    row(Creations, "TRANSFER_RETRY_CHECK_INTERVAL", INTERVAL, "1m",
        "How often the sweeper checks for transfers without a job"),
    row(Creations, "TRANSFER_RETRY_BACKOFF_BASE", RETRY_DELAY, "1m",
        "The delay before the first retry; each further retry doubles it"),
    row(Creations, "TRANSFER_RETRY_BACKOFF_MAX", RETRY_DELAY, "1h",
        "The longest delay before a retry"),

    row(Events, "EVENTS_URL", Kind::SecretUrl(&["https", "http"]), "",
        "Where events are posted, like https://shop.example/clawback; unset: nothing is told"),
    row(Events, "EVENTS_SECRET", Kind::SigningSecrets, "",
        "Secrets of these events (whsec_ and base64, as Standard Webhooks has them), comma-separated; the first one signs"),

    row(Process, "APP_ENV", Kind::Choice(&["development", "production"]), "development",
        "production refuses SQLite, test secrets, short tokens, guest credentials, missing secrets and unencrypted connections"),
    row(Process, "ALLOW_PLAINTEXT", BOOLEAN, "false",
        "Whether production may connect to other hosts unencrypted; only for a private network"),
    row(Process, "LOG_FORMAT", Kind::Choice(&["text", "json"]), "text",
        "Logs go to stderr: text for people, json for programs"),
    row(Process, "RUST_LOG", Kind::LogFilter, "info",
        "What is logged: a level, or directives like info,clawback=debug"),
    row(Process, "OTEL_EXPORTER_OTLP_ENDPOINT", Kind::Url(&["http", "https"]), "",
        "Base URL of an OpenTelemetry collector, like http://127.0.0.1:4318, for traces over HTTP (protobuf)"),
    row(Process, "INBOX_RETENTION", LONG, "90d",
        "How long received webhooks are kept; their claims, debts and history stay"),
    row(Process, "SHUTDOWN_DELAY", Kind::Duration(Duration::ZERO, Duration::from_secs(300)), "5s",
        "How long HTTP is served after SIGTERM while the readiness already fails; Ctrl-C stops at once"),

];

const fn row(group: Group, name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Setting {
    Setting { name, kind, default, group, needed_by: None, help }
}

impl Setting {
    const fn needed_by(mut self, part: Part) -> Self {
        self.needed_by = Some(part);
        self
    }

    /// The name in a TOML file.
    pub(super) fn key(&self) -> String {
        self.name.to_lowercase()
    }

    /// The variable that names a file with the value, for secrets and URLs.
    pub(super) fn file_name(&self) -> Option<String> {
        let kinds = matches!(
            self.kind,
            Kind::SecretUrl(_) | Kind::Url(_) | Kind::Secret | Kind::Secrets | Kind::SigningSecrets
        );
        kinds.then(|| format!("{}_FILE", self.name))
    }
}

/// The setting of that name.
pub(super) fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Every variable that Clawback reads, except `CLAWBACK_CONFIG`.
pub(super) fn variables() -> impl Iterator<Item = String> {
    SETTINGS.iter().flat_map(|setting| [Some(setting.name.to_owned()), setting.file_name()]).flatten()
}

/// `config/default.toml`.
pub(super) fn as_toml() -> String {
    let mut text = String::from(HEAD);
    let mut group = None;
    for setting in SETTINGS {
        if group.replace(setting.group) != Some(setting.group) {
            text += &format!("\n# --- {} ---\n", setting.group.title());
        }
        let off = if setting.default.is_empty() { "# " } else { "" };
        let plain = matches!(setting.kind, Kind::Number(..)) || matches!(setting.default, "true" | "false");
        let quote = if plain { "" } else { "\"" };
        text += &format!("\n# {}.\n{off}{} = {quote}{}{quote}\n", setting.help, setting.key(), setting.default);
    }
    text
}

const HEAD: &str = r#"# Every setting of Clawback with its default. `clawback config --defaults` prints this file.
#
# To change a setting, put it into a TOML file of your own, which CLAWBACK_CONFIG names, or set the environment variable
# of the same name in capitals (REVERSAL_MAX_RETRIES). The environment wins; an empty variable counts as unset.
# Each secret and URL can be read from a file: API_TOKEN_FILE=/run/secrets/api_token (api_token_file in TOML).
# Durations are written as "90s", "1m", "1h 30m" or "30d". An unknown key or a bad value stops the start.
"#;

impl Group {
    const fn title(self) -> &'static str {
        match self {
            Connections => "Connections",
            Stripe => "Stripe",
            Api => "Hyperswitch's webhooks, the API under /v1, and the pages under /ui/",
            Reversals => "Reversing transfers",
            Claims => "Which refunds and disputes take money back",
            Creations => "Creating transfers that were registered without a Stripe id",
            Process => "The process",
            Events => "Events for another system",
        }
    }
}

impl Kind {
    pub(super) const fn is_secret(self) -> bool {
        matches!(self, Self::SecretUrl(_) | Self::Secret | Self::Secrets | Self::SigningSecrets)
    }

    /// What a value must be.
    pub(super) fn allowed(self) -> String {
        match self {
            Self::Address => "an IP address and a port, like 127.0.0.1:8080".to_owned(),
            Self::SecretUrl(schemes) => format!("a URL that starts with {}", either(schemes, ":")),
            Self::Url(schemes) => {
                format!("a URL that starts with {}, without user, password, ? and #", either(schemes, "://"))
            }
            Self::Secret => "printable ASCII characters without white space and commas".to_owned(),
            Self::SigningSecrets => format!("{SIGNING_SECRET}; or several such texts separated by commas"),
            Self::Secrets => {
                "printable ASCII characters without white space, or several such texts separated by commas".to_owned()
            }
            Self::Number(from, to) => format!("a whole number from {from} to {to}"),
            Self::Duration(from, to) => {
                format!("a duration from {} to {}, like 90s, 1m or 30d", written(from), written(to))
            }
            Self::Choice(choices) => either(choices, ""),
            Self::LogFilter => "a log filter like info or info,clawback=debug".to_owned(),
            Self::Time => "an RFC 3339 time or a date, like 2026-11-25T00:00:00Z or 2026-11-25 (UTC)".to_owned(),
        }
    }

    /// Whether the text is such a value.
    pub(super) fn accepts(self, text: &str) -> bool {
        match self {
            Self::Address => text.parse::<SocketAddr>().is_ok(),
            // A SQLite URL is not always a URL by RFC 3986, so only its scheme is checked.
            Self::SecretUrl(schemes) => text.split_once(':').is_some_and(|(scheme, _)| {
                schemes.contains(&scheme) && (scheme == "sqlite" || has_several_hosts(text) || Url::parse(text).is_ok())
            }),
            Self::Url(schemes) => Url::parse(text).is_ok_and(|url| {
                let plain = url.username().is_empty() && url.password().is_none();
                let ends = url.query().is_none() && url.fragment().is_none();
                schemes.contains(&url.scheme()) && url.has_host() && plain && ends
            }),
            Self::Secret => is_secret(text) && !text.contains(','),
            Self::Secrets => text.parse::<SecretList>().is_ok(),
            Self::SigningSecrets => text.split(',').all(|secret| signing_key(secret).is_some()),
            Self::Number(from, to) => text.parse().is_ok_and(|number| (from..=to).contains(&number)),
            Self::Duration(from, to) => humantime::parse_duration(text).is_ok_and(|text| (from..=to).contains(&text)),
            Self::Choice(choices) => choices.contains(&text),
            Self::LogFilter => EnvFilter::try_new(text).is_ok(),
            Self::Time => time(text).is_some(),
        }
    }
}

/// A date is its beginning in UTC.
pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    time.or_else(|| Some(text.parse::<NaiveDate>().ok()?.and_time(NaiveTime::MIN).and_utc()))
}

/// Neither a header nor a copied line can carry other characters.
pub(super) fn is_secret(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a URL names several hosts, as libpq and some AMQP clients allow.
pub(super) fn has_several_hosts(url: &str) -> bool {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let query = url.split_once('?').map_or("", |(_, query)| query).to_lowercase();
    let names = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| ["host", "hostaddr", "port"].contains(&name));
    hosts.contains(',') || query.split('&').any(|pair| names(pair) && (pair.contains(',') || pair.contains("%2c")))
}

fn either(texts: &[&str], end: &str) -> String {
    let texts: Vec<String> = texts.iter().map(|text| format!("{text}{end}")).collect();
    match texts.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => texts.concat(),
    }
}

/// A duration as a setting writes it; humantime alone turns 90 days into months of 30.44 days.
pub(super) fn written(duration: Duration) -> String {
    let (days, rest) = (duration.as_secs() / DAY.as_secs(), duration.as_millis() % DAY.as_millis());
    if days > 0 && rest == 0 { format!("{days}d") } else { humantime::format_duration(duration).to_string() }
}
