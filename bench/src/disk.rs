//! `bench disk`: what a sample takes on the disk once everything is settled, by kind of values.
//!
//! Every system is loaded with old data of one kind, which ends hours ago, and one sample of each
//! series from now, so that none has a reason to keep the old ones in its head. Then all have time to
//! compact. VictoriaMetrics merges when it is asked to; the others do it by themselves. A system is
//! settled when its directory has not changed for longer than any of them waits between two looks. Logs are
//! not counted: how much of them is left is a matter of their segments, not of samples.

use std::ffi::OsString;
use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jepsen_tests::client::wall_ms;
use serde::Serialize;

use crate::options::Options;
use crate::query;
use crate::round::Work;
use crate::send::{Load, send};
use crate::shape::{INTERVAL_MS, Population, Shape};
use crate::system::{Kind, System};
use crate::table::{Facts, Report};
use crate::values::KINDS;

/// Between the old samples and now: longer than any head.
const GAP_MS: i64 = 8 * 3_600_000;
/// Prometheus looks once a minute.
const STEADY: Duration = Duration::from_secs(75);
const SETTLE_MAX: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_secs(3);

/// What one system takes for one kind of values.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Figure {
    kind: Kind,
    values: &'static str,
    samples: u64,
    disk_bytes: u64,
    /// Everything sent to the disk until then.
    written_bytes: u64,
    /// It went on changing for as long as it was watched.
    unsettled: bool,
}

/// A loaded system, and since when its directory is what it is.
struct Loaded {
    system: System,
    values: &'static str,
    samples: u64,
    /// Of the last old sample, rounded up.
    end_ms: i64,
    bytes: u64,
    since: Instant,
    _work: Work,
}

/// Carries out `bench disk`.
pub fn measure(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Report> {
    let day = Options {
        series: 1_000,
        rounds: 24 * 240,
        runs: 1,
        ..Options::default()
    };
    let options = Options::parse_onto(day, arguments)?;
    std::fs::create_dir_all(&options.directory)
        .with_context(|| format!("create {}", options.directory.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let facts = Facts::gather(&options)?;
    let figures = runtime.block_on(load_all(&options))?;
    let text = markdown(&facts, &options.systems, &figures);
    let json = serde_json::json!({"facts": facts, "figures": figures});
    let place = (&*options.directory, facts.began_s, "disk");
    Ok(Report::new(place, text, json))
}

/// Disks have no opinion about what else runs, so all wait together.
async fn load_all(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let mut loaded = Vec::new();
    for (values, population) in KINDS {
        for &kind in &options.systems {
            eprintln!("loading {}: {values}", kind.name());
            let one = load(options, kind, (values, population)).await;
            loaded.push(one.with_context(|| format!("{}, {values}", kind.name()))?);
        }
    }
    eprintln!("waiting until all are settled");
    let begin = Instant::now();
    while begin.elapsed() < SETTLE_MAX {
        for one in &mut loaded {
            one.look()?;
        }
        if loaded.iter().all(Loaded::is_settled) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let mut figures = Vec::new();
    for one in loaded {
        figures.push(one.finish(options).await?);
    }
    Ok(figures)
}

async fn load(
    options: &Options,
    kind: Kind,
    (values, of): (&'static str, Population),
) -> anyhow::Result<Loaded> {
    let work = Work::create(&options.directory)?;
    let system = System::start(&options.programs(), kind, &work.0).await?;
    let now_ms = wall_ms();
    let base_ms = now_ms - GAP_MS - i64::from(options.rounds) * INTERVAL_MS;
    let old = Load {
        of,
        ..options.load()
    };
    let sent = send(&old, Shape::Deep, system.targets(), base_ms)?;
    if sent.rounds != options.rounds {
        bail!("only {} rounds in {:?}", sent.rounds, options.send_max);
    }
    let newest = Load { rounds: 1, ..old };
    let newest = send(&newest, Shape::Wide, system.targets(), now_ms)?;
    system.flush().await?;
    system.merge().await?;
    Ok(Loaded {
        bytes: system.compacted_bytes()?,
        system,
        values,
        samples: sent.samples + newest.samples,
        end_ms: base_ms + i64::from(sent.rounds - 1) * INTERVAL_MS + 999,
        since: Instant::now(),
        _work: work,
    })
}

impl Loaded {
    fn look(&mut self) -> anyhow::Result<()> {
        // A file may go between being listed and being looked at: it is looked at again.
        let Ok(bytes) = self.system.compacted_bytes() else {
            return Ok(());
        };
        if bytes != self.bytes {
            self.bytes = bytes;
            self.since = Instant::now();
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.since.elapsed() > STEADY
    }

    async fn finish(mut self, options: &Options) -> anyhow::Result<Figure> {
        let unsettled = !self.is_settled();
        let written_bytes = self.system.written_bytes()?;
        let expected = u64::from(options.series) * u64::from(options.rounds);
        for target in self.system.targets() {
            let stored = query::stored_samples(*target, self.end_ms, options.rounds).await?;
            if stored != expected {
                let name = self.system.kind().name();
                bail!("{name}, {}: {stored} of {expected} samples", self.values);
            }
        }
        let figure = Figure {
            kind: self.system.kind(),
            values: self.values,
            samples: self.samples,
            disk_bytes: self.system.compacted_bytes()?,
            written_bytes,
            unsettled,
        };
        self.system.stop().await?;
        Ok(figure)
    }
}

fn markdown(facts: &Facts, systems: &[Kind], figures: &[Figure]) -> String {
    let mut text = format!(
        "Bytes per sample on the disk, compacted, without logs (and written until then, logs and rewriting \
         included); {} series of {} samples, 15 s apart; {}; {}\n\n| values |",
        facts.series,
        facts.rounds,
        facts.machine,
        facts.versions.join(", ")
    );
    for kind in systems {
        put(&mut text, format_args!(" {} |", kind.name()));
    }
    put(
        &mut text,
        format_args!("\n|---|{}\n", "---:|".repeat(systems.len())),
    );
    for (values, _) in KINDS {
        put(&mut text, format_args!("| {values} |"));
        for kind in systems {
            let same = |figure: &&Figure| figure.kind == *kind && figure.values == values;
            put_cell(&mut text, figures.iter().filter(same));
        }
        text.push('\n');
    }
    text.push_str("| all of them |");
    for kind in systems {
        put_cell(
            &mut text,
            figures.iter().filter(|figure| figure.kind == *kind),
        );
    }
    text.push('\n');
    text
}

/// What `figures` take together; empty where there are none.
fn put_cell<'a>(text: &mut String, figures: impl Iterator<Item = &'a Figure> + Clone) {
    let sum = |of: fn(&Figure) -> u64| figures.clone().map(of).sum::<u64>() as f64;
    let samples = sum(|figure| figure.samples);
    if samples == 0.0 {
        return text.push_str(" |");
    }
    let disk = sum(|figure| figure.disk_bytes) / samples;
    let written = sum(|figure| figure.written_bytes) / samples;
    let unsettled = figures.clone().any(|figure| figure.unsettled);
    let mark = if unsettled { ", unsettled" } else { "" };
    put(text, format_args!(" {disk:.2} ({written:.1}{mark}) |"));
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String grows");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_settle_is_marked() {
        let figure = |values, unsettled| Figure {
            kind: Kind::Prometheus,
            values,
            samples: 100,
            disk_bytes: 250,
            written_bytes: 1_000,
            unsettled,
        };
        let facts = Facts {
            began_s: 0,
            machine: "2 cores".into(),
            versions: vec!["p 3".into()],
            series: 1,
            rounds: 100,
            runs: 1,
            senders: 4,
            churn: 0,
            rate: None,
        };
        let figures = [figure("mix", false), figure("counters", true)];
        let text = markdown(&facts, &[Kind::Prometheus], &figures);
        assert!(text.contains("| mix | 2.50 (10.0) |\n"), "{text}");
        assert!(
            text.contains("| counters | 2.50 (10.0, unsettled) |\n"),
            "{text}"
        );
        assert!(text.contains("| noise as float32 | |\n"), "{text}");
        let all = "| all of them | 2.50 (10.0, unsettled) |\n";
        assert!(text.ends_with(all), "{text}");
    }
}
