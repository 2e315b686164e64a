//! A file of OpenMetrics with times, as `promtool tsdb create-blocks-from openmetrics` takes it, of
//! any length: some thousand lines are in memory at a time.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail};
use ingest::textlines::{self, Options};
use model::Timestamp;
use proto::remote::{Label, Sample};

use super::chunk::Samples;
use super::send::Sender;

/// Lines parsed together.
const PIECE_BYTES: usize = 4 << 20;
const LINE_BYTES_MAX: usize = 1 << 20;
const END: &str = "# EOF";
/// Stands for no time: no sample can have it.
const NO_TIME: Timestamp = Timestamp::MIN;

/// Sends what the file says.
pub async fn import(path: &Path, sender: &mut Sender) -> anyhow::Result<()> {
    let attempt = || format!("read {}", path.display());
    let mut lines = BufReader::new(File::open(path).with_context(attempt)?);
    // The last line of a type: it holds for the samples behind it.
    let mut kind = String::new();
    let mut number = 0;
    loop {
        let first = number;
        let mut piece = kind.clone();
        let mut ended = false;
        while piece.len() < PIECE_BYTES && !ended {
            let line = take_line(&mut lines).with_context(attempt)?;
            if line.is_empty() {
                bail!("{}: no {END:?} as the last line", path.display());
            }
            number += 1;
            ended = line.trim_end() == END;
            if line.starts_with("# TYPE ") {
                kind.clone_from(&line);
            }
            piece += &line;
        }
        if ended && !take_line(&mut lines).with_context(attempt)?.is_empty() {
            bail!(
                "{}: line {}: something behind {END:?}",
                path.display(),
                number + 1
            );
        }
        if !ended {
            piece += END;
            piece.push('\n');
        }
        let sent = send(&piece, sender).await;
        sent.with_context(|| format!("{}: in lines {} to {number}", path.display(), first + 1))?;
        if ended {
            return Ok(());
        }
    }
}

/// With its end; empty at the end of the file.
fn take_line(lines: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    let mut bounded = std::io::Read::take(lines, LINE_BYTES_MAX as u64);
    bounded.read_line(&mut line)?;
    if line.len() == LINE_BYTES_MAX {
        bail!("a line is longer than {LINE_BYTES_MAX} bytes");
    }
    Ok(line)
}

async fn send(piece: &str, sender: &mut Sender) -> anyhow::Result<()> {
    let options = Options {
        now: NO_TIME,
        extra: &[],
    };
    let parsed = textlines::read_openmetrics(piece.as_bytes(), &options)?;
    if let Some(problem) = parsed.problems.first.first() {
        bail!("{}: {}", problem.text, problem.cause);
    }
    let rows = &parsed.batch.rows;
    for (row, series) in rows.series.iter().enumerate() {
        let labels = &parsed.batch.series[*series as usize];
        let at = rows.timestamps[row];
        if at == NO_TIME {
            bail!("a sample of {labels} has no time");
        }
        let labels: Vec<Label> = labels
            .iter()
            .map(|(name, value)| Label {
                name: name.to_owned(),
                value: value.to_owned(),
            })
            .collect();
        let samples = Samples {
            floats: vec![Sample {
                value: rows.values[row],
                timestamp: at.0,
            }],
            ..Samples::default()
        };
        sender.push(&labels, samples).await?;
    }
    Ok(())
}
