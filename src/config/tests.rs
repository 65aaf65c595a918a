#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::time::Duration;

use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};

use super::{AppEnv, Config, ConfigError, LogFormat};

const MINUTE: Duration = Duration::from_secs(60);

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

fn exposed(secret: &Option<SecretString>) -> Option<&str> {
    secret.as_ref().map(ExposeSecret::expose_secret)
}

#[test]
fn without_any_source_every_setting_has_its_documented_default() {
    let config = from_env(&[]).unwrap();
    assert_eq!(config.database_url.expose_secret(), "sqlite://clawback.db?mode=rwc");
    assert_eq!(config.amqp_url.expose_secret(), "amqp://guest:guest@127.0.0.1:5672/%2f");
    assert_eq!(config.http_addr, ([127, 0, 0, 1], 8080).into());
    assert_eq!(config.stripe.api_base.as_str(), "https://api.stripe.com/");
    assert_eq!(config.stripe.max_rps, 20);
    let secrets = [
        &config.stripe.api_key,
        &config.stripe.webhook_secret,
        &config.hyperswitch_webhook_secret,
        &config.api_token,
        &config.api_read_token,
    ];
    assert!(secrets.iter().all(|secret| secret.is_none()));
    assert!(config.reversal.worker_enabled);
    assert_eq!(config.reversal.max_retries, 5);
    assert_eq!(config.reversal.check_interval, MINUTE);
    assert_eq!(config.reversal.backoff_base, MINUTE);
    assert_eq!(config.reversal.backoff_max, 60 * MINUTE);
    assert_eq!(config.reversal.balance_deadline, 30 * 24 * 60 * MINUTE);
    assert_eq!((config.reversal.prefetch, config.reversal.concurrency), (32, 16));
    assert!(config.transfer_retry.enabled);
    assert_eq!(config.transfer_retry.max_retries, 5);
    assert_eq!(config.transfer_retry.check_interval, MINUTE);
    assert_eq!(config.transfer_retry.backoff_base, MINUTE);
    assert_eq!(config.transfer_retry.backoff_max, 60 * MINUTE);
    assert_eq!(config.app_env, AppEnv::Development);
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.rust_log, "info");
    assert!(config.otlp_endpoint.is_none());
}

#[test]
fn the_documented_file_names_every_setting_once_set_or_commented_out() {
    let documented: Vec<String> = include_str!("../../config/default.toml")
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once(" = "))
        .map(|(key, _)| key.to_uppercase())
        .collect();
    let mut sorted = documented.clone();
    sorted.sort();
    let mut settings = super::reader::SETTINGS.to_vec();
    settings.sort_unstable();
    assert_eq!(sorted, settings);
}

#[test]
fn every_setting_is_read_from_its_variable_and_from_its_key() {
    // Each value differs from the default, so that a setting that nobody reads shows.
    let values = [
        ("DATABASE_URL", "postgres://u:p@db/clawback"),
        ("AMQP_URL", "amqps://u:p@broker/v"),
        ("HTTP_ADDR", "[::1]:9"),
        ("STRIPE_API_KEY", "sk_live_1"),
        ("WORKER_HTTP_ADDR", "[::1]:10"),
        ("STRIPE_API_BASE", "http://127.0.0.1:12111"),
        ("STRIPE_MAX_RPS", "7"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_1"),
        ("HYPERSWITCH_WEBHOOK_SECRET", "hyper"),
        ("API_TOKEN", "all"),
        ("API_READ_TOKEN", "read"),
        ("REVERSAL_WORKER_ENABLED", "false"),
        ("REVERSAL_MAX_RETRIES", "6"),
        ("REVERSAL_CHECK_INTERVAL", "2s"),
        ("REVERSAL_BACKOFF_BASE", "1s"),
        ("REVERSAL_BACKOFF_MAX", "10s"),
        ("REVERSAL_BALANCE_DEADLINE", "1d"),
        ("REVERSAL_PREFETCH", "8"),
        ("REVERSAL_CONCURRENCY", "9"),
        ("TRANSFER_RETRY_ENABLED", "false"),
        ("TRANSFER_RETRY_MAX_RETRIES", "0"),
        ("TRANSFER_RETRY_CHECK_INTERVAL", "3s"),
        ("TRANSFER_RETRY_BACKOFF_BASE", "4s"),
        ("TRANSFER_RETRY_BACKOFF_MAX", "5s"),
        ("APP_ENV", "development"),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "debug,clawback=trace"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
    ];
    let toml: String = values.iter().map(|(name, value)| format!("{} = {value:?}\n", name.to_lowercase())).collect();
    for config in [from_env(&values).unwrap(), from_file(&toml).unwrap()] {
        assert_eq!(config.database_url.expose_secret(), "postgres://u:p@db/clawback");
        assert_eq!(config.amqp_url.expose_secret(), "amqps://u:p@broker/v");
        assert_eq!(config.http_addr.to_string(), "[::1]:9");
        assert_eq!(config.worker_http_addr.unwrap().to_string(), "[::1]:10");
        assert_eq!(exposed(&config.stripe.api_key), Some("sk_live_1"));
        assert_eq!(config.stripe.api_base.as_str(), "http://127.0.0.1:12111/");
        assert_eq!(config.stripe.max_rps, 7);
        assert_eq!(exposed(&config.stripe.webhook_secret), Some("whsec_1"));
        assert_eq!(exposed(&config.hyperswitch_webhook_secret), Some("hyper"));
        assert_eq!((exposed(&config.api_token), exposed(&config.api_read_token)), (Some("all"), Some("read")));
        let reversal = &config.reversal;
        assert_eq!((reversal.worker_enabled, reversal.max_retries), (false, 6));
        assert_eq!((reversal.prefetch, reversal.concurrency), (8, 9));
        let durations =
            [reversal.check_interval, reversal.backoff_base, reversal.backoff_max, reversal.balance_deadline];
        assert_eq!(durations.map(|duration| duration.as_secs()), [2, 1, 10, 86_400]);
        let retry = &config.transfer_retry;
        assert_eq!((retry.enabled, retry.max_retries), (false, 0));
        let durations = [retry.check_interval, retry.backoff_base, retry.backoff_max];
        assert_eq!(durations.map(|duration| duration.as_secs()), [3, 4, 5]);
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.rust_log, "debug,clawback=trace");
        assert_eq!(config.otlp_endpoint.unwrap().as_str(), "http://127.0.0.1:4318/");
    }
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
fn unknown_variables_are_ignored_also_those_that_differ_only_in_case() {
    let config = from_env(&[("PATH", "/bin"), ("a.b[0", "x"), ("", "x"), ("http_addr", "nonsense")]).unwrap();
    assert_eq!(config.http_addr.port(), 8080);
}

#[test]
fn every_bad_value_is_reported_at_once_with_its_name_the_value_and_what_is_allowed() {
    let error = from_env(&[
        ("HTTP_ADDR", "localhost"),
        ("STRIPE_API_BASE", "ftp://stripe"),
        ("STRIPE_MAX_RPS", "0"),
        ("REVERSAL_WORKER_ENABLED", "yes"),
        ("REVERSAL_MAX_RETRIES", "-1"),
        ("REVERSAL_CHECK_INTERVAL", "60"),
        ("REVERSAL_BACKOFF_BASE", "0s"),
        ("REVERSAL_BALANCE_DEADLINE", "400d"),
        ("REVERSAL_PREFETCH", "70000"),
        ("APP_ENV", "prod"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "clawback=loud"),
    ])
    .unwrap_err();
    let expected = r#"the configuration cannot be used:
  HTTP_ADDR is "localhost"; allowed: an IP address and a port, like 127.0.0.1:8080
  STRIPE_API_BASE is "ftp://stripe"; allowed: a URL that starts with https:// or http://, without password, ? and #
  STRIPE_MAX_RPS is "0"; allowed: a whole number from 1 to 10000
  REVERSAL_WORKER_ENABLED is "yes"; allowed: true or false
  REVERSAL_MAX_RETRIES is "-1"; allowed: a whole number from 0 to 100
  REVERSAL_CHECK_INTERVAL is "60"; allowed: a duration from 1ms to 1d, like 90s, 1m or 30d
  REVERSAL_BACKOFF_BASE is "0s"; allowed: a duration from 1ms to 7d, like 90s, 1m or 30d
  REVERSAL_BALANCE_DEADLINE is "400d"; allowed: a duration from 1s to 365d, like 90s, 1m or 30d
  REVERSAL_PREFETCH is "70000"; allowed: a whole number from 1 to 2000
  APP_ENV is "prod"; allowed: development or production
  LOG_FORMAT is "xml"; allowed: text or json
  RUST_LOG is "clawback=loud"; allowed: directives like info or info,clawback=debug"#;
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_longest_delay_below_the_first_one_is_refused() {
    let error = from_env(&[("REVERSAL_BACKOFF_BASE", "10s"), ("REVERSAL_BACKOFF_MAX", "9s")]).unwrap_err();
    assert_eq!(error.problems()[0].setting, "REVERSAL_BACKOFF_MAX");
    assert_eq!(error.problems()[0].problem, "is 9s; allowed: REVERSAL_BACKOFF_BASE (10s) or longer");
    from_env(&[("REVERSAL_BACKOFF_BASE", "10s"), ("REVERSAL_BACKOFF_MAX", "10s")]).unwrap();
}

#[test]
fn unknown_keys_of_the_file_are_refused_by_name_together_with_bad_values() {
    let error = from_file("reversal_retries = 5\nHTTP_ADDR = \"x\"\nstripe_max_rps = \"many\"\n[reversal]\na = 1");
    let expected = ["HTTP_ADDR", "reversal", "reversal_retries"];
    assert_eq!(refused(error.clone()), expected, "an unusable file is not read further");
    assert!(error.unwrap_err().to_string().contains("write it in lower case: http_addr"));
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
fn a_publishable_key_is_refused() {
    assert_eq!(refused(from_env(&[("STRIPE_API_KEY", "pk_live_1")])), ["STRIPE_API_KEY"]);
}

const PRODUCTION: [(&str, &str); 6] = [
    ("APP_ENV", "production"),
    ("DATABASE_URL", "postgres://clawback:x@db/clawback"),
    ("AMQP_URL", "amqps://clawback:x@broker/clawback"),
    ("STRIPE_API_KEY", "sk_live_x"),
    ("STRIPE_WEBHOOK_SECRET", "whsec_x"),
    ("API_TOKEN", "x"),
];

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
fn production_refuses_each_unsafe_setting_by_itself() {
    let unsafe_settings = [
        ("DATABASE_URL", "sqlite::memory:"),
        ("DATABASE_URL", "postgres://clawback:compose-trial-x@db/clawback"),
        ("AMQP_URL", "amqp://guest:other@broker"),
        ("AMQP_URL", "amqp://other:guest@broker"),
        ("AMQP_URL", "amqp://broker"),
        ("AMQP_URL", "amqp://clawback:compose-trial-x@broker"),
        ("STRIPE_API_BASE", "http://api.stripe.com"),
        ("STRIPE_API_KEY", ""),
        ("STRIPE_API_KEY", "sk_test_1"),
        ("STRIPE_API_KEY", "rk_test_1"),
        ("STRIPE_WEBHOOK_SECRET", ""),
        ("STRIPE_WEBHOOK_SECRET", "whsec_test_1"),
        ("HYPERSWITCH_WEBHOOK_SECRET", "compose-trial-x"),
        ("API_TOKEN", ""),
        ("API_TOKEN", "compose-trial-token"),
        ("API_READ_TOKEN", "compose-trial-x"),
    ];
    for setting in unsafe_settings {
        assert_eq!(refused(production(&[setting])), [setting.0], "{setting:?}");
    }
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
        let marked = super::production::TEMPLATE_MARKS.iter().any(|mark| value.contains(mark));
        assert!(marked, "{name} in .env.template contains no mark that production refuses");
    }
}

#[test]
fn production_reports_unsafe_settings_together_with_bad_values() {
    let error = production(&[("HTTP_ADDR", "x"), ("STRIPE_API_KEY", "sk_test_1")]);
    assert_eq!(refused(error), ["HTTP_ADDR", "STRIPE_API_KEY"]);
}

#[test]
fn debug_shows_no_secret_and_no_password() {
    let config = from_env(&[
        ("DATABASE_URL", "postgres://u:hush@db/clawback"),
        ("AMQP_URL", "amqp://u:hush@broker"),
        ("STRIPE_API_KEY", "sk_hush"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_hush"),
        ("HYPERSWITCH_WEBHOOK_SECRET", "hush"),
        ("API_TOKEN", "hush1"),
        ("API_READ_TOKEN", "hush2"),
    ])
    .unwrap();
    let shown = format!("{config:?} {config:#?}");
    assert!(shown.contains("127.0.0.1:8080") && !shown.contains("hush"), "{shown}");
}

proptest! {
    #[test]
    fn no_error_shows_a_secret_whatever_is_wrong_with_it(
        setting in prop::sample::select(&super::reader::SECRETS[..]),
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

/// For each setting a value that it can't have.
const BAD: [(&str, &str); 28] = [
    ("DATABASE_URL", "mysql://u:hush@db/clawback"),
    ("AMQP_URL", "http://u:hush@broker"),
    ("HTTP_ADDR", "8080"),
    ("WORKER_HTTP_ADDR", "9090"),
    ("STRIPE_API_KEY", "sk live hush"),
    ("STRIPE_API_BASE", "api.stripe.com"),
    ("STRIPE_MAX_RPS", "10001"),
    ("STRIPE_WEBHOOK_SECRET", "whsec hush"),
    ("HYPERSWITCH_WEBHOOK_SECRET", "hush\n"),
    ("API_TOKEN", "hush hush"),
    ("API_READ_TOKEN", "hush\u{e9}"),
    ("REVERSAL_WORKER_ENABLED", "on"),
    ("REVERSAL_MAX_RETRIES", "101"),
    ("REVERSAL_CHECK_INTERVAL", "25h"),
    ("REVERSAL_BACKOFF_BASE", "8d"),
    ("REVERSAL_BACKOFF_MAX", "1"),
    ("REVERSAL_BALANCE_DEADLINE", "999ms"),
    ("REVERSAL_PREFETCH", "0"),
    ("REVERSAL_CONCURRENCY", "2001"),
    ("TRANSFER_RETRY_ENABLED", "1"),
    ("TRANSFER_RETRY_MAX_RETRIES", "five"),
    ("TRANSFER_RETRY_CHECK_INTERVAL", "0s"),
    ("TRANSFER_RETRY_BACKOFF_BASE", "soon"),
    ("TRANSFER_RETRY_BACKOFF_MAX", "8d"),
    ("APP_ENV", "Production"),
    ("LOG_FORMAT", "JSON"),
    ("RUST_LOG", "info,clawback=loud"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318"),
];

#[test]
fn a_bad_value_of_any_setting_is_refused_by_name_with_the_value_unless_secret_and_with_what_is_allowed() {
    let mut names = BAD.map(|(name, _)| name);
    let mut settings = super::reader::SETTINGS;
    names.sort_unstable();
    settings.sort_unstable();
    assert_eq!(names, settings);
    for (name, value) in BAD {
        let toml = format!("{} = {value:?}", name.to_lowercase());
        for error in [from_env(&[(name, value)]).unwrap_err(), from_file(&toml).unwrap_err()] {
            let [problem] = error.problems() else { panic!("{name}: {error}") };
            assert!(problem.setting == name || problem.setting == format!("{} (in the file)", name.to_lowercase()));
            assert!(problem.problem.contains("allowed: "), "{error}");
            let shown = problem.problem.contains(&format!("{value:?}"));
            assert_eq!(shown, !super::reader::SECRETS.contains(&name), "{error}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}

#[test]
fn each_refusal_of_production_says_what_is_wrong_and_that_production_is_why() {
    let reasons = [
        (("DATABASE_URL", "sqlite::memory:"), "is SQLite; use postgres://…"),
        (("AMQP_URL", "amqp://guest:guest@broker"), "uses the broker's guest credentials; use a user of its own"),
        (("STRIPE_API_BASE", "http://api.stripe.com"), "is plain http, which shows the API key to the network"),
        (("STRIPE_API_KEY", ""), "is not set"),
        (("STRIPE_API_KEY", "rk_test_1"), "is a test secret (rk_test_…)"),
        (("STRIPE_WEBHOOK_SECRET", ""), "is not set"),
        (("STRIPE_WEBHOOK_SECRET", "whsec_test_1"), "is a test secret (whsec_test…)"),
        (("API_TOKEN", ""), "is not set"),
        (("API_TOKEN", "compose-trial-token"), "is the one from .env.template; make your own: openssl rand -hex 32"),
    ];
    for (setting, reason) in reasons {
        let error = production(&[setting]).unwrap_err().to_string();
        assert!(error.contains(&format!("\n  {} {reason}", setting.0)), "{error}");
        assert!(error.ends_with("(refused because APP_ENV is production)"), "{error}");
    }
}

#[test]
fn every_secret_that_the_settings_table_shows_is_masked() {
    let secrets = [("DATABASE_URL", "postgres://ann:hush@db/clawback"), ("AMQP_URL", "amqp://ann:hush@broker/jobs")];
    let others = super::reader::SECRETS.iter().filter(|name| !name.ends_with("_URL")).enumerate();
    let others = others.map(|(number, name)| ((*name).to_owned(), format!("hush{number}")));
    let environment = secrets.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).chain(others);
    let mut reader = super::reader::Reader::new();
    reader.layer(None, environment);
    let settings = super::effective::settings(&reader);
    let secret: Vec<_> = settings.iter().filter(|setting| setting.secret).collect();
    assert_eq!(secret.len(), super::reader::SECRETS.len());
    assert!(secret.iter().all(|setting| setting.set), "{secret:?}");
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hush") && !shown.contains("ann:"), "{shown}");
}

#[test]
fn compose_passes_on_every_setting_and_the_template_names_each() {
    let compose = include_str!("../../docker-compose.yml");
    let template = include_str!("../../.env.template");
    for setting in super::reader::SETTINGS {
        assert!(compose.contains(&format!("    - {setting}\n")), "docker-compose.yml does not pass on {setting}");
        let named = template.lines().any(|line| line.trim_start_matches('#').starts_with(&format!("{setting}=")));
        assert!(named, ".env.template does not name {setting}");
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
