//! Opens the input and reads it ahead of the import, in a thread of its own. The bounded channel bounds the memory.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Read, Seek, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::sync::{mpsc, oneshot};

use super::csv::{Csv, Rows};
use super::import::{Accept, SET};
use super::item::Item;
use super::json_lines::JsonLines;

/// Of a CSV file: the hashes of its payments are in memory together, some 20 to 80 MB.
const PART_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Input {
    /// One transfer a row, with a header
    Csv,
    /// Each line is a body of POST /v1/payments
    #[value(alias = "ndjson")]
    Jsonl,
}

pub(super) struct Source {
    pub(super) items: mpsc::Receiver<Result<Item>>,
    /// In bytes, if known.
    pub(super) size: Option<u64>,
}

impl Source {
    /// Opens `path` (`-` is stdin), and checks what must be right before anything is registered.
    pub(super) async fn open(path: PathBuf, input: Option<Input>, accept: Accept) -> Result<Self> {
        let (sender, opened) = oneshot::channel();
        // A thread and not a blocking task, which would keep the program from stopping while it waits for stdin.
        std::thread::spawn(move || sender.send(open(&path, input, accept)));
        opened.await?
    }
}

fn open(path: &Path, input: Option<Input>, accept: Accept) -> Result<Source> {
    let is_stdin = path == Path::new("-");
    let by_extension = || Input::from_str(path.extension()?.to_str()?, true).ok();
    let Some(input) = input.or_else(by_extension) else {
        let what = if is_stdin { "stdin".to_owned() } else { path.display().to_string() };
        bail!("the format of {what} is unknown; add --input csv or --input jsonl")
    };
    let file = match input {
        _ if !is_stdin => Some(regular_file(path)?),
        Input::Csv => Some(spooled(stdin().lock()).context("stdin can't be copied to a temporary file")?),
        Input::Jsonl => None,
    };
    let size = file.as_ref().map(File::metadata).transpose()?.map(|metadata| metadata.len());
    let (sender, items) = mpsc::channel(SET);
    match (input, file) {
        (Input::Csv, Some(file)) => {
            check_order(&file, size.unwrap_or_default().div_ceil(PART_BYTES).max(1))?;
            let mut payments = Csv::new(rows(&file)?, accept);
            read_ahead(sender, move || payments.next());
        }
        (_, file) => {
            let input: Box<dyn Read + Send> = file.map_or_else(|| Box::new(stdin()) as _, |file| Box::new(file) as _);
            let mut payments = JsonLines::new(BufReader::new(input), accept);
            read_ahead(sender, move || payments.next());
        }
    }
    Ok(Source { items, size })
}

fn regular_file(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| format!("{} can't be opened", path.display()))?;
    if !file.metadata()?.is_file() {
        bail!("{} is not a regular file; pipe its content to stdin: -", path.display());
    }
    Ok(file)
}

fn read_ahead(
    sender: mpsc::Sender<Result<Item>>,
    mut next: impl FnMut() -> std::io::Result<Option<Item>> + Send + 'static,
) {
    std::thread::spawn(move || {
        while let Some(item) = next().context("the input can't be read").transpose() {
            let failed = item.is_err();
            if sender.blocking_send(item).is_err() || failed {
                return;
            }
        }
    });
}

/// CSV is read more than once.
fn spooled(mut input: impl Read) -> std::io::Result<File> {
    let mut file = tempfile::tempfile()?;
    std::io::copy(&mut input, &mut file)?;
    Ok(file)
}

fn rows(file: &File) -> Result<Rows<impl BufRead + use<>>> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Rows::new(BufReader::with_capacity(256 * 1024, file))
}

/// Refuses a file in which a payment's rows are not together: the first of them would be registered as the whole.
///
/// Reads the file `parts` times, each time for another part of the payments, told apart by a keyed hash.
fn check_order(file: &File, parts: u64) -> Result<()> {
    let keys = RandomState::new();
    for part in 0..parts {
        let (mut seen, mut current) = (HashSet::new(), None);
        let mut rows = rows(file)?;
        while let Some(row) = rows.next()? {
            let Ok(row) = row else { continue };
            let hash = keys.hash_one(&row.payment_ref);
            let is_new_group = current.replace(hash) != Some(hash);
            if is_new_group && hash % parts == part && !seen.insert(hash) {
                let (line, payment) = (row.line, row.payment_ref);
                bail!(
                    "line {line}: the rows of payment {payment:.60} are not together; sort the file by payment_ref. \
                     Nothing was registered"
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_not_together_are_found_whichever_part_of_the_payments_they_are_in() {
        let row = |payment: usize| format!("pi_{payment},1,eur,s,tr,acct,1,eur\n");
        let header = super::super::csv::COLUMNS.join(",") + "\n";
        let together: String = (0..40).map(|n| row(n / 2)).collect();
        for parts in [1, 3] {
            let file = spooled(format!("{header}{together}").as_bytes()).unwrap();
            check_order(&file, parts).unwrap();
            for again in 0..19 {
                let file = spooled(format!("{header}{together}{}", row(again)).as_bytes()).unwrap();
                let error = check_order(&file, parts).unwrap_err().to_string();
                assert!(error.starts_with(&format!("line 42: the rows of payment pi_{again} are not")), "{error}");
            }
        }
    }
}
