//! What the value of each setting is and where it comes from, for people to read. Shows no secret, nor a part of one.

use std::path::PathBuf;

use serde::Serialize;
use url::Url;

use super::UnknownVariable;
use super::reader::Reader;
use super::settings::{Kind, SETTINGS, Setting};

/// The configuration as it counts.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The file that `CLAWBACK_CONFIG` names.
    pub file: Option<PathBuf>,
    /// Every setting.
    pub settings: Vec<EffectiveSetting>,
    /// Variables that may be misspelt settings.
    pub unknown_variables: Vec<UnknownVariable>,
}

/// One setting as it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveSetting {
    /// The environment variable's name; in a file it is the same in lower case.
    pub name: &'static str,
    /// Whether it has a value.
    pub set: bool,
    /// The value. Of a URL that may hold a secret no more than what says where it leads; of other secrets nothing.
    pub value: Option<String>,
    /// Whether the value is not shown, or not as a whole.
    pub secret: bool,
    /// Where the value comes from.
    pub source: SettingSource,
    /// The file that `X_FILE` names, if the value was read from one.
    pub read_from: Option<String>,
    /// What it is for.
    pub help: &'static str,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, strum::Display, PartialEq, Eq, Serialize)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum SettingSource {
    /// It is set nowhere.
    Default,
    /// The file that `CLAWBACK_CONFIG` names.
    File,
    /// An environment variable.
    Environment,
}

pub(super) fn settings(reader: &Reader) -> Vec<EffectiveSetting> {
    SETTINGS.iter().map(|setting| effective(reader, setting)).collect()
}

fn effective(reader: &Reader, setting: &Setting) -> EffectiveSetting {
    let text = reader.text(setting.name);
    let file_name = setting.file_name().unwrap_or_default();
    let read_from = reader.text(&file_name);
    EffectiveSetting {
        name: setting.name,
        set: text.is_some(),
        value: text.and_then(|text| shown(setting, text)),
        secret: setting.kind.is_secret(),
        source: reader.source(if read_from.is_some() { &file_name } else { setting.name }),
        read_from,
        help: setting.help,
    }
}

/// Scheme, host and port of a URL that may hold a secret, and the path where it names a database or a virtual host: others, like
/// those of chats, keep a token there. Nothing of another secret.
fn shown(setting: &Setting, text: String) -> Option<String> {
    let kind = setting.kind;
    match (kind, text.split_once(':')) {
        (Kind::SecretUrl(_), Some(("sqlite", rest))) => {
            let file = rest.split('?').next().unwrap_or_default();
            (!rest.contains('@')).then(|| format!("sqlite:{file}"))
        }
        (Kind::SecretUrl(_), Some((scheme, _))) => {
            let url = Url::parse(&text).ok()?;
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let path = if ["DATABASE_URL", "AMQP_URL"].contains(&setting.name) { url.path() } else { "" };
            Some(format!("{scheme}://{}{port}{path}", url.host_str().unwrap_or_default()))
        }
        _ => (!kind.is_secret()).then_some(text),
    }
}
