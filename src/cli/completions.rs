//! `clawback completions`: prints a shell's completion script. Needs no configuration.

use std::io::Write;

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::Cli;
use super::terminal::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        clawback completions bash > ~/.local/share/bash-completion/completions/clawback\n  \
                        clawback completions zsh  > ~/.zfunc/_clawback\n  \
                        clawback completions fish > ~/.config/fish/completions/clawback.fish")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(self) -> Result<()> {
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "clawback", &mut script);
        Ok(output().write_all(&script)?)
    }
}
