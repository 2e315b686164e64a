//! Real processes, real faults, real checkers: the command line.
//!
//! Exit code: 0 only when every checker says valid, 1 invalid, 2 unknown, 3 when the harness
//! itself could not do its work.
#![allow(
    clippy::disallowed_methods,
    reason = "an outermost tool: real processes, files and clocks are its subject"
)]

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use jepsen_tests::checker::Verdict;
use jepsen_tests::cluster::{Start, Target};
use jepsen_tests::differ::command::{self, differ, metamorphic};
use jepsen_tests::plan::{FaultKind, Plan, Settings, Workload, generate};
use jepsen_tests::process::{BECOME_NODE, become_node};
use jepsen_tests::run::{Backend, Outcome, check, read_plan, run};
use jepsen_tests::{federation, hostile, import, outage};
use lexopt::ValueExt;

const USAGE: &str = "\
jepsen-tests run    [--seed N] [--seconds S] [--nodes 3] [--workload register,append]
                    [--nemesis kill-one,kill-leader,kill-all,pause,restart | none]
jepsen-tests load   [--senders 4] [--series 2000] [--seconds 300] [--kill-leader-every 10]
                    [--interval-ms 500] [--stop-ms-max 3000] [--targets URL,URL,URL]
jepsen-tests replay PLAN
jepsen-tests check  DIRECTORY

run, load and replay take --bin PATH (or QUORATE_BIN, or the quorate beside this program),
--dir RUNS and --deadline-ms N. load --targets writes to nodes that run already and kills none.";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    match command.to_str() {
        Some(BECOME_NODE) => {
            eprintln!("jepsen-tests: {:#}", become_node(&rest));
            ExitCode::from(3)
        }
        Some("-h" | "--help" | "help") => {
            let (differ, outage, import) = (command::USAGE, outage::USAGE, import::USAGE);
            let (hostile, federation) = (hostile::USAGE, federation::USAGE);
            println!("{USAGE}\n\n{differ}\n\n{outage}\n\n{federation}\n\n{import}\n\n{hostile}");
            ExitCode::SUCCESS
        }
        Some("differ") => told(differ(rest, programs)),
        Some("federation") => told(federation::federation(rest, programs)),
        Some("federation-outage") => told(outage::outage(rest, programs)),
        Some("hostile") => told(hostile::hostile(rest, programs)),
        Some("import") => told(import::import(rest, programs)),
        Some("metamorphic") => told(metamorphic(rest, programs)),
        _ => match dispatch(command.to_str().unwrap_or(""), rest) {
            Ok(outcome) => summary(&outcome),
            Err(error) => {
                eprintln!("jepsen-tests: {error:#}");
                ExitCode::from(3)
            }
        },
    }
}

fn dispatch(command: &str, rest: Vec<OsString>) -> anyhow::Result<Outcome> {
    let mut options = Options::parse(command, rest)?;
    let plan = match command {
        "run" | "load" => generate(options.settings.clone())?,
        "replay" => options.plan()?,
        "check" => return check(&options.operand()?),
        _ => bail!("no command {command:?}\n{USAGE}"),
    };
    let backend = options.backend()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(plan, backend, &options.runs))
}

struct Options {
    settings: Settings,
    binary: Option<PathBuf>,
    runs: PathBuf,
    targets: Vec<Target>,
    operands: Vec<PathBuf>,
}

impl Options {
    fn parse(command: &str, arguments: Vec<OsString>) -> anyhow::Result<Self> {
        let mut options = Self {
            settings: defaults(command),
            binary: None,
            runs: PathBuf::from("jepsen-tests/runs"),
            targets: Vec::new(),
            operands: Vec::new(),
        };
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            options.take(
                argument_of(&argument)?,
                argument_value(&argument),
                &mut parser,
            )?;
        }
        if !options.targets.is_empty() {
            options.settings.nodes = options.targets.len();
            options.settings.nemeses.clear();
        }
        Ok(options)
    }

    fn take(
        &mut self,
        name: Option<String>,
        operand: Option<PathBuf>,
        parser: &mut lexopt::Parser,
    ) -> anyhow::Result<()> {
        self.operands.extend(operand);
        let Some(name) = name else {
            return Ok(());
        };
        let settings = &mut self.settings;
        match name.as_str() {
            "backend" => match text(parser)?.as_str() {
                "local" => {}
                other => bail!("no backend {other:?}; there is local"),
            },
            "seed" => settings.seed = parser.value()?.parse()?,
            "seconds" => settings.seconds = parser.value()?.parse()?,
            "nodes" => settings.nodes = parser.value()?.parse()?,
            "registers" => settings.registers = parser.value()?.parse()?,
            "series" => settings.series = parser.value()?.parse()?,
            "senders" => settings.senders = parser.value()?.parse()?,
            "interval-ms" => settings.interval_ms = parser.value()?.parse()?,
            "deadline-ms" => settings.deadline_ms = parser.value()?.parse()?,
            "stop-ms-max" => settings.stop_ms_max = parser.value()?.parse()?,
            "kill-leader-every" => {
                settings.fault_every_ms = parser.value()?.parse_with(seconds_as_ms)?;
            }
            "workload" => settings.workloads = list(&text(parser)?, Workload::parse)?,
            "nemesis" => {
                settings.nemeses = match text(parser)?.as_str() {
                    "none" => Vec::new(),
                    kinds => list(kinds, FaultKind::parse)?,
                };
            }
            "bin" => self.binary = Some(parser.value()?.into()),
            "dir" => self.runs = parser.value()?.into(),
            "targets" => self.targets = list(&text(parser)?, target)?,
            _ => bail!("no option --{name}\n{USAGE}"),
        }
        Ok(())
    }

    fn operand(&mut self) -> anyhow::Result<PathBuf> {
        match (self.operands.pop(), self.operands.is_empty()) {
            (Some(path), true) => Ok(path),
            _ => bail!("exactly one path is needed\n{USAGE}"),
        }
    }

    fn plan(&mut self) -> anyhow::Result<Plan> {
        read_plan(&self.operand()?)
    }

    fn backend(self: &Options) -> anyhow::Result<Backend> {
        if !self.targets.is_empty() {
            return Ok(Backend::Remote(self.targets.clone()));
        }
        let (launcher, binary) = programs(self.binary.clone())?;
        Ok(Backend::Local(Start::new(binary, launcher)))
    }
}

/// This program, and the quorate that is named, or found beside it.
fn programs(named: Option<PathBuf>) -> anyhow::Result<(PathBuf, PathBuf)> {
    let launcher = std::env::current_exe()?;
    let binary = match (named, std::env::var_os("QUORATE_BIN")) {
        (Some(path), _) => path,
        (None, Some(path)) => path.into(),
        (None, None) => beside(&launcher).context("no quorate found; name it by --bin")?,
    };
    let binary = binary
        .canonicalize()
        .with_context(|| format!("find {}", binary.display()))?;
    Ok((launcher, binary))
}

fn told(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("jepsen-tests: {error:#}");
        ExitCode::from(3)
    })
}

fn defaults(command: &str) -> Settings {
    match command {
        "load" => Settings {
            seconds: 300,
            workloads: vec![Workload::Load],
            nemeses: vec![FaultKind::KillLeader],
            series: 2_000,
            fault_every_ms: 10_000,
            deadline_ms: 5_000,
            ..Settings::default()
        },
        _ => Settings::default(),
    }
}

fn argument_of(argument: &lexopt::Arg<'_>) -> anyhow::Result<Option<String>> {
    match argument {
        lexopt::Arg::Long(name) => Ok(Some((*name).to_owned())),
        lexopt::Arg::Short(name) => bail!("no option -{name}\n{USAGE}"),
        lexopt::Arg::Value(_) => Ok(None),
    }
}

fn argument_value(argument: &lexopt::Arg<'_>) -> Option<PathBuf> {
    match argument {
        lexopt::Arg::Value(value) => Some(value.into()),
        _ => None,
    }
}

fn text(parser: &mut lexopt::Parser) -> anyhow::Result<String> {
    Ok(parser.value()?.string()?)
}

fn list<T>(text: &str, parse: impl Fn(&str) -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
    text.split(',').map(parse).collect()
}

fn seconds_as_ms(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.parse::<u64>().map(|seconds| seconds * 1000)
}

/// `http://HOST:PORT`; the load only uses the API listener.
fn target(url: &str) -> anyhow::Result<Target> {
    let address = url.strip_prefix("http://").unwrap_or(url);
    let address = address.trim_end_matches('/');
    let api: SocketAddr = address
        .parse()
        .with_context(|| format!("target {url:?} is not http://ADDRESS:PORT"))?;
    Ok(Target { api, push: api })
}

/// The quorate of the same build, or of the release build beside it.
fn beside(launcher: &Path) -> Option<PathBuf> {
    let profile = launcher.parent()?;
    let release = profile.parent()?.join("release");
    [profile.to_owned(), release]
        .into_iter()
        .map(|directory| directory.join("quorate"))
        .find(|path| path.is_file())
}

fn summary(outcome: &Outcome) -> ExitCode {
    let results = &outcome.results;
    println!();
    for report in &results.reports {
        println!(
            "{:<8} {}: {}",
            report.verdict.as_str(),
            report.checker,
            report.summary
        );
        for finding in report.findings.iter().take(10) {
            println!("           {} {:?}", finding.what, finding.ops);
        }
    }
    for outage in &results.availability.outages {
        println!(
            "fault    {} {:?} at {} ms: recovery {}, longest stop of writes {} ms",
            outage.kind.as_str(),
            outage.nodes,
            outage.at_ms,
            outage
                .recovery_ms
                .map_or_else(|| "not seen".to_owned(), |ms| format!("{ms} ms")),
            outage.stop_ms
        );
    }
    println!(
        "{}: {}",
        results.verdict.as_str().to_uppercase(),
        outcome.directory.join("index.html").display()
    );
    ExitCode::from(match results.verdict {
        Verdict::Valid => 0,
        Verdict::Invalid => 1,
        Verdict::Unknown => 2,
    })
}
