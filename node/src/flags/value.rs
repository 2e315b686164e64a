//! One flag's value, from its text.

use std::fmt;
use std::time::Duration;

use model::time::parse_duration;

use super::UsageError;
use super::table::{Flag, Kind};
use crate::config::size::parse_size;

/// `host:port`. An empty host means every interface to listen on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Reads `host:port`, `:port`, `[::1]:port`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected host:port or :port";
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("missing port in address; {expected}"))?;
        let port = port
            .parse()
            .map_err(|_| format!("{port:?} is no port; {expected}"))?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6,
            None if host.contains(':') => {
                return Err("too many colons in address; write [address]:port".to_owned());
            }
            None => host,
        };
        if host.contains(['/', ' ', '[', ']', '@']) {
            return Err(format!("{host:?} is no host; {expected}"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Whether it stands for every interface, so that nobody else can connect to it as written.
    pub fn is_unspecified(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "::")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why a value is refused, with the flag, the value and what was expected.
pub fn refused(name: &str, value: &str, why: &str) -> UsageError {
    UsageError {
        message: format!("--{name}={value}: {why}"),
        exit_code: 2,
    }
}

/// Checks a text against its flag's kind, served or not: a unit that starts here must start
/// there.
pub fn check(flag: &Flag, text: &str) -> Result<(), UsageError> {
    let name = flag.name;
    match flag.kind {
        Kind::Text | Kind::Truth | Kind::List => Ok(()),
        Kind::Duration => duration(name, text).map(drop),
        Kind::Size => size(name, text).map(drop),
        Kind::Number => number(name, text).map(drop),
        Kind::Float => match text.parse::<f64>() {
            Ok(_) => Ok(()),
            Err(_) => Err(refused(name, text, "expected a number such as 0.9")),
        },
        Kind::Address | Kind::Addresses => address(name, text).map(drop),
        Kind::Choice(known) if known.contains(&text) => Ok(()),
        Kind::Choice(known) => {
            let known = known.join(", ");
            Err(refused(name, text, &format!("expected one of: {known}")))
        }
        Kind::Regex => match model::matcher::compile_anchored(text) {
            Ok(_) => Ok(()),
            Err(error) => Err(refused(name, text, &error.to_string())),
        },
    }
}

pub fn duration(name: &str, text: &str) -> Result<Duration, UsageError> {
    parse_duration(text).map_err(|error| {
        let why = format!("{error}; expected a duration such as 15s, 5m, 1h30m or 15d");
        refused(name, text, &why)
    })
}

pub fn size(name: &str, text: &str) -> Result<u64, UsageError> {
    parse_size(text).map_err(|error| {
        let why = format!("{error}; expected a size with its unit such as 512MB or 20GB");
        refused(name, text, &why)
    })
}

/// A whole number, also written as a float (`5e7`), as Prometheus takes it.
pub fn number(name: &str, text: &str) -> Result<u64, UsageError> {
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..=9e15).contains(number);
    let float = || text.parse::<f64>().ok().filter(whole).map(|n| n as u64);
    text.parse()
        .ok()
        .or_else(float)
        .ok_or_else(|| refused(name, text, "expected a whole number, 0 or more"))
}

/// `None` for the empty text.
pub fn address(name: &str, text: &str) -> Result<Option<Address>, UsageError> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = Address::parse(text);
    address.map(Some).map_err(|why| refused(name, text, &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_write() {
        for text in [":9090", "0.0.0.0:9090", "node-1:1", "[::1]:9090"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "9090",
            "a:b",
            "::1:9090",
            "http://a:1",
            "a:70000",
            "a b:1",
            "[::1:1",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        assert!(Address::parse(":1").unwrap().is_unspecified());
        assert!(!Address::parse("127.0.0.1:1").unwrap().is_unspecified());
    }

    #[test]
    fn numbers_may_be_written_as_floats() {
        assert_eq!(number("n", "5e7"), Ok(50_000_000));
        for text in ["", "-1", "1.5", "abc", "1e300", "NaN"] {
            assert!(number("n", text).is_err(), "{text}");
        }
    }
}
