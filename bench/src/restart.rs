//! `bench restart` and `bench power-cut`: how long a system that ended abruptly with everything loaded
//! takes until it answers completely, and what it lost of what it had acknowledged.
//!
//! All its processes get SIGKILL right behind the last acknowledgement, which leaves none of them time
//! to tidy up, and are started again. In a power cut their file systems go first, all at once. Then every target is asked, over and over, how many samples of
//! one metric it has. An answer is complete when it counts all that were acknowledged; a system that
//! goes on counting fewer has lost the rest.

use std::ffi::OsString;
use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jepsen_tests::client::wall_ms;
use jepsen_tests::cluster::Target;
use serde::Serialize;

use crate::options::Options;
use crate::power::Disks;
use crate::query::{self, metrics};
use crate::round::Work;
use crate::send::{Sent, send};
use crate::shape::{INTERVAL_MS, Shape};
use crate::system::{Kind, System};
use crate::table::{Facts, Report, middle};

const PAUSE: Duration = Duration::from_millis(10);
/// So long the same lesser count is believed.
const STEADY: Duration = Duration::from_secs(10);
/// So long nothing but errors is.
const ANSWER_DEADLINE: Duration = Duration::from_secs(300);

/// How a system ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Killed,
    /// Its data lie on file systems of their own.
    PowerCut,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Killed => "restart",
            Self::PowerCut => "power-cut",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Killed => "Killed",
            Self::PowerCut => "Power cut",
        }
    }
}

/// What one round measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Figure {
    kind: Kind,
    /// Acknowledged.
    samples: u64,
    lost: u64,
    /// From the start of the processes until the last target gave its final count.
    answer_s: f64,
}

/// Carries out `bench restart` or `bench power-cut`.
pub fn measure(arguments: impl IntoIterator<Item = OsString>, end: End) -> anyhow::Result<Report> {
    let options = Options::parse(arguments)?;
    std::fs::create_dir_all(&options.directory)
        .with_context(|| format!("create {}", options.directory.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let facts = Facts::gather(&options)?;
    let mut figures = Vec::new();
    for n in 0..options.runs {
        for &kind in &options.systems {
            eprintln!("run {} of {}: {}", n + 1, options.runs, kind.name());
            let figure = runtime.block_on(round(&options, kind, end));
            let figure = figure.with_context(|| kind.name())?;
            eprintln!(
                "  {:.2} s to the whole answer, {} of {} samples lost",
                figure.answer_s, figure.lost, figure.samples
            );
            figures.push(figure);
        }
    }
    let text = markdown(end, &facts, &options.systems, &figures);
    let json = serde_json::json!({"facts": facts, "figures": figures});
    let place = (&*options.directory, facts.began_s, end.name());
    Ok(Report::new(place, text, json))
}

async fn round(options: &Options, kind: Kind, end: End) -> anyhow::Result<Figure> {
    let work = Work::create(&options.directory)?;
    let disks = match end {
        End::Killed => None,
        End::PowerCut => Some(Disks::mount(kind.data_below(&work.0), &work.0)?),
    };
    let mut system = System::start(&options.programs(), kind, &work.0).await?;
    let base_ms = wall_ms() - i64::from(options.rounds) * INTERVAL_MS;
    let sent = send(&options.load(), Shape::Wide, system.targets(), base_ms)?;
    disks.as_ref().map_or(Ok(()), Disks::cut)?;
    system.kill()?;
    disks.as_ref().map_or(Ok(()), Disks::restore)?;
    if sent.rounds == 0 {
        bail!("nothing was sent in {:?}", options.send_max);
    }
    let loaded = Loaded {
        series: options.series,
        end_ms: base_ms + i64::from(sent.rounds - 1) * INTERVAL_MS + 999,
        sent,
    };
    system.begin()?;
    let began = Instant::now();
    let answers = system.targets().iter().map(|t| loaded.answer(*t, began));
    let mut answer_s = 0f64;
    for answered in futures::future::join_all(answers).await {
        answer_s = answer_s.max(answered?.as_secs_f64());
    }
    let mut lost = 0;
    for target in system.targets() {
        lost = lost.max(loaded.lost_of(*target).await?);
    }
    system.stop().await?;
    Ok(Figure {
        kind,
        samples: loaded.sent.samples,
        lost,
        answer_s,
    })
}

/// What was acknowledged.
struct Loaded {
    series: u32,
    /// Of the last sample, rounded up.
    end_ms: i64,
    sent: Sent,
}

impl Loaded {
    /// When since `began` the target first gave the count it stays with.
    async fn answer(&self, target: Target, began: Instant) -> anyhow::Result<Duration> {
        let (metric, series) = metrics(self.series).next().context("no series")?;
        let expected = u64::from(series) * u64::from(self.sent.rounds);
        let mut last: Option<(u64, Duration)> = None;
        loop {
            let count = query::count_of(target, &metric, self.end_ms, self.sent.rounds).await;
            let now = began.elapsed();
            match (count, last) {
                (Ok(count), _) if count >= expected => return Ok(now),
                (Ok(count), Some((same, since))) if count == same => {
                    if now - since > STEADY {
                        return Ok(since);
                    }
                }
                (Ok(count), _) => last = Some((count, now)),
                (Err(error), _) if now > ANSWER_DEADLINE => return Err(error),
                (Err(_), _) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Acknowledged samples, of all metrics, that the target does not have.
    async fn lost_of(&self, target: Target) -> anyhow::Result<u64> {
        let mut stored = 0;
        for (metric, _) in metrics(self.series) {
            stored += query::count_of(target, &metric, self.end_ms, self.sent.rounds).await?;
        }
        Ok(self.sent.samples.saturating_sub(stored))
    }
}

fn markdown(end: End, facts: &Facts, systems: &[Kind], figures: &[Figure]) -> String {
    let mut text = format!(
        "{} with {} series of {} samples, median of {}; {}; {}\n\n\
         | system | to the whole answer, s | acknowledged samples lost |\n|---|---:|---:|\n",
        end.told(),
        facts.series,
        facts.rounds,
        facts.runs,
        facts.machine,
        facts.versions.join(", ")
    );
    for kind in systems {
        let of = || figures.iter().filter(|figure| figure.kind == *kind);
        let answer_s = middle(of().map(|figure| figure.answer_s).collect());
        let lost: Vec<String> = of().map(|figure| figure.lost.to_string()).collect();
        let (name, lost) = (kind.name(), lost.join(", "));
        writeln!(text, "| {name} | {answer_s:.2} | {lost} |").expect("a String grows");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_every_run_are_told() {
        let figure = |lost, answer_s| Figure {
            kind: Kind::Prometheus,
            samples: 10,
            lost,
            answer_s,
        };
        let facts = Facts {
            began_s: 0,
            machine: "2 cores".into(),
            versions: vec!["p 3".into()],
            series: 1,
            rounds: 10,
            runs: 3,
            senders: 4,
            churn: 0,
            rate: None,
        };
        let figures = [figure(0, 1.0), figure(4, 9.0), figure(0, 2.0)];
        let text = markdown(End::PowerCut, &facts, &[Kind::Prometheus], &figures);
        assert!(text.contains("| Prometheus | 2.00 | 0, 4, 0 |\n"), "{text}");
    }
}
