//! Where the lines come from: a file or stdin, as CSV or JSON lines. A thread of its own reads them ahead, as the bounded
//! channel allows, so that memory does not grow with the file.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{BufReader, Read, Seek, Write, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::csv::{Csv, Rows};
use super::item::Item;
use super::json_lines::JsonLines;

/// Items that are read ahead.
const AHEAD: usize = 64;
/// Of a CSV file: its payments are remembered at once, in some 20 to 80 MB.
const PART_BYTES: u64 = 256 * 1024 * 1024;

/// `--input`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Input {
    /// One transfer a row, with a header
    Csv,
    /// On each line what POST /v1/payments takes
    Jsonl,
}

/// The items of a file, or the error that ended it.
pub(super) struct Source {
    pub(super) items: mpsc::Receiver<Result<Item>>,
    /// In bytes, if it is known.
    pub(super) size: Option<u64>,
}

impl Source {
    /// Opens `path` (`-` is stdin), and looks at what must be right before anything is registered.
    pub(super) async fn open(path: PathBuf, said: Option<Input>, create_missing: bool) -> Result<Self> {
        let (sender, opened) = oneshot::channel();
        // A thread and not a blocking task: one that waits for stdin would keep the program from stopping.
        std::thread::spawn(move || sender.send(Self::open_now(&path, said, create_missing)));
        opened.await?
    }

    fn open_now(path: &Path, said: Option<Input>, create_missing: bool) -> Result<Self> {
        let is_stdin = path == Path::new("-");
        let input = match said.or_else(|| by_extension(path)) {
            Some(input) => input,
            None if is_stdin => bail!("the format of stdin is not known; say --input csv or --input jsonl"),
            None => bail!(
                "the format of {} is not known by its extension; say --input csv or --input jsonl",
                path.display()
            ),
        };
        let (file, size) = if is_stdin && input == Input::Csv {
            let file = spooled(stdin().lock()).context("stdin can't be read into a temporary file")?;
            let size = file.metadata()?.len();
            (Some(file), Some(size))
        } else if is_stdin {
            (None, None)
        } else {
            let file = File::open(path).with_context(|| format!("{} can't be opened", path.display()))?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                bail!("{} is not a regular file; give what comes out of it to stdin: -", path.display());
            }
            (Some(file), Some(metadata.len()))
        };
        let (sender, items) = mpsc::channel(AHEAD);
        match (input, file) {
            (Input::Csv, Some(file)) => {
                check_order(&file, size.unwrap_or_default().div_ceil(PART_BYTES).max(1))?;
                let mut payments = Csv::new(rows(&file)?, create_missing);
                read_ahead(sender, move || payments.next());
            }
            (_, Some(file)) => {
                let mut payments = JsonLines::new(BufReader::new(file), create_missing);
                read_ahead(sender, move || payments.next());
            }
            (_, None) => {
                let mut payments = JsonLines::new(BufReader::new(stdin()), create_missing);
                read_ahead(sender, move || payments.next());
            }
        }
        Ok(Self { items, size })
    }
}

fn by_extension(path: &Path) -> Option<Input> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(Input::Csv),
        "jsonl" | "ndjson" => Some(Input::Jsonl),
        _ => None,
    }
}

/// In a thread of its own, as above.
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

/// CSV is read more than once. The file has no name, and so it is gone with this process, however that ends.
fn spooled(mut input: impl Read) -> std::io::Result<File> {
    let path: PathBuf = std::env::temp_dir().join(format!("clawback-import-{}", Uuid::new_v4().simple()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    std::io::copy(&mut input, &mut file)?;
    file.flush()?;
    Ok(file)
}

fn rows(file: &File) -> Result<Rows<BufReader<File>>> {
    let mut again = file.try_clone()?;
    again.rewind()?;
    Rows::new(BufReader::with_capacity(256 * 1024, again))
}

/// Refuses a file in which the rows of a payment are not together: its first rows would be registered as the whole.
///
/// Payments are told apart by a hash of 64 bits under a key of its own for each run. The file is read `parts` times, for
/// another part of the payments each time.
fn check_order(file: &File, parts: u64) -> Result<()> {
    let keys = RandomState::new();
    for part in 0..parts {
        let mut seen = HashSet::new();
        let mut current = None;
        let mut rows = rows(file)?;
        while let Some(row) = rows.next()? {
            let Ok(row) = row else { continue };
            let hash = keys.hash_one(row.payment_ref());
            let is_new_group = current.replace(hash) != Some(hash);
            if is_new_group && hash % parts == part && !seen.insert(hash) {
                let (payment, line) = (row.payment_ref(), row.line);
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

    #[test]
    fn a_format_is_known_by_the_extension() {
        let known = |name: &str| by_extension(Path::new(name));
        assert_eq!((known("a.csv"), known("a.CSV")), (Some(Input::Csv), Some(Input::Csv)));
        assert_eq!((known("a.jsonl"), known("a.ndjson")), (Some(Input::Jsonl), Some(Input::Jsonl)));
        assert_eq!((known("a.json"), known("csv"), known("-")), (None, None, None));
    }
}
