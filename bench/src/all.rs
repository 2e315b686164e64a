//! `bench all`: every part that has a figure to tell, one after the other; one report, one file of figures.
//!
//! A part that fails, or cannot be measured on this machine, is told in its place and takes nothing with it.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use jepsen_tests::client::wall_ms;
use lexopt::ValueExt;
use serde_json::{Value, json};

use crate::power;
use crate::restart::{self, End};
use crate::table::{Report, machine, version};
use crate::{disk, federate, queries, writing};

const USAGE: &str = "\
bench all [--quorate PATH] [--prometheus PATH] [--victoria PATH] [--systems ...] [--dir DIRECTORY] [--quick]
          [--series N] [--rounds N] [--runs N] [--senders N] [--seconds-max S] [--settle-seconds S]
          [--rate SAMPLES] [--only PART,...]

Parts: write, churn, rate, restart, power-cut, disk, queries, federate. The second line is of what writes as fast as
it can, at a rate, or until it is killed: write, churn, rate, restart, power-cut; the others have sizes of their own.
--rate (100,000 samples a second) is of the part of that name. --quick: all of it in some ten minutes.";

/// Of the part that writes at a rate.
const RATE: &str = "100000";

type Measure = fn(Vec<OsString>) -> anyhow::Result<Report>;

/// A part: its name among the figures, its heading, what it is told before and, if all are to be quick, behind what
/// all are told.
struct Part {
    name: &'static str,
    heading: &'static str,
    measure: Measure,
    own: &'static [&'static str],
    quick: &'static [&'static str],
    /// Whether it takes the sizes that all are given.
    is_sized: bool,
}

const QUICK_WRITING: &[&str] = &["--quick", "--settle-seconds", "2"];

const PARTS: [Part; 8] = [
    Part {
        name: "write",
        heading: "Writing, as fast as it is acknowledged",
        measure: |arguments| writing::measure(arguments),
        own: &[],
        quick: QUICK_WRITING,
        is_sized: true,
    },
    Part {
        name: "churn",
        heading: "Writing, a tenth of the series replaced in an hour of the data",
        measure: |arguments| writing::measure(arguments),
        own: &[
            "--churn",
            "10",
            "--series",
            "5000",
            "--rounds",
            "2400",
            "--requests",
            "wide",
        ],
        quick: QUICK_WRITING,
        is_sized: true,
    },
    Part {
        name: "rate",
        heading: "Writing, at a fixed rate",
        measure: |arguments| writing::measure(arguments),
        own: &["--requests", "wide"],
        quick: QUICK_WRITING,
        is_sized: true,
    },
    Part {
        name: "restart",
        heading: "Restart after SIGKILL",
        measure: |arguments| restart::measure(arguments, End::Killed),
        own: &[],
        quick: &["--quick"],
        is_sized: true,
    },
    Part {
        name: "power-cut",
        heading: "Restart after a power cut",
        measure: |arguments| restart::measure(arguments, End::PowerCut),
        own: &["--series", "20000"],
        quick: &["--quick"],
        is_sized: true,
    },
    Part {
        name: "disk",
        heading: "Disk, settled and compacted",
        measure: |arguments| disk::measure(arguments),
        own: &[],
        quick: &["--series", "100", "--rounds", "1440"],
        is_sized: false,
    },
    Part {
        name: "queries",
        heading: "Queries",
        measure: |arguments| queries::measure(arguments),
        own: &[],
        quick: &["--quick"],
        is_sized: false,
    },
    Part {
        name: "federate",
        heading: "/federate",
        measure: |arguments| federate::measure(arguments),
        own: &[],
        quick: &["--quick"],
        is_sized: false,
    },
];

/// What became of a part.
enum Outcome {
    Measured(Report),
    Skipped(String),
    Failed(String),
}

#[derive(Debug, Default)]
struct Options {
    /// Flags that every part takes.
    common: Vec<OsString>,
    /// Those of sizes.
    sizes: Vec<OsString>,
    rate: Option<OsString>,
    programs: Vec<PathBuf>,
    directory: PathBuf,
    quick: bool,
    only: Option<Vec<String>>,
}

/// Carries out `bench all`.
pub fn measure(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Report> {
    let options = Options::parse(arguments)?;
    std::fs::create_dir_all(&options.directory)
        .with_context(|| format!("create {}", options.directory.display()))?;
    let began_s = wall_ms() / 1000;
    let mut outcomes = Vec::new();
    for part in PARTS.iter().filter(|part| options.wants(part)) {
        eprintln!("== {} ==", part.name);
        let outcome = carry_out(part, options.of(part));
        match &outcome {
            Outcome::Measured(_) => {}
            Outcome::Skipped(why) => eprintln!("SKIP: {}: {why}", part.name),
            Outcome::Failed(why) => eprintln!("bench: {}: {why}", part.name),
        }
        outcomes.push((part, outcome));
    }
    let versions = options.programs.iter().map(|program| version(program));
    let facts = (machine()?, versions.collect::<Vec<_>>());
    let text = markdown(&facts, &outcomes);
    let place = (&*options.directory, began_s, "all");
    let mut report = Report::new(place, text, figures(&facts, &outcomes));
    report.failure = failure(&outcomes);
    Ok(report)
}

fn carry_out(part: &Part, arguments: Vec<OsString>) -> Outcome {
    if part.name == "power-cut"
        && let Some(missing) = power::missing()
    {
        return Outcome::Skipped(missing.to_owned());
    }
    match (part.measure)(arguments) {
        Ok(report) => Outcome::Measured(report),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

impl Options {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut options = Self {
            directory: PathBuf::from("bench/results"),
            ..Self::default()
        };
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            let lexopt::Arg::Long(name) = argument else {
                bail!("{}\n{USAGE}", argument.unexpected());
            };
            let flag = OsString::from(format!("--{name}"));
            match name {
                "quick" => options.quick = true,
                "rate" => options.rate = Some(parser.value()?),
                "only" => {
                    let names = parser.value()?.string()?;
                    options.only = Some(names.split(',').map(str::to_owned).collect());
                }
                "quorate" | "prometheus" | "victoria" => {
                    let program = parser.value()?;
                    options.programs.push(program.clone().into());
                    options.common.extend([flag, program]);
                }
                "systems" => options.common.extend([flag, parser.value()?]),
                "dir" => {
                    let directory = parser.value()?;
                    options.directory = directory.clone().into();
                    options.common.extend([flag, directory]);
                }
                "series" | "rounds" | "runs" | "senders" | "seconds-max" | "settle-seconds" => {
                    options.sizes.extend([flag, parser.value()?]);
                }
                _ => bail!("no option --{name}\n{USAGE}"),
            }
        }
        let known = |name: &String| PARTS.iter().any(|part| part.name == name);
        match options.only.iter().flatten().find(|name| !known(name)) {
            Some(name) => bail!("no part {name:?}\n{USAGE}"),
            None => Ok(options),
        }
    }

    fn wants(&self, part: &Part) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| only.iter().any(|name| name == part.name))
    }

    /// What a part is told; of a flag that comes twice the last counts.
    fn of(&self, part: &Part) -> Vec<OsString> {
        let mut all: Vec<OsString> = part.own.iter().map(OsString::from).collect();
        if self.quick {
            all.extend(part.quick.iter().map(OsString::from));
        }
        if part.name == "rate" {
            let rate = self.rate.clone().unwrap_or_else(|| RATE.into());
            all.extend(["--rate".into(), rate]);
        }
        all.extend(self.common.iter().cloned());
        if part.is_sized {
            all.extend(self.sizes.iter().cloned());
        }
        all
    }
}

fn markdown((machine, versions): &(String, Vec<String>), outcomes: &[(&Part, Outcome)]) -> String {
    let mut text = format!("# All figures\n\n{machine}.\n\n");
    for version in versions {
        put(&mut text, format_args!("- {version}\n"));
    }
    text.push('\n');
    for (n, (part, outcome)) in (1..).zip(outcomes) {
        let told = match outcome {
            Outcome::Measured(_) => "",
            Outcome::Skipped(_) => " (skipped)",
            Outcome::Failed(_) => " (failed)",
        };
        put(&mut text, format_args!("{n}. {}{told}\n", part.heading));
    }
    for (n, (part, outcome)) in (1..).zip(outcomes) {
        put(&mut text, format_args!("\n## {n}. {}\n\n", part.heading));
        match outcome {
            Outcome::Measured(report) => text += &report.text,
            Outcome::Skipped(why) => put(&mut text, format_args!("Skipped: {why}.\n")),
            Outcome::Failed(why) => put(&mut text, format_args!("Failed: {why}.\n")),
        }
    }
    text
}

fn figures((machine, versions): &(String, Vec<String>), outcomes: &[(&Part, Outcome)]) -> Value {
    let parts = outcomes.iter().map(|(part, outcome)| {
        let told = match outcome {
            Outcome::Measured(report) => report.figures.clone(),
            Outcome::Skipped(why) => json!({"skipped": why}),
            Outcome::Failed(why) => json!({"failed": why}),
        };
        (part.name.to_owned(), told)
    });
    json!({"machine": machine, "versions": versions, "parts": parts.collect::<Value>()})
}

/// Which parts failed.
fn failure(outcomes: &[(&Part, Outcome)]) -> Option<String> {
    let failed = |(part, outcome): &(&Part, Outcome)| match outcome {
        Outcome::Measured(report) => report.failure.as_ref().map(|_| part.name),
        Outcome::Skipped(_) => None,
        Outcome::Failed(_) => Some(part.name),
    };
    let failed: Vec<&str> = outcomes.iter().filter_map(failed).collect();
    (!failed.is_empty()).then(|| format!("failed: {}", failed.join(", ")))
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String grows");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options as Writing;

    fn parse(arguments: &[&str]) -> anyhow::Result<Options> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    fn part(name: &str) -> &'static Part {
        PARTS.iter().find(|part| part.name == name).unwrap()
    }

    #[test]
    fn what_is_said_comes_last() {
        let said = [
            "--quick",
            "--quorate",
            "q",
            "--series",
            "500",
            "--rate",
            "70",
        ];
        let options = parse(&said).unwrap();
        let churn = Writing::parse(options.of(part("churn"))).unwrap();
        assert_eq!((churn.series, churn.rounds, churn.churn), (500, 20, 10));
        assert_eq!(churn.rate, None);
        let rate = Writing::parse(options.of(part("rate"))).unwrap();
        assert_eq!((rate.series, rate.rate), (500, Some(70)));
        let disk = options.of(part("disk"));
        assert!(!disk.contains(&"500".into()), "{disk:?}");
        let full = parse(&["--quorate", "q"]).unwrap();
        let churn = Writing::parse(full.of(part("churn"))).unwrap();
        assert_eq!((churn.series, churn.rounds), (5_000, 2_400));
        assert!(parse(&["--only", "writing"]).is_err());
        assert!(parse(&["--gzip"]).is_err());
    }

    #[test]
    fn every_part_is_told_in_its_place() {
        let report = Report::new((&PathBuf::new(), 3, "disk"), "| table |\n".into(), json!(5));
        let outcomes = [
            (part("disk"), Outcome::Measured(report)),
            (part("power-cut"), Outcome::Skipped("no root".into())),
            (part("queries"), Outcome::Failed("no answer".into())),
        ];
        let facts = ("2 cores".to_owned(), vec!["quorate 0".to_owned()]);
        let text = markdown(&facts, &outcomes);
        assert!(
            text.contains("\n2. Restart after a power cut (skipped)\n"),
            "{text}"
        );
        assert!(
            text.contains("\n## 1. Disk, settled and compacted\n\n| table |\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n## 3. Queries\n\nFailed: no answer.\n"),
            "{text}"
        );
        let told = figures(&facts, &outcomes);
        assert_eq!(told["parts"]["disk"], 5);
        assert_eq!(told["parts"]["power-cut"]["skipped"], "no root");
        assert_eq!(failure(&outcomes).as_deref(), Some("failed: queries"));
    }
}
