//! `clawback config`: what every setting is, and where that comes from.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::output::{Format, WIDTH, json};
use super::terminal::print;
use crate::config::{Config, EffectiveSetting};

#[derive(Debug, Args)]
#[command(
    after_help = "A setting comes from its environment variable, or else from the TOML file that CLAWBACK_CONFIG \
                        names (the same name in lower case), or else is the default. Secrets are never shown, and of \
                        URLs with a password only scheme, host and path.\n\n\
                        A configuration that can't be used is explained as at the start, problem by problem.\n\n\
                        --format json: {\"file\", \"settings\": [{\"name\", \"set\", \"value\", \"secret\", \
                        \"source\": \"default\" | \"file\" | \"environment\"}]}\n\n\
                        Examples:\n  \
                        clawback config\n  \
                        CLAWBACK_CONFIG=clawback.toml clawback config --format json\n\n\
                        Exit codes: 0 it can be used, 1 it can't, 2 wrong usage."
)]
pub(super) struct ShowConfig {
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Names are only ever added.
#[derive(Serialize)]
struct Shown {
    file: Option<PathBuf>,
    settings: Vec<EffectiveSetting>,
}

impl ShowConfig {
    pub(super) fn execute(self) -> Result<()> {
        let (file, settings) = Config::effective()?;
        let mut out = Vec::new();
        match self.format {
            Format::Json => json(&mut out, &Shown { file, settings })?,
            Format::Table => show(&mut out, file, settings)?,
        }
        Ok(print(&out)?)
    }
}

fn show(out: &mut impl Write, file: Option<PathBuf>, settings: Vec<EffectiveSetting>) -> std::io::Result<()> {
    match file {
        Some(file) => writeln!(out, "File: {} (CLAWBACK_CONFIG)\n", file.display())?,
        None => writeln!(out, "File: none (CLAWBACK_CONFIG can name one)\n")?,
    }
    for EffectiveSetting { name, set, value, source, .. } in settings {
        let value = value.unwrap_or_else(|| if set { "(set, not shown)" } else { "(not set)" }.to_owned());
        let source = source.to_string();
        let line = format!("{name:<29}  {source:<11}  {value}");
        if line.chars().count() <= usize::from(WIDTH) {
            writeln!(out, "{line}")?;
        } else {
            // In one piece, to be copied.
            writeln!(out, "{name:<29}  {source}\n  {value}")?;
        }
    }
    Ok(())
}
