//! The command lines of `differ` and `metamorphic`.
//!
//! Exit codes: 0 nothing differs, 1 something does, 3 trouble of the harness, 77 no Prometheus.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use lexopt::ValueExt;

use super::case::Case;
use super::peers::{Programs, Quorate};
use super::{metamorphic, tester};

pub const USAGE: &str = "\
jepsen-tests differ      [--seed 1] [--seeds 1] [--queries 300] [--native BOOL] [--prometheus PATH]
                         [--shrink-data true] [--findings-max 10] [--dir RUNS] [--case FILE]
jepsen-tests metamorphic [--seed 1] [--seeds 1] [--queries 100] [--native BOOL]

--native: whether native histograms are stored and asked for; by default, when quorate takes them.
differ needs a Prometheus (--prometheus, or PROMETHEUS_BIN); both take --bin as run does.";

/// Exit code of what cannot be done on this machine.
const SKIPPED: u8 = 77;

struct Options {
    seed: u64,
    seeds: u64,
    queries: Option<usize>,
    native: Option<bool>,
    shrink_data: bool,
    findings_max: usize,
    directory: PathBuf,
    case: Option<PathBuf>,
    prometheus: Option<PathBuf>,
}

/// Carries out `differ`; `quorate` finds the program to test.
pub fn differ(arguments: Vec<OsString>, quorate: Find) -> anyhow::Result<ExitCode> {
    let (options, programs) = parse(arguments, quorate)?;
    if programs.prometheus.is_none() {
        println!("SKIP: no Prometheus to compare with (--prometheus or PROMETHEUS_BIN)");
        return Ok(ExitCode::from(SKIPPED));
    }
    let runtime = runtime()?;
    if let Some(path) = &options.case {
        let text = runtime.block_on(tester::tell(&programs, &Case::read(path)?))?;
        println!("{text}");
        return Ok(code(text.contains("quorate:    ")));
    }
    let settings = tester::Settings {
        seed: options.seed,
        seeds: options.seeds,
        queries: options.queries.unwrap_or(300),
        native: runtime.block_on(native(&options, &programs))?,
        shrink_data: options.shrink_data,
        findings_max: options.findings_max,
    };
    let summary = runtime.block_on(tester::run(&settings, &programs, &options.directory))?;
    println!("{}", summary.line());
    for note in &summary.notes {
        println!("annotations differ: {note}");
    }
    for text in &summary.findings {
        println!("{}", text.trim_start().lines().next().unwrap_or(""));
    }
    for (kind, count) in &summary.kinds {
        println!("{count} questions came down to: {kind}");
    }
    Ok(code(!summary.findings.is_empty()))
}

/// Carries out `metamorphic`.
pub fn metamorphic(arguments: Vec<OsString>, quorate: Find) -> anyhow::Result<ExitCode> {
    let (options, programs) = parse(arguments, quorate)?;
    let runtime = runtime()?;
    let settings = metamorphic::Settings {
        seed: options.seed,
        seeds: options.seeds,
        queries: options.queries.unwrap_or(100),
        native: runtime.block_on(native(&options, &programs))?,
    };
    let summary = runtime.block_on(metamorphic::run(&settings, &programs))?;
    for finding in summary.findings.iter().take(options.findings_max) {
        println!("DIFFERENCE {finding}");
    }
    println!("{}", summary.line());
    Ok(code(!summary.findings.is_empty()))
}

/// What was asked for, or whether quorate takes native histograms.
async fn native(options: &Options, programs: &Programs) -> anyhow::Result<bool> {
    if let Some(native) = options.native {
        return Ok(native);
    }
    let takes = Quorate::takes_natives(programs).await?;
    if !takes {
        println!("quorate refuses native histograms: they are left out");
    }
    Ok(takes)
}

/// Launcher and quorate, given what `--bin` says.
pub type Find = fn(Option<PathBuf>) -> anyhow::Result<(PathBuf, PathBuf)>;

fn parse(arguments: Vec<OsString>, quorate: Find) -> anyhow::Result<(Options, Programs)> {
    let mut options = Options {
        seed: 1,
        seeds: 1,
        queries: None,
        native: None,
        shrink_data: true,
        findings_max: 10,
        directory: PathBuf::from("jepsen-tests/runs"),
        case: None,
        prometheus: std::env::var_os("PROMETHEUS_BIN").map(PathBuf::from),
    };
    let mut binary = None;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        let lexopt::Arg::Long(name) = argument else {
            bail!("{}\n{USAGE}", argument.unexpected());
        };
        match name {
            "seed" => options.seed = parser.value()?.parse()?,
            "seeds" => options.seeds = parser.value()?.parse()?,
            "queries" => options.queries = Some(parser.value()?.parse()?),
            "native" => options.native = Some(parser.value()?.parse()?),
            "shrink-data" => options.shrink_data = parser.value()?.parse()?,
            "findings-max" => options.findings_max = parser.value()?.parse()?,
            "dir" => options.directory = parser.value()?.into(),
            "case" => options.case = Some(parser.value()?.into()),
            "prometheus" => options.prometheus = Some(parser.value()?.into()),
            "bin" => binary = Some(parser.value()?.into()),
            _ => bail!("no option --{name}\n{USAGE}"),
        }
    }
    let (launcher, quorate) = quorate(binary)?;
    let prometheus = match &options.prometheus {
        Some(path) if path.is_file() => Some(path.canonicalize()?),
        Some(path) => bail!("no Prometheus at {}", path.display()),
        None => None,
    };
    let programs = Programs {
        launcher,
        quorate,
        prometheus,
    };
    Ok((options, programs))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("start a runtime")
}

fn code(differs: bool) -> ExitCode {
    ExitCode::from(u8::from(differs))
}
