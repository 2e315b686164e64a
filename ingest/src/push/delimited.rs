//! The body of a push as protobuf: `io.prometheus.client.MetricFamily` messages, each behind its
//! length (proto/proto/exposition.proto).
//!
//! Promise: what pushgateway 1.11 takes is taken. Of a native histogram the count and the sum are
//! kept, as the text page of the original shows it; its buckets are not kept yet.

use model::group::{Family, FamilyKind, GroupingKey};
use model::limits;
use proto::wire::{Field, Fields, WireError, split_delimited};

use super::check::{self, Building, Metric, Value};
use super::{Names, PushError, Rules, quoted};

/// Parses a body pushed to the group of `key`; the result is that of [`super::parse`]. As in the
/// original, any text is a name here, whatever the rules say of names.
pub fn parse_delimited(
    body: &[u8],
    key: &GroupingKey,
    rules: impl Into<Rules>,
) -> Result<Vec<Family>, PushError> {
    let rules = rules.into();
    let mut rest = body;
    let mut families: Vec<Building> = Vec::new();
    let mut problem = None;
    let mut timestamps = false;
    while !rest.is_empty() {
        let (message, after) = split_delimited(rest).map_err(malformed)?;
        rest = after;
        let mut reader = Reader {
            names: Names::Utf8,
            family: Building::new(String::new()),
            timestamps: false,
            problem: None,
        };
        reader.family(message)?;
        timestamps |= reader.timestamps;
        problem = problem.or(reader.problem);
        // Of two families of a name the later one stands, as in the original.
        families.retain(|family| family.name != reader.family.name);
        families.push(reader.family);
    }
    if timestamps {
        return Err(PushError::Timestamps);
    }
    match problem {
        Some(problem) => Err(PushError::Inconsistent(problem)),
        None => check::finish(families, key, rules.unchecked),
    }
}

struct Reader {
    names: Names,
    family: Building,
    timestamps: bool,
    /// The first thing that makes the push inconsistent.
    problem: Option<String>,
}

impl Reader {
    fn family(&mut self, message: &[u8]) -> Result<(), PushError> {
        let mut metrics = Vec::new();
        for field in Fields::new(message) {
            let field = field.map_err(malformed)?;
            match field.number {
                1 => self.family.name = text(&field)?.to_owned(),
                2 => self.family.help = Some(text(&field)?.to_owned()),
                3 => self.family.kind = Some(kind_of(field.int64().map_err(malformed)?)?),
                4 => metrics.push(field.bytes().map_err(malformed)?),
                _ => {}
            }
        }
        self.family.kind.get_or_insert(FamilyKind::Counter);
        if !self.names.allow_metric(&self.family.name) {
            let name = quoted(&self.family.name);
            return Err(PushError::Protobuf(format!("invalid metric name {name}")));
        }
        check_length("metric name", &self.family.name)?;
        metrics
            .into_iter()
            .try_for_each(|metric| self.metric(metric))
    }

    fn metric(&mut self, message: &[u8]) -> Result<(), PushError> {
        let kind = self.family.kind.unwrap_or_default();
        let wanted = match kind {
            FamilyKind::Gauge => 2,
            FamilyKind::Counter => 3,
            FamilyKind::Summary => 4,
            FamilyKind::Untyped => 5,
            FamilyKind::Histogram => 7,
        };
        let mut labels = Vec::new();
        let mut value = None;
        for field in Fields::new(message) {
            let field = field.map_err(malformed)?;
            match field.number {
                1 => labels.push(self.label(field.bytes().map_err(malformed)?)?),
                6 => self.timestamps |= field.int64().map_err(malformed)? != 0,
                number if number == wanted => value = Some(field.bytes().map_err(malformed)?),
                _ => {}
            }
        }
        if labels.len() > limits::LABELS_MAX {
            let why = format!("more than {} labels", limits::LABELS_MAX);
            return Err(PushError::Protobuf(why));
        }
        let Some(value) = value else {
            self.problem.get_or_insert_with(|| {
                format!(
                    "collected metric {} {{ }} is not a {}",
                    quoted(&self.family.name),
                    kind.as_str().to_uppercase()
                )
            });
            return Ok(());
        };
        let value = match kind {
            FamilyKind::Histogram => compound(value, (3, 2, 1)),
            FamilyKind::Summary => compound(value, (3, 1, 2)),
            _ => single(value),
        };
        let value = value.map_err(malformed)?;
        self.family.metrics.push(Metric::new(labels, value));
        Ok(())
    }

    fn label(&self, message: &[u8]) -> Result<(String, String), PushError> {
        let (mut name, mut value) = ("", "");
        for field in Fields::new(message) {
            let field = field.map_err(malformed)?;
            match field.number {
                1 => name = field.text().map_err(malformed)?,
                2 => value = field.text().map_err(malformed)?,
                _ => {}
            }
        }
        if !self.names.allow_label(name) {
            let name = quoted(name);
            return Err(PushError::Protobuf(format!("invalid label name {name}")));
        }
        check_length("label name", name)?;
        check_length("label value", value)?;
        Ok((name.to_owned(), value.to_owned()))
    }
}

fn text<'a>(field: &Field<'a>) -> Result<&'a str, PushError> {
    field.text().map_err(malformed)
}

fn kind_of(number: i64) -> Result<FamilyKind, PushError> {
    match number {
        0 => Ok(FamilyKind::Counter),
        1 => Ok(FamilyKind::Gauge),
        2 => Ok(FamilyKind::Summary),
        3 => Ok(FamilyKind::Untyped),
        4 | 5 => Ok(FamilyKind::Histogram),
        _ => Err(PushError::Protobuf(format!("unknown metric type {number}"))),
    }
}

fn single(message: &[u8]) -> Result<Value, WireError> {
    let mut value = 0.0;
    for field in Fields::new(message) {
        let field = field?;
        if field.number == 1 {
            value = field.double()?;
        }
    }
    Ok(Value::Single(value))
}

/// A histogram or summary; `numbers` are the fields of its bounds, and in these of the bound and
/// of the value.
fn compound(message: &[u8], numbers: (u32, u32, u32)) -> Result<Value, WireError> {
    let (mut count, mut count_float, mut sum) = (0.0, 0.0, 0.0);
    let mut bounds = Vec::new();
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => count = field.int64()? as u64 as f64,
            2 => sum = field.double()?,
            4 => count_float = field.double()?,
            number if number == numbers.0 => bounds.push(bound(field.bytes()?, numbers)?),
            _ => {}
        }
    }
    Ok(Value::Compound {
        bounds,
        sum,
        count: if count_float > 0.0 {
            count_float
        } else {
            count
        },
    })
}

fn bound(message: &[u8], (_, place, value): (u32, u32, u32)) -> Result<(f64, f64), WireError> {
    let mut found = (0.0, 0.0);
    let mut float = 0.0;
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            number if number == place => found.0 = field.double()?,
            // A bucket counts in whole numbers, a quantile is a float.
            number if number == value => {
                found.1 = match field.int64() {
                    Ok(count) => count as u64 as f64,
                    Err(_) => field.double()?,
                };
            }
            4 => float = field.double()?,
            _ => {}
        }
    }
    if float > 0.0 {
        found.1 = float;
    }
    Ok(found)
}

fn check_length(what: &str, text: &str) -> Result<(), PushError> {
    let (bytes, max) = (text.len(), limits::LABEL_BYTES_MAX);
    match bytes > max {
        true => Err(PushError::Protobuf(format!(
            "{what} of {bytes} bytes, the limit is {max}"
        ))),
        false => Ok(()),
    }
}

fn malformed(error: WireError) -> PushError {
    match error {
        WireError::Truncated => PushError::Protobuf("unexpected EOF".to_owned()),
        error => PushError::Protobuf(format!("proto: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> GroupingKey {
        GroupingKey::new([("job".to_owned(), "j".to_owned())]).unwrap()
    }

    fn field(number: u8, body: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, body.len() as u8], body].concat()
    }

    fn delimited(message: &[u8]) -> Vec<u8> {
        [&[message.len() as u8], message].concat()
    }

    fn double(number: u8, value: f64) -> Vec<u8> {
        [&[number << 3 | 1][..], &value.to_le_bytes()].concat()
    }

    #[test]
    fn a_gauge_and_a_histogram_are_read() {
        let gauge = [
            field(1, b"g"),
            vec![3 << 3, 1],
            field(4, &field(2, &double(1, -3.0))),
        ];
        let bucket = field(3, &[vec![1 << 3, 2], double(2, 0.5)].concat());
        let histogram = [vec![1 << 3, 7], double(2, 9.5), bucket].concat();
        let histogram = [
            field(1, b"h"),
            vec![3 << 3, 4],
            field(4, &field(7, &histogram)),
        ];
        let body = [delimited(&gauge.concat()), delimited(&histogram.concat())].concat();
        let families = parse_delimited(&body, &key(), Names::Legacy).unwrap();
        let values: Vec<(&str, &str, f64)> = families
            .iter()
            .flat_map(|f| {
                f.samples
                    .iter()
                    .map(|s| (f.name.as_str(), s.suffix, s.value))
            })
            .collect();
        assert_eq!(
            values,
            [
                ("g", "", -3.0),
                ("h", "_bucket", 2.0),
                ("h", "_bucket", 7.0),
                ("h", "_sum", 9.5),
                ("h", "_count", 7.0)
            ]
        );
        let cut = parse_delimited(&body[..body.len() - 3], &key(), Names::Legacy);
        assert_eq!(cut, Err(PushError::Protobuf("unexpected EOF".to_owned())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_delimited(&body, &key(), Names::Utf8);
        }
    }
}
