//! Checks across settings, and what production refuses: settings that are fine on a laptop and lose money or secrets
//! elsewhere.

use std::net::IpAddr;

use secrecy::ExposeSecret;
use url::Url;

use super::effective::SettingSource;
use super::reader::Reader;
use super::settings::{Part, SETTINGS, has_several_hosts, written};
use super::{AppEnv, SecretList};

/// How secrets of Stripe's test mode begin, and those of the simulator.
const TEST_PREFIXES: [&str; 3] = ["sk_test_", "rk_test_", "whsec_test"];
/// Every secret and password in `.env.template` contains one of these.
pub(super) const TEMPLATE_MARKS: [&str; 2] = ["compose-trial", "compose_trial"];
/// As `openssl rand -hex 16` makes.
const TOKEN_MIN_CHARACTERS: usize = 32;
const TOKENS: [&str; 2] = ["API_TOKEN", "API_READ_TOKEN"];
const MAKE_ONE: &str = "; make one with: openssl rand -hex 32";
const ON_PRIVATE_NETWORK: &str = "; on a private network, set ALLOW_PLAINTEXT=true";

/// Checks settings that depend on each other.
pub(super) fn consistency(reader: &mut Reader, parts: &[Part]) {
    for (base_name, max_name) in [
        ("REVERSAL_BACKOFF_BASE", "REVERSAL_BACKOFF_MAX"),
        ("TRANSFER_RETRY_BACKOFF_BASE", "TRANSFER_RETRY_BACKOFF_MAX"),
    ] {
        if let (Ok(base), Ok(max)) = (reader.duration(base_name), reader.duration(max_name))
            && max < base
        {
            let (base, max) = (written(base), written(max));
            reader.refuse(max_name, format!("must be at least {base_name}, which is {base} (got {max})"));
        }
    }
    for name in ["DATABASE_URL", "AMQP_URL"] {
        if reader.text(name).is_some_and(|url| !url.starts_with("sqlite:") && has_several_hosts(&url)) {
            reader.refuse(name, "must name one host (got several); use one address that follows the primary".into());
        }
    }
    // Who only hands the events over needs no secret.
    let signs = parts.contains(&Part::Worker) && reader.text("EVENTS_URL").is_some();
    if signs && reader.text("EVENTS_SECRET").is_none() {
        let problem = "is missing: the worker signs with it what it tells EVENTS_URL".to_owned();
        reader.refuse("EVENTS_SECRET", problem);
    }
    // Stripe refuses an organization's key, call by call, unless each names an account.
    for (prefix, kind) in [("pk_", "a publishable key, pk_…"), ("sk_org_", "an organization key, sk_org_…")] {
        if reader.text("STRIPE_API_KEY").is_some_and(|key| key.starts_with(prefix)) {
            let problem = format!("must be a secret or restricted key of the platform's account (got {kind})");
            reader.refuse("STRIPE_API_KEY", problem);
        }
    }
    let [all, read] = TOKENS.map(|name| reader.get::<SecretList>(name));
    if let (Some(all), Some(read)) = (all, read)
        && all.overlaps(&read)
    {
        reader
            .refuse("API_READ_TOKEN", "must differ from API_TOKEN (got the same); else its holders could write".into());
    }
}

/// Checks everything that these parts must not start with in production.
pub(super) fn production(reader: &mut Reader, parts: &[Part]) {
    if !matches!(reader.get("APP_ENV"), Some(AppEnv::Production)) {
        return;
    }
    if reader.text("DATABASE_URL").is_some_and(|url| url.starts_with("sqlite:")) {
        refuse(reader, "DATABASE_URL", "must be postgres://…", "SQLite", "");
    }
    // A URL without a user means `guest`, which AMQP clients fill in. What runs none of the parts may have no use for a broker.
    let is_used = !parts.is_empty() || reader.source("AMQP_URL") != SettingSource::Default;
    let broker = reader.url("AMQP_URL").filter(|_| is_used);
    if broker.is_some_and(|url| ["", "guest"].contains(&url.username()) || url.password() == Some("guest")) {
        refuse(reader, "AMQP_URL", "must name a user of Clawback's own", "the broker's guest credentials", "");
    }
    plaintext(reader);
    for setting in SETTINGS {
        let name = setting.name;
        let Some(text) = reader.text(name) else {
            if setting.needed_by.is_some_and(|part| parts.contains(&part)) {
                refuse(reader, name, "must be set", "nothing", "");
            }
            continue;
        };
        if setting.kind.is_secret() {
            secret(reader, name, &text);
        }
    }
    for name in TOKENS {
        let Some(tokens) = reader.get::<SecretList>(name) else { continue };
        let lengths = tokens.iter().map(|token| token.expose_secret().len());
        if let Some(got) = lengths.min().filter(|length| *length < TOKEN_MIN_CHARACTERS) {
            let wanted = format!("must have at least {TOKEN_MIN_CHARACTERS} characters per token");
            refuse(reader, name, &wanted, &got.to_string(), MAKE_ONE);
        }
    }
}

fn secret(reader: &mut Reader, name: &str, text: &str) {
    let prefix = text.split(',').find_map(|secret| TEST_PREFIXES.iter().find(|prefix| secret.starts_with(*prefix)));
    if let Some(prefix) = prefix {
        refuse(reader, name, "must be a live secret", &format!("a test secret, {prefix}…"), "");
    } else if TEMPLATE_MARKS.iter().any(|mark| text.contains(mark)) {
        refuse(reader, name, "must be a secret of your own", "the one from .env.template", MAKE_ONE);
    }
}

type IsPlain = fn(&Url) -> bool;

/// Unencrypted connections to other hosts.
fn plaintext(reader: &mut Reader) {
    if reader.get("ALLOW_PLAINTEXT") == Some(true) {
        return;
    }
    let checks: [(&str, &str, IsPlain); 6] = [
        ("DATABASE_URL", "must have sslmode=require, verify-ca or verify-full", postgres_is_plain),
        ("AMQP_URL", "must be amqps://…", |url| url.scheme() == "amqp" && is_remote(url.host_str())),
        ("RABBITMQ_MANAGEMENT_URL", "must be https://…", http_is_plain),
        ("STRIPE_API_BASE", "must be https://…", http_is_plain),
        ("EVENTS_URL", "must be https://…", http_is_plain),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "must be https://…", http_is_plain),
    ];
    for (name, wanted, is_plain) in checks {
        if reader.url(name).is_some_and(|url| is_plain(&url)) {
            refuse(reader, name, wanted, "an unencrypted connection to another host", ON_PRIVATE_NETWORK);
        }
    }
}

fn http_is_plain(url: &Url) -> bool {
    url.scheme() == "http" && is_remote(url.host_str())
}

/// `host` and `hostaddr` in the query win over the URL's host; a path is a Unix socket.
fn postgres_is_plain(url: &Url) -> bool {
    let last = |names: [&str; 2]| {
        url.query_pairs().filter(|(name, _)| names.contains(&&**name)).last().map(|(_, value)| value.to_lowercase())
    };
    let encrypted = last(["sslmode", "ssl-mode"])
        .is_some_and(|mode| ["require", "verify-ca", "verify-full"].contains(&mode.as_str()));
    let host = last(["host", "hostaddr"]);
    let is_postgres = url.scheme() != "sqlite";
    is_postgres && !encrypted && is_remote(host.as_deref().or(url.host_str()))
}

/// No host means this machine, and so does a Unix socket's path.
fn is_remote(host: Option<&str>) -> bool {
    let host = host.unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) => !address.is_loopback(),
        Err(_) => !host.is_empty() && !host.starts_with(['/', '%']) && !host.eq_ignore_ascii_case("localhost"),
    }
}

fn refuse(reader: &mut Reader, setting: &str, wanted: &str, got: &str, advice: &str) {
    reader.refuse(setting, format!("{wanted} in production (got {got}){advice}"));
}
