//! Layers the sources over the defaults, and checks each setting against its kind.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use config::{Environment, File, FileFormat, FileSourceString, Source};
use secrecy::SecretString;

use super::effective::SettingSource;
use super::error::Problem;
use super::settings::{self, SETTINGS, Setting, has_several_hosts};
use super::unknown;

/// The sources, layered, and every problem found in them.
pub(super) struct Reader {
    layers: config::Config,
    /// The variables that are set.
    variables: HashMap<String, String>,
    /// The keys of the TOML file.
    keys: HashSet<String>,
    /// What was read from the file that an `X_FILE` names, by X.
    contents: HashMap<&'static str, String>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Finds every problem of a single setting. `problems` are those of the sources themselves.
    pub(super) fn new(toml: Option<&str>, environment: Vec<(String, String)>, problems: Vec<Problem>) -> Self {
        let known: HashSet<String> = settings::variables().collect();
        let mut variables: HashMap<String, String> =
            environment.into_iter().filter(|(name, _)| known.contains(name)).collect();
        variables.retain(|_, value| !value.is_empty());
        let (layers, keys, contents) = Default::default();
        let mut reader = Self { layers, variables, keys, contents, problems };
        let file = toml.and_then(|toml| reader.known_keys(toml));
        match reader.layered(file) {
            Ok(layers) => reader.layers = layers,
            Err(error) => reader.refuse("the configuration", format!("must be readable ({error})")),
        }
        for setting in SETTINGS {
            reader.read_file(setting);
            reader.check(setting);
        }
        reader
    }

    fn layered(&self, file: Option<File<FileSourceString, FileFormat>>) -> Result<config::Config, config::ConfigError> {
        let mut builder = config::Config::builder();
        for setting in SETTINGS {
            builder = builder.set_default(setting.key(), setting.default)?;
        }
        if let Some(file) = file {
            builder = builder.add_source(file);
        }
        builder.add_source(Environment::default().source(Some(self.variables.clone()))).build()
    }

    /// The TOML file as a source, unless it is no TOML or has an unknown key.
    fn known_keys(&mut self, toml: &str) -> Option<File<FileSourceString, FileFormat>> {
        let file = File::from_str(toml, FileFormat::Toml);
        match file.collect() {
            Ok(table) => self.keys = table.into_keys().collect(),
            Err(error) => {
                // The full text quotes the line, which may hold a secret.
                let text = error.to_string();
                let place = text.lines().next().unwrap_or_default();
                self.refuse("the configuration file", format!("must be TOML ({place})"));
                return None;
            }
        }
        let known: HashSet<String> = settings::variables().map(|name| name.to_lowercase()).collect();
        let mut unknown: Vec<String> = self.keys.iter().filter(|key| !known.contains(*key)).cloned().collect();
        unknown.sort();
        for key in &unknown {
            let advice = match unknown::nearest(key) {
                Some(name) => format!("; did you mean {}?", name.to_lowercase()),
                None => "; `clawback config --defaults` lists all keys, none of them in a [section]".to_owned(),
            };
            self.refuse(key, format!("in the configuration file is not a setting{advice}"));
        }
        unknown.is_empty().then_some(file)
    }

    /// Reads the file that `X_FILE` names, if it is set.
    fn read_file(&mut self, setting: &'static Setting) {
        let Some(name) = setting.file_name() else { return };
        let Some(path) = self.text(&name) else { return };
        if self.source(setting.name) != SettingSource::Default {
            let problem = format!("must not be set together with {}; remove one of them", setting.name);
            return self.refuse(&name, problem);
        }
        // Someone may have put the secret itself here.
        let shown =
            if path.starts_with(['/', '.']) { format!("{path:?}") } else { "a value not shown here".to_owned() };
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim_end_matches(['\r', '\n']).is_empty() => {
                self.refuse(&name, format!("must name a file with the value (got {shown}, which is empty)"));
            }
            Ok(text) => {
                self.contents.insert(setting.name, text.trim_end_matches(['\r', '\n']).to_owned());
            }
            Err(error) => self.refuse(&name, format!("must name a readable file (got {shown}: {error})")),
        }
    }

    /// The file that the setting's value was read from, if an `X_FILE` names it.
    pub(super) fn file_of(&self, name: &'static str) -> Option<PathBuf> {
        self.contents.get(name)?;
        self.text(&settings::setting(name)?.file_name()?).map(PathBuf::from)
    }

    fn check(&mut self, setting: &Setting) {
        let problem = match self.text(setting.name) {
            Some(text) if setting.kind.accepts(&text) => return,
            // A URL with an @ may carry a password, whichever setting it was put into.
            Some(text) if setting.kind.is_secret() || text.contains('@') => "a value not shown here".to_owned(),
            Some(text) => format!("{text:?}"),
            None if self.is_no_text(&setting.key()) => "a list or a table".to_owned(),
            None if setting.default.is_empty() => return,
            None => "nothing".to_owned(),
        };
        let place = match self.source(setting.name) {
            _ if self.contents.contains_key(setting.name) => format!("{0} (from {0}_FILE)", setting.name),
            SettingSource::File => format!("{} (in the file)", setting.key()),
            SettingSource::Environment | SettingSource::Default => setting.name.to_owned(),
        };
        self.refuse(&place, format!("must be {} (got {problem})", setting.kind.allowed()));
    }

    fn is_no_text(&self, key: &str) -> bool {
        self.layers.get::<config::Value>(key).is_ok_and(|value| value.into_string().is_err())
    }

    /// Notes that a setting can't be used. The text must not show a secret.
    pub(super) fn refuse(&mut self, setting: &str, problem: String) {
        self.problems.push(Problem { setting: setting.to_owned(), problem });
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The text of a setting, or of an `X_FILE`; `None` if it is unset or empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text = self.contents.get(name).cloned();
        text.or_else(|| self.layers.get_string(&name.to_lowercase()).ok()).filter(|text| !text.is_empty())
    }

    /// Where the value of a setting comes from.
    pub(super) fn source(&self, name: &str) -> SettingSource {
        if self.variables.contains_key(name) {
            SettingSource::Environment
        } else if self.keys.contains(&name.to_lowercase()) {
            SettingSource::File
        } else {
            SettingSource::Default
        }
    }

    /// A setting that may be unset; also `None` if it has a problem.
    pub(super) fn get<T: FromStr>(&self, name: &str) -> Option<T> {
        let text = self.text(name).filter(|text| settings::setting(name).is_some_and(|s| s.kind.accepts(text)))?;
        text.parse().ok()
    }

    /// A setting with a default.
    pub(super) fn require<T: FromStr>(&self, name: &'static str) -> Result<T, Problem> {
        self.get(name).ok_or_else(|| Problem { setting: name.to_owned(), problem: "has no usable value".to_owned() })
    }

    pub(super) fn duration(&self, name: &'static str) -> Result<Duration, Problem> {
        self.require::<humantime::Duration>(name).map(Into::into)
    }

    pub(super) fn time(&self, name: &str) -> Option<DateTime<Utc>> {
        settings::time(&self.get::<String>(name)?)
    }

    pub(super) fn secret(&self, name: &str) -> Option<SecretString> {
        self.get::<String>(name).map(Into::into)
    }

    /// The text of a URL for PostgreSQL, RabbitMQ or Stripe, if it names one host.
    pub(super) fn url(&self, name: &str) -> Option<url::Url> {
        let text = self.get::<String>(name).filter(|text| !has_several_hosts(text))?;
        text.parse().ok()
    }
}
