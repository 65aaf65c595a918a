//! What each setting's value is, and where it comes from, for people to read. Called by `clawback config` and
//! `clawback doctor`. It shows no secret, nor a part of one.

use std::fmt;

use serde::Serialize;
use url::Url;

use super::reader::{Reader, SECRETS, SETTINGS};

/// One setting as it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveSetting {
    /// The environment variable's name; in a file it is the same in lower case.
    pub name: &'static str,
    /// Whether it has a value.
    pub set: bool,
    /// The value. Of a URL that may hold a password only scheme, host and path; of other secrets nothing.
    pub value: Option<String>,
    /// Whether the value is not shown, or not as a whole.
    pub secret: bool,
    /// Who says so.
    pub source: SettingSource,
}

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingSource {
    /// Nobody said anything else.
    Default,
    /// The file that `CLAWBACK_CONFIG` names.
    File,
    /// An environment variable.
    Environment,
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
        })
    }
}

pub(super) fn settings(reader: &Reader) -> Vec<EffectiveSetting> {
    let setting = |name: &'static str| {
        let text = reader.text(name);
        let secret = SECRETS.contains(&name);
        let value = text.as_deref().and_then(|text| if secret { without_secrets(text) } else { Some(text.to_owned()) });
        EffectiveSetting { name, set: text.is_some(), value, secret, source: reader.source(name) }
    };
    SETTINGS.into_iter().map(setting).collect()
}

/// Scheme, host and path of a database's or broker's URL; nothing of any other text.
fn without_secrets(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once(':')?;
    match scheme {
        // No URL to the letter, and without a password: the path of a file.
        "sqlite" if !rest.contains('@') => Some(format!("sqlite:{}", rest.split('?').next().unwrap_or_default())),
        "postgres" | "postgresql" | "amqp" | "amqps" => {
            let url = Url::parse(text).ok()?;
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            Some(format!("{scheme}://{}{port}{}", url.host_str().unwrap_or_default(), url.path()))
        }
        _ => None,
    }
}
