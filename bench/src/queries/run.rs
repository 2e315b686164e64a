//! Loads every system, then asks them in turns.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, bail};
use jepsen_tests::client::wall_ms;
use jepsen_tests::http::Connection;

use super::ask::{self, Cost};
use super::options::{Options, Shape};
use super::population::{KUBERNETES, SERIES_PER_TARGET};
use super::questions::{instant, questions};
use super::report::{self, Answered, Figures};
use crate::round::Work;
use crate::send::{Load, send};
use crate::shape::{INTERVAL_MS, Shape as Requests};
use crate::system::{Kind, System};
use crate::table::Report;

const SENDERS: u32 = 2;
const LOAD_MAX: Duration = Duration::from_secs(3_600);

/// Carries out `bench queries`.
pub fn measure(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Report> {
    let options = Options::parse(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::fs::create_dir_all(&options.directory)?;
    let began_s = wall_ms() / 1000;
    let mut all = Vec::new();
    for shape in &options.shapes {
        all.push(runtime.block_on(ask_all(&options, *shape))?);
    }
    report::report(&options, began_s, &all)
}

async fn ask_all(options: &Options, shape: Shape) -> anyhow::Result<Figures> {
    // Whole minutes, so that every system evaluates at the same instants.
    let end_ms = wall_ms() / 60_000 * 60_000;
    let work = Work::create(&options.directory)?;
    let mut systems = Vec::new();
    for kind in &options.systems {
        systems.push(load(options, *kind, shape, end_ms, &work).await?);
    }
    tokio::time::sleep(options.settle).await;
    let mut figures = Figures {
        shape,
        answered: Vec::new(),
    };
    for question in questions(shape, end_ms) {
        eprint!("  {}:", question.name);
        let mut costs: BTreeMap<String, Vec<Cost>> = BTreeMap::new();
        let differ = match ask::disagreement(&systems, &question).await {
            Ok(differ) => differ,
            Err(error) => {
                eprintln!(" {error:#}");
                figures
                    .answered
                    .push(Answered::failed(&question, &format!("{error:#}")));
                continue;
            }
        };
        for _ in 0..options.rounds {
            for system in &mut systems {
                let cost = ask::measure(system, &question, options.ask).await?;
                costs.entry(system.kind().name()).or_default().push(cost);
            }
        }
        let answered = Answered::new(&question, &differ, costs);
        eprintln!("{}", answered.line());
        figures.answered.push(answered);
    }
    for system in systems {
        system.stop().await?;
    }
    Ok(figures)
}

/// Starts a system and writes all samples of the shape, the newest at `end_ms`.
pub async fn load(
    options: &Options,
    kind: Kind,
    shape: Shape,
    end_ms: i64,
    work: &Work,
) -> anyhow::Result<System> {
    let slug = kind.name().replace([' ', ',', '='], "-");
    let system = System::start(&options.programs, kind, &work.0.join(slug)).await?;
    let load = Load {
        of: KUBERNETES,
        series: shape.series,
        rounds: shape.samples,
        senders: SENDERS,
        life_rounds: shape.life_rounds,
        rate: None,
        send_max: LOAD_MAX,
    };
    let base_ms = end_ms - i64::from(shape.samples - 1) * INTERVAL_MS;
    // Blocks the thread, which has nothing else to do.
    let sent = send(&load, Requests::Deep, system.targets(), base_ms)?;
    system.flush().await?;
    eprintln!(
        "{}, {}: {} samples in {:.1} s",
        shape.name,
        kind.name(),
        sent.samples,
        sent.elapsed_s
    );
    let targets = shape.series / SERIES_PER_TARGET;
    let expected = f64::from(targets) * f64::from(shape.samples);
    let span_s = i64::from(shape.samples) * INTERVAL_MS / 1000;
    let path = instant(&format!("sum(count_over_time(up[{span_s}s]))"), end_ms);
    for target in system.targets() {
        let body = ask::get(&mut Connection::new(target.api), &path).await?;
        let answer: serde_json::Value = serde_json::from_slice(&body)?;
        let text = answer["data"]["result"][0]["value"][1].as_str();
        let stored: f64 = text
            .with_context(|| format!("no value in {answer}"))?
            .parse()?;
        if stored != expected {
            bail!("{} has {stored} of {expected} samples of up", kind.name());
        }
    }
    Ok(system)
}
