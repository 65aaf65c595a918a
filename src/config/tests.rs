#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::settings::{Kind, SETTINGS, as_toml};
use super::{AppEnv, Config, ConfigError, SecretList};

fn from_env(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_parts(None, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn from_file(toml: &str) -> Result<Config, ConfigError> {
    Config::from_parts(Some(toml), [])
}

/// The settings that were refused, in order.
fn refused(result: Result<Config, ConfigError>) -> Vec<String> {
    result.unwrap_err().problems().iter().map(|problem| problem.setting.clone()).collect()
}

/// The settings whose values are not shown.
fn secrets() -> Vec<&'static str> {
    SETTINGS.iter().filter(|setting| setting.kind.is_secret()).map(|setting| setting.name).collect()
}

const SIGNING: &str = "whsec_hushhushhushhushhushhushhushhush,MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// For each setting a value that differs from the default, what becomes of it in `Debug`, and a value it can't have.
const VALUES: &[(&str, &str, &str, &str)] = &[
    ("DATABASE_URL", "postgres://u:hush@db/clawback", "", "mysql://u:hush@db/clawback"),
    ("DATABASE_MAX_CONNECTIONS", "21", "database_max_connections: 21", "5"),
    ("AMQP_URL", "amqps://u:hush@broker/v", "", "http://u:hush@broker"),
    ("RABBITMQ_MANAGEMENT_URL", "https://u:hush@broker:15671", "management_url: Some(", "broker:15672"),
    ("HTTP_ADDR", "[::1]:9", "http_addr: [::1]:9,", "localhost"),
    ("WORKER_HTTP_ADDR", "[::1]:10", "worker_http_addr: Some([::1]:10)", "9090"),
    ("STRIPE_API_KEY", "sk_live_hush", "api_key: Some(", "sk_live_hush,sk_live_2"),
    ("STRIPE_API_BASE", "http://127.0.0.1:12111", "12111", "api.stripe.com"),
    ("STRIPE_PROXY", "http://u:hush@proxy:3128", "proxy: Some(", "proxy:3128"),
    ("STRIPE_MAX_RPS", "7", "max_rps: 7", "10001"),
    ("STRIPE_WEBHOOK_SECRET", "whsec_hush,whsec_hush2", "webhook_secret: Some(", "whsec hush"),
    ("STRIPE_DISCOVERY", "off", "discovery: false", "true"),
    ("HYPERSWITCH_WEBHOOK_SECRET", "hush", "hyperswitch_webhook_secret: Some(", "hush\n"),
    ("API_TOKEN", "hush_all", "api_token: Some(", "hush hush"),
    ("API_READ_TOKEN", "hush_read", "api_read_token: Some(", "hush,,\u{e9}"),
    ("UI_ENABLED", "false", "ui_enabled: false", "off"),
    ("CONFIRM_FROM", "5000", "confirm_from: 5000", "much"),
    ("REVERSAL_WORKER_ENABLED", "false", "worker_enabled: false", "on"),
    ("REVERSAL_MAX_RETRIES", "6", "max_retries: 6", "101"),
    ("REVERSAL_CHECK_INTERVAL", "2s", "check_interval: 2s", "25h"),
    ("REVERSAL_BACKOFF_BASE", "1s", "backoff_base: 1s", "8d"),
    ("REVERSAL_BACKOFF_MAX", "2h", "backoff_max: 7200s", "60"),
    ("REVERSAL_BALANCE_DEADLINE", "1d", "balance_deadline: 86400s", "999ms"),
    ("REVERSAL_PREFETCH", "8", "prefetch: 8", "0"),
    ("REVERSAL_CONCURRENCY", "9", "concurrency: 9", "2001"),
    ("REFUNDS_SINCE", "2026-11-25T01:00:00+01:00", "Some(2026-11-25T00:00:00Z)", "2026-11-31"),
    ("REVERSE_ON_PENDING", "insufficient_funds", "reverse_on_pending: true", "on"),
    ("DISPUTE_POLICY", "withdrawn", "dispute_policy: Withdrawn", "won"),
    ("TRANSFER_RETRY_ENABLED", "false", " enabled: false", "1"),
    ("TRANSFER_RETRY_MAX_RETRIES", "0", "max_retries: 0", "-1"),
    ("TRANSFER_RETRY_CHECK_INTERVAL", "3s", "check_interval: 3s", "0s"),
    ("TRANSFER_RETRY_BACKOFF_BASE", "4s", "backoff_base: 4s", "soon"),
    ("TRANSFER_RETRY_BACKOFF_MAX", "3h", "backoff_max: 10800s", "8d"),
    ("EVENTS_URL", "https://u:hush@example.com/in?token=hush", "events_url: Some(", "ftp://u:hush@x"),
    ("EVENTS_SECRET", SIGNING, "events_secret: Some(", "whsec_hush"),
    ("APP_ENV", "production", "app_env: Production", "Production"),
    ("ALLOW_PLAINTEXT", "true", "allow_plaintext: true", "yes"),
    ("LOG_FORMAT", "json", "log_format: Json", "JSON"),
    ("RUST_LOG", "debug,clawback=trace", "debug,clawback=trace", "info,clawback=loud"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318", "4318", "127.0.0.1:4318"),
    ("INBOX_RETENTION", "30d", "inbox_retention: 2592000s", "0s"),
    ("SHUTDOWN_DELAY", "0s", "shutdown_delay: 0ns", "6m"),
];

#[test]
fn every_setting_is_read_from_its_variable_from_its_key_and_from_a_file() {
    let names: Vec<&str> = VALUES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>());
    let defaults = format!("{:?}", from_env(&[]).unwrap());
    for &(name, value, debug, _) in VALUES {
        let others: &[(&str, &str)] = match name {
            // Alone, production would refuse the rest.
            "APP_ENV" => &PRODUCTION[1..],
            "EVENTS_URL" => &[("EVENTS_SECRET", SIGNING)],
            _ => &[],
        };
        let toml: String = others.iter().chain(&[(name, value)]).map(|(name, value)| line(name, value)).collect();
        let path = std::env::temp_dir().join(format!("clawback-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, format!("{value}\n")).unwrap();
        let file_name = format!("{name}_FILE");
        let in_file = from_env(&[others, &[(&file_name, path.to_str().unwrap())]].concat());
        std::fs::remove_file(&path).unwrap();
        let mut configs = vec![from_env(&[others, &[(name, value)]].concat()), from_file(&toml)];
        if super::settings::setting(name).unwrap().file_name().is_some() {
            configs.push(in_file);
        }
        for config in configs {
            let config = config.unwrap();
            let shown = format!("{config:?}");
            assert!(shown.contains(debug) && (debug.is_empty() || !defaults.contains(debug)), "{name}: {shown}");
            assert!(!shown.contains("hush"), "{shown}");
            let exposed = [&config.database_url, &config.amqp_url].map(ExposeSecret::expose_secret);
            assert!(!debug.is_empty() || exposed.contains(&value), "{name}");
        }
    }
}

fn line(name: &str, value: &str) -> String {
    format!("{} = {value:?}\n", name.to_lowercase())
}

#[test]
fn a_list_of_secrets_is_kept_in_order_and_each_secret_alone_counts() {
    let config =
        from_env(&[("STRIPE_WEBHOOK_SECRET", "new,old"), ("API_TOKEN", "a,b"), ("API_READ_TOKEN", "c")]).unwrap();
    let secrets = config.stripe.webhook_secret.unwrap();
    assert_eq!(secrets.first().expose_secret(), "new");
    assert_eq!(secrets.iter().map(ExposeSecret::expose_secret).collect::<Vec<_>>(), ["new", "old"]);
    let is = |wanted: &str| secrets.any(|secret| u8::from(secret.expose_secret() == wanted).into());
    assert_eq!([is("new"), is("old"), is("new,old")], [true, true, false]);
    assert_eq!(refused(from_env(&[("API_TOKEN", "a,b"), ("API_READ_TOKEN", "c,b")])), ["API_READ_TOKEN"]);
    for list in ["", ",a", "a,", "a,,b", "a, b"] {
        assert!(list.parse::<SecretList>().is_err(), "{list:?}");
    }
}

#[test]
fn all_bad_values_are_reported_at_once_with_what_is_allowed_and_no_secret() {
    let all: Vec<(&str, &str)> = VALUES.iter().map(|(name, _, _, bad)| (*name, *bad)).collect();
    let toml: String = all.iter().map(|(name, bad)| line(name, bad)).collect();
    for (error, in_file) in [(from_env(&all).unwrap_err(), false), (from_file(&toml).unwrap_err(), true)] {
        for (problem, (name, bad)) in error.problems().iter().zip(&all) {
            let setting = if in_file { format!("{} (in the file)", name.to_lowercase()) } else { (*name).to_owned() };
            assert_eq!(problem.setting, setting);
            let kind = super::settings::setting(name).unwrap().kind;
            let got = if kind.is_secret() { "a value not shown here".to_owned() } else { format!("{bad:?}") };
            assert_eq!(problem.problem, format!("must be {} (got {got})", kind.allowed()));
        }
        assert_eq!(error.problems().len(), all.len(), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
    let expected = "the configuration can't be used:
  HTTP_ADDR must be an IP address and a port, like 127.0.0.1:8080 (got \"localhost\")
  STRIPE_API_BASE must be a URL that starts with https:// or http://, without user, password, ? and # (got \"x\")
  STRIPE_MAX_RPS must be a whole number from 1 to 10000 (got \"0\")
  REVERSAL_CHECK_INTERVAL must be a duration from 1ms to 1d, like 90s, 1m or 30d (got \"60\")
  DISPUTE_POLICY must be off, lost or withdrawn (got \"on\")";
    let bad = [
        ("HTTP_ADDR", "localhost"),
        ("STRIPE_API_BASE", "x"),
        ("STRIPE_MAX_RPS", "0"),
        ("REVERSAL_CHECK_INTERVAL", "60"),
        ("DISPUTE_POLICY", "on"),
    ];
    assert_eq!(from_env(&bad).unwrap_err().to_string(), expected);
}

#[test]
fn a_longest_delay_below_the_first_one_is_refused() {
    for name in ["REVERSAL", "TRANSFER_RETRY"] {
        let [base, max] = ["BASE", "MAX"].map(|end| format!("{name}_BACKOFF_{end}"));
        let error = from_env(&[(&base, "10s"), (&max, "9s")]).unwrap_err().to_string();
        assert!(error.ends_with(&format!("\n  {max} must be at least {base}, which is 10s (got 9s)")), "{error}");
        from_env(&[(&base, "10s"), (&max, "10s")]).unwrap();
    }
}

#[test]
fn a_file_that_can_not_be_used_is_named_and_its_content_never_shown() {
    let path = std::env::temp_dir().join(format!("clawback-{}", uuid::Uuid::new_v4()));
    let read = |content: &str, given: &[(&str, &str)]| {
        std::fs::write(&path, content).unwrap();
        let given = [&[("API_TOKEN_FILE", path.to_str().unwrap())], given].concat();
        from_env(&given).unwrap_err().to_string()
    };
    let both = read("hush", &[("API_TOKEN", "hush2")]);
    assert!(both.contains("API_TOKEN_FILE must not be set together with API_TOKEN; remove one of them"), "{both}");
    let bad = read("hush hush\n", &[]);
    assert!(bad.contains("\n  API_TOKEN (from API_TOKEN_FILE) must be printable ASCII"), "{bad}");
    let empty = read("\n", &[]);
    assert!(
        empty.contains("API_TOKEN_FILE must name a file with the value (got ") && empty.contains("empty"),
        "{empty}"
    );
    std::fs::remove_file(&path).unwrap();
    let missing = from_file("api_token_file = \"/no/such/file\"").unwrap_err().to_string();
    assert!(missing.contains("API_TOKEN_FILE must name a readable file (got \"/no/such/file\": No such"), "{missing}");
    let secret = from_env(&[("API_TOKEN_FILE", "hush")]).unwrap_err().to_string();
    assert!([both, bad, empty, missing, secret].iter().all(|error| !error.contains("hush")));
}

#[test]
fn several_hosts_are_refused_by_name() {
    for (name, url) in [
        ("DATABASE_URL", "postgres://u:p,w@a,b/clawback"),
        ("DATABASE_URL", "postgres://u:p@a:5432,b:5432/clawback"),
        ("AMQP_URL", "amqp://u:p@a:5672,b:5672/v"),
        ("AMQP_URL", "amqp://a,amqp://b"),
        ("DATABASE_URL", "postgres://u:p@a/clawback?host=a,b"),
        ("DATABASE_URL", "postgres://u:p@a/clawback?sslmode=require&hostaddr=10.0.0.1%2C10.0.0.2"),
    ] {
        let error = from_env(&[(name, url)]).unwrap_err();
        let [problem] = error.problems() else { panic!("{error}") };
        assert!(problem.setting == name && problem.problem.starts_with("must name one host (got several)"), "{error}");
    }
    from_env(&[("DATABASE_URL", "postgres://u:p,w@a/clawback?options=a,b"), ("AMQP_URL", "amqp://u:p,w@a/v,w")])
        .unwrap();
}

#[test]
fn misspelt_variables_are_reported_with_the_nearest_setting_and_others_are_not() {
    let names = |given: &[(&str, &str)]| {
        let found = from_env(given).unwrap().unknown_variables;
        found.into_iter().map(|unknown| (unknown.name, unknown.nearest.unwrap_or_default())).collect::<Vec<_>>()
    };
    for (name, nearest) in [
        ("REVERSAL_BACKOFF_MX", "REVERSAL_BACKOFF_MAX"),
        ("REVERSAL_RETRIES", ""),
        ("STRIPE_SECRET_KEY", ""),
        ("STRIPE_WEBHOOK_SECRETS", "STRIPE_WEBHOOK_SECRET"),
        ("API_TOKNE_FILE", "API_TOKEN_FILE"),
        ("AMQP_URI", "AMQP_URL"),
        ("http_addr", "HTTP_ADDR"),
        ("CLAWBACK_CONFG", "CLAWBACK_CONFIG"),
    ] {
        assert_eq!(names(&[(name, "x")]), [(name.to_owned(), nearest.to_owned())]);
    }
    for name in ["PATH", "a.b[0", "", "API_KEY", "APP_NAME", "RUST_LOG_STYLE", "STRIPE_SIM_PORT", "CLAWBACK_CONFIG"] {
        assert_eq!(names(&[(name, "x")]), [], "{name}");
    }
    let error = from_env(&[("REVERSAL_BACKOFF_MX", "x"), ("HTTP_ADDR", "x")]).unwrap_err().to_string();
    let warning =
        "\n  warning: REVERSAL_BACKOFF_MX is not a setting and is ignored; did you mean REVERSAL_BACKOFF_MAX?";
    assert!(error.ends_with(warning), "{error}");
}

#[test]
fn the_environment_wins_over_the_file_and_an_empty_variable_counts_as_unset() {
    let toml = "reversal_max_retries = 7\nreversal_prefetch = 9\nreversal_worker_enabled = false";
    let variables = [("REVERSAL_MAX_RETRIES", "8"), ("REVERSAL_PREFETCH", ""), ("API_TOKEN", "")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::from_parts(Some(toml), variables).unwrap();
    assert_eq!(config.reversal.max_retries, 8);
    assert_eq!(config.reversal.prefetch, 9);
    assert!(!config.reversal.worker_enabled);
    assert!(config.api_token.is_none());
}

#[test]
fn unknown_keys_of_the_file_are_refused_by_name_together_with_bad_values() {
    let error = from_file("reversal_retries = 5\nHTTP_ADDR = \"x\"\nstripe_max_rps = \"many\"\n[reversal]\na = 1");
    let expected = ["HTTP_ADDR", "reversal", "reversal_retries"];
    assert_eq!(refused(error.clone()), expected, "an unusable file is not read further");
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("HTTP_ADDR in the configuration file is not a setting; did you mean http_addr?")
    );
    assert_eq!(
        refused(from_file("stripe_max_rps = \"many\"\nhttp_addr = [1]")),
        ["http_addr (in the file)", "stripe_max_rps (in the file)"]
    );
}

#[test]
fn a_list_where_a_secret_belongs_is_refused_and_not_taken_for_unset() {
    assert_eq!(refused(from_file("api_token = [\"a\"]")), ["api_token (in the file)"]);
}

#[test]
fn a_file_that_is_no_toml_is_refused_by_its_place_without_quoting_it() {
    let error = from_file("http_addr = \"127.0.0.1:1\"\nstripe_api_key = \"sk_live_hush").unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
    assert!(!error.contains("hush"), "{error}");
}

#[test]
fn the_reading_token_must_differ_from_the_one_that_may_write() {
    assert_eq!(refused(from_env(&[("API_TOKEN", "same"), ("API_READ_TOKEN", "same")])), ["API_READ_TOKEN"]);
}

#[test]
fn keys_that_stripe_takes_for_no_account_are_refused_and_not_shown() {
    for (key, kind) in
        [("pk_live_hush", "(got a publishable key, pk_…)"), ("sk_org_hush", "(got an organization key, sk_org_…)")]
    {
        let error = from_env(&[("STRIPE_API_KEY", key)]).unwrap_err();
        let [problem] = error.problems() else { panic!("{error}") };
        assert!(problem.setting == "STRIPE_API_KEY" && problem.problem.contains(kind), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}

const PRODUCTION: [(&str, &str); 6] = [
    ("APP_ENV", "production"),
    ("DATABASE_URL", "postgres://clawback:x@db/clawback?sslmode=require"),
    ("AMQP_URL", "amqps://clawback:x@broker/clawback"),
    ("STRIPE_API_KEY", "sk_live_x"),
    ("STRIPE_WEBHOOK_SECRET", "whsec_x"),
    ("API_TOKEN", TOKEN),
];
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The production settings with some of them replaced; an empty value unsets.
fn production(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
    from_env(&[&PRODUCTION[..], changes].concat())
}

#[test]
fn production_starts_when_everything_is_as_it_should_be() {
    assert_eq!(production(&[]).unwrap().app_env, AppEnv::Production);
}

#[test]
fn production_with_only_the_defaults_says_everything_that_is_missing_or_unsafe() {
    let error = from_env(&[("APP_ENV", "production"), ("STRIPE_API_BASE", "http://stripe-sim:12111")]);
    let expected =
        ["DATABASE_URL", "AMQP_URL", "STRIPE_API_BASE", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "API_TOKEN"];
    assert_eq!(refused(error), expected);
}

#[test]
fn every_secret_of_the_template_is_one_that_production_knows_and_refuses() {
    let template = include_str!("../../.env.template");
    let secrets: Vec<(&str, &str)> = template
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| ["_SECRET", "_KEY", "_TOKEN", "_PASSWORD"].iter().any(|end| name.ends_with(end)))
        .collect();
    assert!(secrets.len() >= 5, "{secrets:?}");
    for (name, value) in secrets {
        let marked = super::checks::TEMPLATE_MARKS.iter().any(|mark| value.contains(mark));
        assert!(marked, "{name} in .env.template contains no mark that production refuses");
    }
}

#[test]
fn production_refuses_each_unsafe_setting_by_itself_and_says_why() {
    let plain = "an unencrypted connection to another host); on a private network, set ALLOW_PLAINTEXT=true";
    let unsafe_settings = [
        ("DATABASE_URL", "sqlite::memory:", "must be postgres://… in production (got SQLite)"),
        ("DATABASE_URL", "postgres://u:compose-trial-x@127.0.0.1/clawback", "the one from .env.template"),
        ("DATABASE_URL", "postgres://u:p@db/clawback", plain),
        ("DATABASE_URL", "postgres://u:p@db/clawback?sslmode=disable", plain),
        ("DATABASE_URL", "postgres://u:p@db/clawback?sslmode=allow", plain),
        ("DATABASE_URL", "postgres://u:p@db/clawback?ssl-mode=prefer", plain),
        ("DATABASE_URL", "postgres://u:p@127.0.0.1/clawback?host=db", plain),
        ("AMQP_URL", "amqps://guest:other@broker", "the broker's guest credentials"),
        ("AMQP_URL", "amqps://other:guest@broker", "the broker's guest credentials"),
        ("AMQP_URL", "amqps://broker", "the broker's guest credentials"),
        ("AMQP_URL", "amqps://clawback:compose-trial-x@broker", "the one from .env.template"),
        ("AMQP_URL", "amqp://u:p@broker", plain),
        ("STRIPE_API_BASE", "http://api.stripe.com", plain),
        ("STRIPE_API_KEY", "", "must be set in production (got nothing)"),
        ("STRIPE_API_KEY", "sk_test_1", "must be a live secret in production (got a test secret, sk_test_…)"),
        ("STRIPE_API_KEY", "rk_test_1", "test secret"),
        ("STRIPE_WEBHOOK_SECRET", "", "must be set"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_1,whsec_test_1", "test secret"),
        ("HYPERSWITCH_WEBHOOK_SECRET", "compose-trial-x", "the one from .env.template"),
        ("API_TOKEN", "", "must be set"),
        ("API_TOKEN", "x", "32 characters per token in production (got 1); make one with: openssl rand -hex 32"),
        ("API_TOKEN", &format!("{TOKEN},{}", &TOKEN[1..]), "(got 31)"),
        ("API_TOKEN", "compose-trial-token-000000000000", "the one from .env.template); make one with: openssl"),
        ("API_READ_TOKEN", "x", "(got 1)"),
    ];
    for (name, value, why) in unsafe_settings {
        let Err(error) = production(&[(name, value)]) else { panic!("{name}={value} is accepted") };
        let [problem] = error.problems() else { panic!("{name}: {error}") };
        assert!(problem.setting == name && problem.problem.contains(why), "{error}");
    }
}

#[test]
fn unencrypted_connections_of_production_stay_on_this_machine_unless_they_are_allowed() {
    for (name, url) in [
        ("DATABASE_URL", "postgres://u:p@127.0.0.1/clawback"),
        ("DATABASE_URL", "postgres://u:p@[::1]/clawback?sslmode=prefer"),
        ("DATABASE_URL", "postgres://u:p@%2Fvar%2Frun%2Fpostgresql/clawback"),
        ("DATABASE_URL", "postgres://u:p@db/clawback?host=/var/run/postgresql"),
        ("DATABASE_URL", "postgres://u:p@db/clawback?sslmode=verify-full"),
        ("AMQP_URL", "amqp://u:p@localhost:5672/v"),
        ("AMQP_URL", "amqp://u:p@[::1]"),
        ("STRIPE_API_BASE", "http://127.1.2.3:12111"),
        ("RABBITMQ_MANAGEMENT_URL", "http://localhost:15672"),
        ("RABBITMQ_MANAGEMENT_URL", "https://broker:15671"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1]:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
    ] {
        production(&[(name, url)]).unwrap_or_else(|error| panic!("{url}: {error}"));
    }
    let plain = [
        ("DATABASE_URL", "postgres://u:p@db/clawback"),
        ("AMQP_URL", "amqp://u:p@broker"),
        ("RABBITMQ_MANAGEMENT_URL", "http://u:p@broker:15672"),
        ("STRIPE_API_BASE", "http://stripe-sim:12111"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
    ];
    assert_eq!(refused(production(&plain)), plain.map(|(name, _)| name));
    production(&[&plain[..], &[("ALLOW_PLAINTEXT", "true")]].concat()).unwrap();
}

#[test]
fn events_are_told_with_a_secret_that_can_sign_or_not_at_all() {
    let url = ("EVENTS_URL", "https://shop.example/clawback");
    assert_eq!(refused(from_env(&[url])), ["EVENTS_SECRET"]);
    from_env(&[url, ("EVENTS_SECRET", SIGNING)]).unwrap();
    for bad in ["whsec_short", "whsec_", "hush", &format!("{SIGNING},whsec_short"), "whsec_hush hush"] {
        let error = from_env(&[("EVENTS_SECRET", bad)]).unwrap_err();
        let [problem] = error.problems() else { panic!("{error}") };
        assert!(problem.setting == "EVENTS_SECRET" && problem.problem.starts_with("must be whsec_ and"), "{error}");
    }
}

#[test]
fn production_asks_each_part_for_its_own_secrets_only() {
    use super::{Part, Sources};
    let unset = ["STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "API_TOKEN"];
    let given = PRODUCTION.iter().filter(|(name, _)| !unset.contains(name));
    let environment: Vec<_> = given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let missing = |parts: &[Part]| {
        let (environment, unknown_variables, problems) = (environment.clone(), Vec::new(), Vec::new());
        let sources = Sources { file: None, toml: None, environment, unknown_variables, problems };
        sources.read(parts).map(|_| Vec::new()).unwrap_or_else(|error| refused(Err(error)))
    };
    assert_eq!(missing(&[]), [""; 0]);
    // What migrates has no use for a broker.
    let needed = |(name, _): &&(String, String)| ["APP_ENV", "DATABASE_URL"].contains(&name.as_str());
    let migrates = environment.iter().filter(needed).cloned().collect();
    let (unknown_variables, problems) = (Vec::new(), Vec::new());
    Sources { file: None, toml: None, environment: migrates, unknown_variables, problems }.read(&[]).unwrap();
    assert_eq!(missing(&[Part::Worker]), unset[..1]);
    assert_eq!(missing(&[Part::Server]), unset[1..]);
    assert_eq!(missing(&[Part::Server, Part::Worker]), unset);
}

#[test]
fn production_reports_unsafe_settings_together_with_bad_values() {
    let error = production(&[("HTTP_ADDR", "x"), ("STRIPE_API_KEY", "sk_test_1")]);
    assert_eq!(refused(error), ["HTTP_ADDR", "STRIPE_API_KEY"]);
}

proptest! {
    #[test]
    fn no_error_shows_a_secret_whatever_is_wrong_with_it(
        setting in prop::sample::select(secrets()),
        also_production in any::<bool>(),
        before in "[ -~]{0,8}",
        after in "[ -~\n]{0,8}",
        in_the_file in any::<bool>(),
    ) {
        let value = format!("{before}hush{after}");
        let app_env = if also_production { "production" } else { "development" };
        let result = if in_the_file {
            let toml = format!("app_env = {app_env:?}\n{} = {value:?}", setting.to_lowercase());
            from_file(&toml)
        } else {
            from_env(&[("APP_ENV", app_env), (setting, &value)])
        };
        if let Err(error) = result {
            let shown = format!("{error} {error:?}");
            prop_assert!(!shown.contains("hush"), "{shown}");
        }
    }
}

#[test]
fn the_files_that_list_the_settings_follow_the_table() {
    let defaults = include_str!("../../config/default.toml");
    assert_eq!(defaults, as_toml(), "write it anew: clawback config --defaults >config/default.toml");
    let compose = include_str!("../../docker-compose.yml");
    let template = include_str!("../../.env.template");
    for setting in SETTINGS {
        let name = setting.name;
        assert!(compose.contains(&format!("    {name}:")), "docker-compose.yml and {name}");
        let lines: Vec<&str> =
            template.lines().filter(|line| line.trim_start_matches('#').starts_with(&format!("{name}="))).collect();
        assert_eq!(lines.len(), 1, ".env.template and {name}");
        let shown = lines.iter().filter_map(|line| line.strip_prefix(&format!("#{name}=")));
        shown.for_each(|value| assert!(value == setting.default || name == "WORKER_HTTP_ADDR", "{name}={value}"));
        let accepted = setting.default.is_empty() || setting.kind.accepts(setting.default);
        assert!(accepted && !setting.help.is_empty(), "{name}");
    }
}

#[test]
fn prometheus_scrapes_with_one_of_the_tokens_of_the_template() {
    let template = include_str!("../../.env.template");
    let value = |name: &str| template.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap();
    assert!(value("API_READ_TOKEN").split(',').any(|token| token == value("METRICS_TOKEN")));
    let compose = include_str!("../../docker-compose.yml");
    assert!(compose.contains("\n  metrics-token: { environment: METRICS_TOKEN }"), "API_READ_TOKEN may be a list");
}

#[test]
fn every_service_of_the_compose_stack_is_hardened_and_limited() {
    let compose = include_str!("../../docker-compose.yml");
    let (_, services) = compose.split_once("\nservices:\n").unwrap();
    let (services, _) = services.split_once("\nsecrets:\n").unwrap();
    let mut names = Vec::new();
    for service in services.split("\n\n") {
        let name = service.trim_start().split(':').next().unwrap();
        names.push(name);
        let anchor = ["*hardened", "*becomes-its-user", "*clawback"].map(|anchor| format!("    <<: {anchor}\n"));
        assert!(anchor.iter().any(|anchor| service.contains(anchor)), "{name}: {service}");
        assert!(service.contains("    mem_limit: ") || service.contains(&anchor[2]), "{name}: {service}");
    }
    assert_eq!(names, ["rabbitmq", "postgres", "migrate", "serve", "worker", "prometheus", "grafana"]);
}

#[test]
fn each_choice_of_a_setting_can_be_read() {
    for setting in SETTINGS {
        let Kind::Choice(choices) = setting.kind else { continue };
        for choice in choices {
            production(&[(setting.name, choice)]).unwrap_or_else(|error| panic!("{choice}: {error}"));
        }
    }
}

#[test]
fn the_template_as_it_is_makes_a_configuration_of_all_its_settings() {
    let template = include_str!("../../.env.template");
    let lines = template.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    let given: Vec<(String, String)> = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // Compose fills in what the template takes from itself.
    let filled = given.iter().map(|(name, value)| {
        let value =
            given.iter().fold(value.clone(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
        (name.clone(), value)
    });
    let config = Config::from_parts(None, filled.collect::<Vec<_>>()).unwrap();
    assert_eq!(config.app_env, AppEnv::Development);
    assert!(config.stripe.api_key.is_some() && config.stripe.webhook_secret.is_some() && config.api_token.is_some());
    assert_eq!(config.stripe.api_base.as_str(), "http://stripe-sim:12111/");
}
