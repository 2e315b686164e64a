//! The command line of `bench pushes`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use lexopt::ValueExt;

use crate::system::{Kind, Programs};

const USAGE: &str = "\
bench pushes [--quorate PATH] [--pushgateway PATH] [--systems quorate-1,quorate-3,pushgateway]
             [--groups 1,100,10000] [--senders 128] [--seconds 15] [--stored 300000]
             [--light-senders 4] [--runs 1] [--dir DIRECTORY] [--quick]

Each push is 20 samples of 4 families, sent by --senders keep-alive connections, spread over the
nodes, for --seconds after 2 of warming up. --stored: how many metrics are stored when the time of a
push is compared with that of a store with none, at --light-senders; 0 leaves that out.
--quick: 3 seconds, 1 and 100 groups, 20,000 stored.";

#[derive(Debug, Clone)]
pub struct Options {
    pub programs: Programs,
    pub systems: Vec<Kind>,
    pub groups: Vec<u32>,
    pub senders: u32,
    pub light_senders: u32,
    pub period: Duration,
    pub stored: u32,
    pub runs: u32,
    pub directory: PathBuf,
}

impl Options {
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut options = Self {
            programs: Programs::default(),
            systems: Vec::new(),
            groups: vec![1, 100, 10_000],
            senders: 128,
            light_senders: 4,
            period: Duration::from_secs(15),
            stored: 300_000,
            runs: 1,
            directory: PathBuf::from("bench/results"),
        };
        let mut systems = None;
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            let lexopt::Arg::Long(name) = argument else {
                bail!("{}\n{USAGE}", argument.unexpected());
            };
            match name {
                "quorate" => options.programs.quorate = Some(parser.value()?.into()),
                "pushgateway" => options.programs.pushgateway = Some(parser.value()?.into()),
                "systems" => systems = Some(parser.value()?.string()?),
                "groups" => options.groups = numbers(&parser.value()?.string()?)?,
                "senders" => options.senders = parser.value()?.parse()?,
                "light-senders" => options.light_senders = parser.value()?.parse()?,
                "seconds" => options.period = Duration::from_secs(parser.value()?.parse()?),
                "stored" => options.stored = parser.value()?.parse()?,
                "runs" => options.runs = parser.value()?.parse()?,
                "dir" => options.directory = parser.value()?.into(),
                "quick" => {
                    options.period = Duration::from_secs(3);
                    options.groups = vec![1, 100];
                    options.stored = 20_000;
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

    fn systems_named(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        if self.programs.quorate.is_some() {
            kinds.extend([Kind::Quorate { nodes: 1 }, Kind::Quorate { nodes: 3 }]);
        }
        let pushgateway = self.programs.pushgateway.as_ref();
        kinds.extend(pushgateway.map(|_| Kind::Pushgateway));
        kinds
    }

    fn checked(self) -> anyhow::Result<Self> {
        let senders = 1..=1024;
        let fits = senders.contains(&self.senders) && senders.contains(&self.light_senders);
        if !fits || self.period.is_zero() || self.groups.contains(&0) || self.runs == 0 {
            bail!("senders from 1 to 1024, and no zeros\n{USAGE}");
        }
        if self.systems.is_empty() {
            bail!("nothing to measure\n{USAGE}");
        }
        for kind in &self.systems {
            let named = match kind {
                Kind::Quorate { .. } => &self.programs.quorate,
                Kind::Pushgateway => &self.programs.pushgateway,
                Kind::Prometheus | Kind::VictoriaMetrics => &None,
            };
            if named.is_none() {
                bail!(
                    "{} takes no pushes, or its program is not named",
                    kind.name()
                );
            }
        }
        Ok(self)
    }
}

fn numbers(list: &str) -> anyhow::Result<Vec<u32>> {
    let numbers: Result<_, _> = list.split(',').map(str::parse).collect();
    Ok(numbers?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_no_pushes_is_refused() {
        let parse = |arguments: &[&str]| Options::parse(arguments.iter().map(OsString::from));
        let options = parse(&["--quorate", "q", "--groups", "1,7"]).unwrap();
        assert_eq!((options.groups, options.systems.len()), (vec![1, 7], 2));
        assert!(parse(&["--quorate", "q", "--systems", "prometheus"]).is_err());
        assert!(parse(&["--quorate", "q", "--senders", "0"]).is_err());
        assert!(parse(&[]).is_err());
    }
}
