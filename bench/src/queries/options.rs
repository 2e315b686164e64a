//! The command line of `bench queries`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use lexopt::ValueExt;

use super::population::SERIES_PER_TARGET;
use crate::system::{Kind, Programs};

const USAGE: &str = "\
bench queries [--quorate PATH] [--prometheus PATH] [--victoria PATH] [--shapes wide,long,churn]
              [--systems quorate-1,quorate-3,prometheus,victoria-metrics] [--rounds 3]
              [--ask-ms 500] [--settle-seconds 20] [--dir DIRECTORY] [--quick]

Shapes: wide is 100,000 series over an hour, long is 10,000 over a day, a sample every 15 s; churn is a day
of 5,000 at a time, each of which gives way to another after four hours, and not measured unless it is named.
--quick: a twentieth of the series, one round of 100 ms. Each question is asked for --ask-ms in each
of the rounds, of one system after the other.";

/// How many series, and how long they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Shape {
    pub name: &'static str,
    pub series: u32,
    /// Samples of each.
    pub samples: u32,
    /// After so many another series takes the place of one.
    pub life_rounds: Option<u32>,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub programs: Programs,
    pub systems: Vec<Kind>,
    pub shapes: Vec<Shape>,
    pub rounds: u32,
    pub ask: Duration,
    pub settle: Duration,
    pub directory: PathBuf,
}

impl Options {
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut options = Self {
            programs: Programs::default(),
            systems: Vec::new(),
            shapes: Vec::new(),
            rounds: 3,
            ask: Duration::from_millis(500),
            settle: Duration::from_secs(20),
            directory: PathBuf::from("bench/results"),
        };
        let (mut systems, mut shapes, mut quick) = (None, "wide,long".to_owned(), false);
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            let lexopt::Arg::Long(name) = argument else {
                bail!("{}\n{USAGE}", argument.unexpected());
            };
            match name {
                "quorate" => options.programs.quorate = Some(parser.value()?.into()),
                "prometheus" => options.programs.prometheus = Some(parser.value()?.into()),
                "victoria" => options.programs.victoria = Some(parser.value()?.into()),
                "systems" => systems = Some(parser.value()?.string()?),
                "shapes" => shapes = parser.value()?.string()?,
                "rounds" => options.rounds = parser.value()?.parse()?,
                "ask-ms" => options.ask = Duration::from_millis(parser.value()?.parse()?),
                "settle-seconds" => options.settle = Duration::from_secs(parser.value()?.parse()?),
                "dir" => options.directory = parser.value()?.into(),
                "quick" => {
                    quick = true;
                    options.rounds = 1;
                    options.ask = Duration::from_millis(100);
                    options.settle = Duration::from_secs(2);
                }
                _ => bail!("no option --{name}\n{USAGE}"),
            }
        }
        options.shapes = shapes
            .split(',')
            .map(|name| shape(name, quick))
            .collect::<Result<_, _>>()?;
        options.systems = match systems {
            Some(names) => names
                .split(',')
                .map(Kind::parse)
                .collect::<Result<_, _>>()?,
            None => options.systems_named(),
        };
        if options.systems.is_empty() || options.rounds == 0 {
            bail!("nothing to measure\n{USAGE}");
        }
        Ok(options)
    }

    fn systems_named(&self) -> Vec<Kind> {
        let programs = &self.programs;
        let mut kinds = Vec::new();
        if programs.quorate.is_some() {
            kinds.extend([Kind::Quorate { nodes: 1 }, Kind::Quorate { nodes: 3 }]);
        }
        kinds.extend(programs.prometheus.as_ref().map(|_| Kind::Prometheus));
        kinds.extend(programs.victoria.as_ref().map(|_| Kind::VictoriaMetrics));
        kinds
    }
}

fn shape(name: &str, quick: bool) -> anyhow::Result<Shape> {
    let part = if quick { 20 } else { 1 };
    let shape = match name {
        "wide" => Shape {
            name: "wide",
            series: 100_000 / part,
            samples: 240,
            life_rounds: None,
        },
        "long" => Shape {
            name: "long",
            series: 10_000 / part,
            samples: 5_760,
            life_rounds: None,
        },
        "churn" => Shape {
            name: "churn",
            series: 5_000 / part,
            samples: 5_760,
            life_rounds: Some(960),
        },
        _ => bail!("no shape {name:?}; there are wide, long and churn"),
    };
    assert!(
        shape.series.is_multiple_of(SERIES_PER_TARGET),
        "whole targets"
    );
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> anyhow::Result<Options> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn quick_is_a_twentieth() {
        let options = parse(&["--quorate", "q", "--victoria", "v", "--quick"]).unwrap();
        let series: Vec<u32> = options.shapes.iter().map(|s| s.series).collect();
        assert_eq!((series, options.systems.len()), (vec![5_000, 500], 3));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--quorate", "q", "--shapes", "round"]).is_err());
        assert!(parse(&["--quorate", "q", "--rounds", "0"]).is_err());
        assert!(parse(&["--quorate", "q", "extra"]).is_err());
    }
}
