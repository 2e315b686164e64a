//! `quorate tsdb import-blocks`, `import-wal`, `import-openmetrics`: what another Prometheus has
//! stored, into a running cluster.
//!
//! One way: files of a data directory → series with their samples → [`send`]. Nothing is written
//! into the directory that is read, and no lock is taken. An import that was interrupted is run
//! again: what is stored already counts as stored. Exemplars and what was said of metrics are taken where
//! the log has them.
//!
//! In reading order: [`input`] is bytes with bounds; [`index`], [`chunk`] and [`block`] are blocks;
//! [`native`] gives histograms one form; [`log`], [`records`] and [`head`] what is in no block yet; [`openmetrics`] a file of text.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an outermost tool: it reads files that no node uses, and speaks as a client"
)]

mod block;
pub mod chunk;
#[cfg(fuzzing)]
pub mod fuzzed;
mod head;
mod index;
mod input;
#[cfg(any(test, fuzzing))]
mod laid_out;
mod log;
mod native;
mod openmetrics;
mod records;
mod send;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Uri;
use lexopt::{Arg, Parser, ValueExt};

use block::Block;
use head::Places;
use send::{Report, Sender, Target};

pub const HELP: &str = "\
usage: quorate tsdb import-blocks --from <data directory> [--no-head] [options]
       quorate tsdb import-wal --from <wal directory> [options]
       quorate tsdb import-openmetrics <file> [options]

Writes what a Prometheus has stored into a running cluster, without touching it: all blocks of a data
directory and then what is in no block yet (wal, wbl, chunks_head), or one log, or a file of
OpenMetrics with times. Native histograms are taken along, and of a log its exemplars and its metadata
(--enable-feature=exemplar-storage, metadata-wal-records); blocks have none. Stop the
Prometheus first, or copy its snapshot: files that change while they are read are told as damaged.

An import that was interrupted is run again: a sample that is stored already counts as stored.
Samples older than the cluster's retention are stored and soon dropped.

  --to <url>              a node, http://host:port; several times: the next one is tried when one
                          does not answer (default http://localhost:9090)
  --label <name=value>    set on every series; any number of times
  --user <name>           for HTTP basic authentication
  --password-file <file>
  --patience <seconds>    how long a request is tried (default 300)

Exit code 1 when anything was refused or could not be read.
";

/// Carries out one of the commands; what to print. Whatever was refused makes it an error.
pub fn run(words: &[String]) -> anyhow::Result<String> {
    let Some((command, rest)) = words.split_first() else {
        bail!("{HELP}");
    };
    let Some(options) = Options::parse(rest)? else {
        return Ok(HELP.to_owned());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(options.import(command))?;
    let text = report.text();
    match report.refused() {
        0 => Ok(text),
        _ => bail!("{text}"),
    }
}

struct Options {
    from: Option<PathBuf>,
    file: Option<PathBuf>,
    with_head: bool,
    target: Target,
}

impl Options {
    /// `None` when only the help is asked for.
    fn parse(words: &[String]) -> anyhow::Result<Option<Self>> {
        let mut options = Self {
            from: None,
            file: None,
            with_head: true,
            target: Target {
                nodes: Vec::new(),
                user: None,
                labels: Vec::new(),
                patience: Duration::from_secs(300),
            },
        };
        let (mut user, mut password) = (None, String::new());
        let mut parser = Parser::from_args(words);
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("from") => options.from = Some(parser.value()?.into()),
                Arg::Long("to") => options.target.nodes.push(node(&parser.value()?.string()?)?),
                Arg::Long("label") => {
                    let pair = parser.value()?.string()?;
                    let pair = pair.split_once('=').filter(|(name, _)| !name.is_empty());
                    let (name, value) = pair.context("--label is not name=value")?;
                    options
                        .target
                        .labels
                        .push((name.to_owned(), value.to_owned()));
                }
                Arg::Long("user") => user = Some(parser.value()?.string()?),
                Arg::Long("password-file") => {
                    let path = PathBuf::from(parser.value()?);
                    let text = std::fs::read_to_string(&path)
                        .with_context(|| format!("read {}", path.display()))?;
                    password = text.trim_end_matches(['\r', '\n']).to_owned();
                }
                Arg::Long("patience") => {
                    let seconds: u64 = parser.value()?.parse()?;
                    options.target.patience = Duration::from_secs(seconds);
                }
                Arg::Long("no-head") => options.with_head = false,
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                Arg::Value(file) if options.file.is_none() => options.file = Some(file.into()),
                other => bail!("{}\n\n{HELP}", other.unexpected()),
            }
        }
        options.target.user = user.map(|user| (user, password));
        if options.target.nodes.is_empty() {
            options.target.nodes.push(node("http://localhost:9090")?);
        }
        Ok(Some(options))
    }

    async fn import(self, command: &str) -> anyhow::Result<Report> {
        let mut sender = Sender::new(self.target);
        match (command, self.from, self.file) {
            ("import-blocks", Some(from), None) => {
                import_directory(&from, self.with_head, &mut sender).await?;
            }
            ("import-wal", Some(from), None) => {
                let places = Places {
                    wal: Some(from),
                    ..Places::default()
                };
                head::import(&places, i64::MIN, &mut sender).await?;
            }
            ("import-openmetrics", None, Some(file)) => {
                openmetrics::import(&file, &mut sender).await?;
            }
            _ => bail!("{command}: not these arguments\n\n{HELP}"),
        }
        sender.finish().await
    }
}

fn node(text: &str) -> anyhow::Result<Uri> {
    let uri: Uri = text
        .parse()
        .with_context(|| format!("--to {text:?} is not a URL"))?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some() => Ok(uri),
        _ => bail!("--to {text:?} is not http://host:port (there is no TLS in this tool)"),
    }
}

/// Blocks from the oldest on, then the head.
async fn import_directory(from: &Path, with_head: bool, sender: &mut Sender) -> anyhow::Result<()> {
    let blocks = block::find(from)?;
    let places = Places::of(from);
    if blocks.is_empty() && places.wal.is_none() {
        bail!("{}: neither blocks nor a log of Prometheus", from.display());
    }
    let count = blocks.len();
    let mut oldest = i64::MIN;
    for (place, (meta, path)) in blocks.into_iter().enumerate() {
        let mut block = Block::open(&path)?;
        while let Some((labels, samples)) = block.next()? {
            sender.push(&labels, samples).await?;
        }
        sender.flush().await?;
        sender.tell(&format!("block {} ({} of {count})", meta.ulid, place + 1));
        if !meta.is_of_late_samples() {
            oldest = oldest.max(meta.max_time);
        }
    }
    if with_head {
        head::import(&places, oldest, sender).await?;
        sender.flush().await?;
        sender.tell("head");
    }
    Ok(())
}
