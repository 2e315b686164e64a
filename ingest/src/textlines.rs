//! Exposition text as an import: samples with times of their own, line by line.
//!
//! Unlike a scrape, a line that breaks the format takes nothing with it. OpenMetrics, whose lines
//! mean something only together (`# EOF`), is read whole or not at all.

use model::{Labels, Timestamp};

use crate::exposition::{Entry, MetricKind, ParseError};
use crate::lines::{self, Parsed};
use crate::{openmetrics, text};

/// What a request says beside its lines.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Of samples without a time.
    pub now: Timestamp,
    /// Set on every series.
    pub extra: &'a [(String, String)],
}

/// Where an import stands between two blocks.
#[derive(Debug, Default, Clone, Copy)]
pub struct Place {
    /// The number of the line read last.
    pub line: u64,
    kind: MetricKind,
}

/// Reads the whole lines of `block` into `parsed` and returns their length.
pub fn read(
    block: &[u8],
    last: bool,
    options: &Options<'_>,
    place: &mut Place,
    parsed: &mut Parsed,
) -> usize {
    let length = lines::whole_lines(block, last);
    for line in lines::split(&block[..length]) {
        place.line += 1;
        if let Err(cause) = read_line(line, options, place, parsed) {
            let text = String::from_utf8_lossy(line);
            parsed.problems.add(place.line, &text, cause);
        }
    }
    length
}

fn read_line(
    line: &[u8],
    options: &Options<'_>,
    place: &mut Place,
    parsed: &mut Parsed,
) -> Result<(), String> {
    let told = |e: ParseError| format!("expected {}, found {}", e.expected, e.found);
    let mut parser = text::Parser::of_line(line, place.kind).map_err(told)?;
    while let Some(entry) = parser.next_entry().map_err(told)? {
        let Entry::Sample(sample) = entry else {
            continue;
        };
        let labels = parser.labels().map_err(|e| e.to_string())?;
        let at = sample.timestamp.unwrap_or(options.now);
        let labels = with(labels, options.extra);
        parsed.add(place.line, labels, at, sample.value);
    }
    place.kind = parser.kind();
    Ok(())
}

/// Reads a whole body of OpenMetrics.
pub fn read_openmetrics(body: &[u8], options: &Options<'_>) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    let mut parser = openmetrics::Parser::new(body)?;
    let mut sample_number = 0;
    while let Some(entry) = parser.next_entry()? {
        let Entry::Sample(sample) = entry else {
            continue;
        };
        sample_number += 1;
        match parser.labels() {
            Ok(labels) => {
                let at = sample.timestamp.unwrap_or(options.now);
                let labels = with(labels, options.extra);
                parsed.add(sample_number, labels, at, sample.value);
            }
            Err(error) => {
                let cause = error.to_string();
                parsed.problems.add(sample_number, &sample.series, cause);
            }
        }
    }
    Ok(parsed)
}

fn with(labels: Labels, extra: &[(String, String)]) -> Labels {
    if extra.is_empty() {
        return labels;
    }
    let mut builder = labels.to_builder();
    for (name, value) in extra {
        builder.set(name, value);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(body: &str, extra: &[(String, String)]) -> Parsed {
        let options = Options {
            now: Timestamp(7),
            extra,
        };
        let (mut parsed, mut place) = (Parsed::default(), Place::default());
        read(body.as_bytes(), true, &options, &mut place, &mut parsed);
        assert_eq!(parsed.batch.validate(), Ok(()));
        parsed
    }

    #[test]
    fn samples_have_their_own_times_and_bad_lines_are_told() {
        let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 2 1000\nbad{ 1\nfoo 3\n";
        let parsed = parse(body, &[("foo".to_owned(), "bar".to_owned())]);
        let series: Vec<_> = parsed.batch.series.iter().map(Labels::to_string).collect();
        assert_eq!(
            series,
            [
                r#"{__name__="h_bucket", foo="bar", le="1.0"}"#,
                r#"{__name__="foo", foo="bar"}"#
            ]
        );
        assert_eq!(parsed.batch.rows.timestamps, [1000, 7].map(Timestamp));
        assert_eq!(parsed.lines, [2, 4]);
        let problem = &parsed.problems.first[0];
        assert_eq!((problem.line, &*problem.text), (3, "bad{ 1"));
        assert!(problem.cause.starts_with("expected "), "{}", problem.cause);
    }

    #[test]
    fn openmetrics_is_read_whole_or_not_at_all() {
        let options = Options {
            now: Timestamp(7),
            extra: &[],
        };
        let body = b"# TYPE a counter\na_total 1 1.5\na_total{x=\"y\"} 2\n# EOF\n";
        let parsed = read_openmetrics(body, &options).unwrap();
        assert_eq!(parsed.batch.rows.timestamps, [1500, 7].map(Timestamp));
        assert!(read_openmetrics(b"a_total 1\n", &options).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(
                prop::sample::select(&b"a{=}\"\\, \n1.#TYPE\xc3"[..]), 0..60
            ),
        ) {
            let options = Options { now: Timestamp(0), extra: &[] };
            let (mut parsed, mut place) = (Parsed::default(), Place::default());
            read(&bytes, true, &options, &mut place, &mut parsed);
            prop_assert_eq!(parsed.batch.validate(), Ok(()));
            let _ = read_openmetrics(&bytes, &options);
        }
    }
}
