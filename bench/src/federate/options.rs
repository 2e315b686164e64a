//! The command line of `bench federate`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::bail;
use lexopt::ValueExt;

use crate::queries::{Options as Load, SERIES_PER_TARGET, Shape};
use crate::system::Kind;

const USAGE: &str = "\
bench federate [--quorate PATH] [--prometheus PATH] [--victoria PATH] [--series 100000]
               [--systems quorate-1,quorate-3,prometheus,victoria-metrics] [--rounds 7]
               [--dir DIRECTORY] [--gzip] [--quick]

Each system holds --series series whose newest sample is a minute old, and is asked for all of them
--rounds times once it is at rest, one system after the other. --gzip asks for compressed answers.
--quick: 5,000 series, three rounds.";

/// Samples of each series: more than one, so that a chunk is there to be read.
const SAMPLES: u32 = 20;

pub struct Options {
    pub load: Load,
    pub shape: Shape,
    pub gzip: bool,
}

impl Options {
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let (mut series, mut rounds, mut gzip) = (100_000, 7u32, false);
        // Systems and programs are read as those of `bench queries`.
        let mut others: Vec<OsString> = Vec::new();
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            let lexopt::Arg::Long(name) = argument else {
                bail!("{}\n{USAGE}", argument.unexpected());
            };
            match name {
                "series" => series = parser.value()?.parse()?,
                "rounds" => rounds = parser.value()?.parse()?,
                "gzip" => gzip = true,
                "quick" => (series, rounds) = (5_000, 3),
                "quorate" | "prometheus" | "victoria" | "systems" | "dir" => {
                    others.push(format!("--{name}").into());
                    others.push(parser.value()?);
                }
                _ => bail!("no option --{name}\n{USAGE}"),
            }
        }
        if rounds == 0 || series == 0 || !u32::is_multiple_of(series, SERIES_PER_TARGET) {
            bail!("--series is a multiple of {SERIES_PER_TARGET}\n{USAGE}");
        }
        let load = Load {
            rounds,
            ..Load::parse(others)?
        };
        let shape = Shape {
            name: "newest",
            series,
            samples: SAMPLES,
            life_rounds: None,
        };
        Ok(Self { load, shape, gzip })
    }

    pub fn systems(&self) -> &[Kind] {
        &self.load.systems
    }

    pub fn directory(&self) -> &PathBuf {
        &self.load.directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_targets_are_asked_for() {
        let parse = |arguments: &[&str]| Options::parse(arguments.iter().map(OsString::from));
        assert_eq!(
            parse(&["--quorate", "q", "--quick"]).unwrap().shape.series,
            5_000
        );
        assert!(parse(&["--quorate", "q", "--series", "7"]).is_err());
        assert!(parse(&["--quick"]).is_err());
    }
}
