//! The command line: what is measured, how much of it, and for how long at most.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use lexopt::ValueExt;

use crate::send::Load;
use crate::shape::{INTERVAL_MS, PLAIN, Shape};
use crate::system::{Kind, Programs};

const ROUNDS_PER_HOUR: u32 = (3_600_000 / INTERVAL_MS) as u32;

const USAGE: &str = "\
bench --quorate PATH [--prometheus PATH] [--victoria PATH] [--series 100000] [--rounds 40] [--runs 3]
      [--senders 4] [--seconds-max 180] [--settle-seconds 5] [--dir DIRECTORY] [--quick]
      [--systems quorate-1,quorate-3,prometheus,victoria-metrics] [--churn PERCENT] [--rate SAMPLES]
      [--requests wide,deep]
bench all ...: everything, one after the other; bench all --help
bench queries ...: how fast questions are answered; bench queries --help

--series and --rounds: how many series, and how many samples each; --quick is
--series 10000 --rounds 20 --runs 1. --churn is how many of a hundred series end and are
replaced by others in an hour of the data, which is 240 rounds. Sending stops after --seconds-max whatever is left.
--requests are of 2,000 series with one sample (wide) or of 100 with twenty (deep).
--rate is how many samples a second all senders send together, instead of as fast as they are acknowledged.
Without --prometheus only quorate is measured, --quorate is needed for quorate only.";

#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub systems: Vec<Kind>,
    pub quorate: Option<PathBuf>,
    pub prometheus: Option<PathBuf>,
    pub victoria: Option<PathBuf>,
    pub series: u32,
    pub rounds: u32,
    pub runs: u32,
    pub senders: u32,
    /// Of a hundred series, those that others replace in an hour of the data.
    pub churn: u32,
    /// Samples a second; as fast as they are acknowledged where there is none.
    pub rate: Option<u32>,
    pub shapes: Vec<Shape>,
    pub send_max: Duration,
    pub settle: Duration,
    pub directory: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            systems: Vec::new(),
            quorate: None,
            prometheus: None,
            victoria: None,
            series: 100_000,
            rounds: 40,
            runs: 3,
            senders: 4,
            churn: 0,
            rate: None,
            shapes: vec![Shape::Wide, Shape::Deep],
            send_max: Duration::from_secs(180),
            settle: Duration::from_secs(5),
            directory: PathBuf::from("bench/results"),
        }
    }
}

impl Options {
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        Self::parse_onto(Self::default(), arguments)
    }

    /// Whatever is not said is as in `options`.
    pub fn parse_onto(
        mut options: Self,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<Self> {
        let mut systems = None;
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            let lexopt::Arg::Long(name) = argument else {
                bail!("{}\n{USAGE}", argument.unexpected());
            };
            match name {
                "quorate" => options.quorate = Some(parser.value()?.into()),
                "prometheus" => options.prometheus = Some(parser.value()?.into()),
                "victoria" => options.victoria = Some(parser.value()?.into()),
                "systems" => systems = Some(parser.value()?.string()?),
                "dir" => options.directory = parser.value()?.into(),
                "series" => options.series = parser.value()?.parse()?,
                "rounds" => options.rounds = parser.value()?.parse()?,
                "runs" => options.runs = parser.value()?.parse()?,
                "churn" => options.churn = parser.value()?.parse()?,
                "rate" => options.rate = Some(parser.value()?.parse()?),
                "requests" => {
                    let names = parser.value()?.string()?;
                    let shapes = names.split(',').map(Shape::parse);
                    options.shapes = shapes.collect::<Result<_, _>>()?;
                }
                "senders" => options.senders = parser.value()?.parse()?,
                "seconds-max" => options.send_max = seconds(&mut parser)?,
                "settle-seconds" => options.settle = seconds(&mut parser)?,
                "quick" => {
                    options.series = 10_000;
                    options.rounds = 20;
                    options.runs = 1;
                }
                _ => bail!("no option --{name}\n{USAGE}"),
            }
        }
        options.systems = match systems {
            Some(names) => names
                .split(',')
                .map(Kind::parse)
                .collect::<Result<_, _>>()?,
            None => options.systems_named(),
        };
        options.checked()
    }

    pub fn programs(&self) -> Programs {
        Programs {
            quorate: self.quorate.clone(),
            prometheus: self.prometheus.clone(),
            victoria: self.victoria.clone(),
            pushgateway: None,
        }
    }

    pub fn load(&self) -> Load {
        Load {
            of: PLAIN,
            series: self.series,
            rounds: self.rounds,
            senders: self.senders,
            life_rounds: (ROUNDS_PER_HOUR * 100).checked_div(self.churn),
            rate: self.rate,
            send_max: self.send_max,
        }
    }

    fn systems_named(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        if self.quorate.is_some() {
            kinds.extend([Kind::Quorate { nodes: 1 }, Kind::Quorate { nodes: 3 }]);
        }
        kinds.extend(self.prometheus.as_ref().map(|_| Kind::Prometheus));
        kinds.extend(self.victoria.as_ref().map(|_| Kind::VictoriaMetrics));
        kinds
    }

    fn checked(self) -> anyhow::Result<Self> {
        let deep = Shape::Deep.samples_per_series();
        if self.rounds == 0 || !self.rounds.is_multiple_of(deep) {
            bail!("--rounds must be a multiple of {deep}, not {}", self.rounds);
        }
        if self.series == 0 || self.runs == 0 || !(1..=64).contains(&self.senders) {
            bail!("--series and --runs must not be 0, and --senders from 1 to 64");
        }
        if self.rate == Some(0) {
            bail!("--rate must not be 0");
        }
        if self.churn > 100 {
            bail!("--churn is at most 100");
        }
        if self.systems.is_empty() {
            bail!("nothing to measure\n{USAGE}");
        }
        for kind in &self.systems {
            let (binary, flag) = match kind {
                Kind::Quorate { .. } => (&self.quorate, "--quorate"),
                Kind::Prometheus => (&self.prometheus, "--prometheus"),
                Kind::VictoriaMetrics => (&self.victoria, "--victoria"),
                Kind::Pushgateway => bail!("{} takes pushes only", kind.name()),
            };
            if binary.is_none() {
                bail!("{flag} is needed to measure {}", kind.name());
            }
        }
        Ok(self)
    }
}

fn seconds(parser: &mut lexopt::Parser) -> anyhow::Result<Duration> {
    Ok(Duration::from_secs(parser.value()?.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> anyhow::Result<Options> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn quick_is_small_and_may_be_changed_after() {
        let options = parse(&["--quorate", "q", "--quick", "--series", "500"]).unwrap();
        assert_eq!((options.series, options.rounds, options.runs), (500, 20, 1));
        assert_eq!(options.systems.len(), 2, "no peer was named");
        assert_eq!(options.load().life_rounds, None);
        let churning = parse(&["--quorate", "q", "--churn", "10"]).unwrap();
        assert_eq!(churning.load().life_rounds, Some(2_400));
        assert!(parse(&["--quorate", "q", "--churn", "101"]).is_err());
        let paced = parse(&["--quorate", "q", "--rate", "5000"]).unwrap();
        assert_eq!(paced.load().rate, Some(5_000));
        assert!(parse(&["--quorate", "q", "--rate", "0"]).is_err());
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--quorate", "q", "--rounds", "30"]).is_err());
        assert!(parse(&["--quorate", "q", "--senders", "0"]).is_err());
        assert!(parse(&["--quorate", "q", "--fast"]).is_err());
        assert!(parse(&["q"]).is_err());
        assert!(parse(&["--quorate", "q", "--systems", "prometheus"]).is_err());
        assert!(parse(&["--quorate", "q", "--systems", "nothing"]).is_err());
    }
}
