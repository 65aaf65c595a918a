//! `clawback config`: what every setting is, and where that comes from.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::output::{Format, WIDTH, json};
use super::terminal::print;
use crate::config::{Config, Effective, EffectiveSetting, UnknownVariable};

#[derive(Debug, Args)]
#[command(
    after_help = "A setting comes from its environment variable, or else from the TOML file that CLAWBACK_CONFIG \
                        names (the same name in lower case), or else is the default. For each secret and URL X, \
                        X_FILE can name a file with the value instead. Secrets are never shown, and of URLs with a \
                        password only scheme, host and path.\n\n\
                        A configuration that can't be used is explained as at the start, problem by problem.\n\n\
                        --format json: {\"file\", \"settings\": [{\"name\", \"set\", \"value\", \"secret\", \
                        \"source\": \"default\" | \"file\" | \"environment\", \"read_from\", \"help\"}], \
                        \"warnings\"}\n\n\
                        Examples:\n  \
                        clawback config\n  \
                        CLAWBACK_CONFIG=clawback.toml clawback config --format json\n  \
                        clawback config --defaults > clawback.toml\n\n\
                        Exit codes: 0 it can be used, 1 it can't, 2 wrong usage."
)]
pub(super) struct ShowConfig {
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Print a TOML file with every setting, its default and its meaning instead
    #[arg(long)]
    defaults: bool,
}

/// Names are only ever added.
#[derive(Serialize)]
struct Shown {
    file: Option<PathBuf>,
    settings: Vec<EffectiveSetting>,
    /// One text per variable that may be a misspelt setting.
    warnings: Vec<String>,
}

impl From<Effective> for Shown {
    fn from(Effective { file, settings, unknown_variables }: Effective) -> Self {
        Self { file, settings, warnings: unknown_variables.iter().map(UnknownVariable::to_string).collect() }
    }
}

impl ShowConfig {
    pub(super) fn execute(self) -> Result<()> {
        if self.defaults {
            return Ok(print(Config::defaults().as_bytes())?);
        }
        let effective = Config::effective()?;
        let mut out = Vec::new();
        match self.format {
            Format::Json => json(&mut out, &Shown::from(effective))?,
            Format::Table => show(&mut out, effective)?,
        }
        Ok(print(&out)?)
    }
}

fn show(out: &mut impl Write, Effective { file, settings, unknown_variables }: Effective) -> std::io::Result<()> {
    match file {
        Some(file) => writeln!(out, "File: {} (CLAWBACK_CONFIG)\n", file.display())?,
        None => writeln!(out, "File: none (CLAWBACK_CONFIG can name one)\n")?,
    }
    settings.into_iter().try_for_each(|setting| show_setting(out, setting))?;
    unknown_variables.iter().try_for_each(|unknown| writeln!(out, "\nwarning: {unknown}"))
}

fn show_setting(out: &mut impl Write, setting: EffectiveSetting) -> std::io::Result<()> {
    let EffectiveSetting { name, set, value, source, read_from, .. } = setting;
    let value = value.unwrap_or_else(|| if set { "(set, not shown)" } else { "(not set)" }.to_owned());
    let from = read_from.map(|path| format!(" (from {path})")).unwrap_or_default();
    let source = source.to_string();
    let line = format!("{name:<29}  {source:<11}  {value}{from}");
    if line.chars().count() <= usize::from(WIDTH) {
        writeln!(out, "{line}")
    } else {
        // In one piece, to be copied.
        writeln!(out, "{name:<29}  {source}\n  {value}{from}")
    }
}
