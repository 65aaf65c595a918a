//! What `APP_ENV=production` refuses: settings that are fine on a laptop and lose money or secrets elsewhere.
//!
//! Only `config` calls it. It looks at the texts of the settings, so that its findings come together with all others.

use url::Url;

use super::reader::{Reader, SECRETS};

/// How the secrets of Stripe's test mode begin, and those of the simulator.
const TEST_PREFIXES: [&str; 3] = ["sk_test_", "rk_test_", "whsec_test"];
/// Every secret and password in `.env.template` contains one of these.
pub(super) const TEMPLATE_MARKS: [&str; 2] = ["compose-trial", "compose_trial"];

/// Notes everything that production must not start with.
pub(super) fn check(reader: &mut Reader) {
    if reader.text("APP_ENV").as_deref() != Some("production") {
        return;
    }
    check_database(reader);
    check_broker(reader);
    if reader.text("STRIPE_API_BASE").is_some_and(|base| scheme_is(&base, "http")) {
        refuse(reader, "STRIPE_API_BASE", "is plain http, which shows the API key to the network; use https");
    }
    for name in ["STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "API_TOKEN"] {
        if reader.text(name).is_none() {
            refuse(reader, name, "is not set");
        }
    }
    for name in SECRETS {
        let Some(secret) = reader.text(name) else { continue };
        if let Some(prefix) = TEST_PREFIXES.iter().find(|prefix| secret.starts_with(*prefix)) {
            refuse(reader, name, &format!("is a test secret ({prefix}…)"));
        } else if TEMPLATE_MARKS.iter().any(|mark| secret.contains(mark)) {
            refuse(reader, name, "is the one from .env.template; make your own: openssl rand -hex 32");
        }
    }
}

fn check_database(reader: &mut Reader) {
    if reader.text("DATABASE_URL").is_some_and(|url| scheme_is(&url, "sqlite")) {
        refuse(reader, "DATABASE_URL", "is SQLite; use postgres://…");
    }
}

/// A URL without a user means `guest`, which AMQP clients fill in.
fn check_broker(reader: &mut Reader) {
    let Some(url) = reader.text("AMQP_URL").and_then(|url| Url::parse(&url).ok()) else { return };
    if ["", "guest"].contains(&url.username()) || url.password() == Some("guest") {
        refuse(reader, "AMQP_URL", "uses the broker's guest credentials; use a user of its own");
    }
}

fn scheme_is(url: &str, wanted: &str) -> bool {
    url.split_once(':').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case(wanted))
}

fn refuse(reader: &mut Reader, setting: &str, problem: &str) {
    reader.refuse(setting, format!("{problem} (refused because APP_ENV is production)"));
}
