//! Each system fresh for each number of groups; then, once more, beside what is stored.

use std::ffi::OsString;
use std::net::SocketAddr;

use jepsen_tests::client::wall_ms;

use super::load::{self, Pushed};
use super::options::Options;
use super::report::{self, Case, Figure};
use crate::round::Work;
use crate::system::{Kind, System};
use crate::table::Report;

/// Groups that are pushed while the time of one push is looked at.
const LIGHT_GROUPS: u32 = 100;

/// Carries out `bench pushes`.
pub fn measure(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Report> {
    let options = Options::parse(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::fs::create_dir_all(&options.directory)?;
    let began_s = wall_ms() / 1000;
    let mut figures = Vec::new();
    for _ in 0..options.runs {
        for &kind in &options.systems {
            for case in cases(&options) {
                let figure = runtime.block_on(push_all(&options, kind, case))?;
                eprintln!("{}", figure.line());
                figures.push(figure);
            }
        }
    }
    report::report(&options, began_s, &figures)
}

fn cases(options: &Options) -> Vec<Case> {
    let mut cases: Vec<Case> = options
        .groups
        .iter()
        .map(|&groups| Case {
            groups,
            senders: options.senders,
            stored: 0,
        })
        .collect();
    if options.stored > 0 {
        cases.extend([0, options.stored].map(|stored| Case {
            groups: LIGHT_GROUPS,
            senders: options.light_senders,
            stored,
        }));
    }
    cases
}

async fn push_all(options: &Options, kind: Kind, case: Case) -> anyhow::Result<Figure> {
    let work = Work::create(&options.directory)?;
    let mut system = System::start(&options.programs, kind, &work.0).await?;
    let targets: Vec<SocketAddr> = system.targets().iter().map(|t| t.push).collect();
    load::fill(&targets, case.groups).await?;
    load::store(&targets, case.stored).await?;
    // The real one fills up unchecked: each push would cost what is stored.
    system.begin_checking().await?;
    let mut cpu_before = 0.0;
    let warm = || {
        cpu_before = system.cpu_seconds()?;
        Ok(())
    };
    let pushed: Pushed =
        load::run(&targets, case.groups, case.senders, options.period, warm).await?;
    let cpu_s = system.cpu_seconds()? - cpu_before;
    let figure = Figure {
        kind,
        case,
        per_second: pushed.per_second(),
        p50_ms: pushed.quantile_ms(0.5),
        p99_ms: pushed.quantile_ms(0.99),
        refused: pushed.refused,
        cpu_ms_per_push: cpu_s * 1e3 / pushed.took.len().max(1) as f64,
        peak_memory_bytes: system.peak_memory_bytes()?,
    };
    system.stop().await?;
    Ok(figure)
}
