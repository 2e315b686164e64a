//! An answer of the query API, taken apart so that two can be compared.
//!
//! Equal means: the same HTTP status and errorType; or the same result type, series, timestamps
//! and values, values within [`FRACTION`] of each other. Texts of errors, warnings, infos and the order of a
//! matrix are told apart.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::Value;

/// The relative tolerance of PromQL's compliance tester.
pub const FRACTION: f64 = 1e-5;

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub outcome: Outcome,
    /// Warnings and infos, sorted.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Error {
        kind: String,
        text: String,
    },
    /// A scalar and a text are a row without labels.
    Data {
        kind: String,
        rows: Vec<Row>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since 1970, and what is there.
    pub points: Vec<(i64, Sample)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    Float(f64),
    Text(String),
    /// Count, sum, and buckets of (boundary rule, lower, upper, count).
    Histogram(f64, f64, Vec<[f64; 4]>),
}

/// How close two equal answers are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub values: u64,
    pub bit_exact: u64,
    pub notes_differ: bool,
    pub order_differs: bool,
    /// Both are errors, in other words.
    pub texts_differ: bool,
}

impl Answer {
    pub fn read(status: u16, body: &[u8]) -> anyhow::Result<Self> {
        let shown = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let value: Value =
            serde_json::from_slice(body).with_context(|| format!("{status}: {}", shown()))?;
        let texts = |name: &str| {
            let list = value[name].as_array().cloned().unwrap_or_default();
            list.into_iter()
                .filter_map(|text| text.as_str().map(str::to_owned))
        };
        let mut notes: Vec<String> = texts("warnings").chain(texts("infos")).collect();
        notes.sort();
        let outcome = match value["status"].as_str() {
            Some("error") => Outcome::Error {
                kind: value["errorType"].as_str().unwrap_or("").to_owned(),
                text: value["error"].as_str().unwrap_or("").to_owned(),
            },
            Some("success") => data(&value["data"]).with_context(shown)?,
            _ => bail!("{status}: no status in {}", shown()),
        };
        Ok(Self {
            status,
            outcome,
            notes,
        })
    }

    /// Stands for bytes that are no answer, or none at all.
    pub fn unreadable(why: &str) -> Self {
        Self {
            status: 0,
            outcome: Outcome::Error {
                kind: "unreadable".to_owned(),
                text: why.to_owned(),
            },
            notes: Vec::new(),
        }
    }

    /// The text of an error, warnings and infos.
    pub fn words(&self) -> Vec<&str> {
        let error = match &self.outcome {
            Outcome::Error { text, .. } => Some(text.as_str()),
            Outcome::Data { .. } => None,
        };
        let notes = self.notes.iter().map(String::as_str);
        error.into_iter().chain(notes).collect()
    }

    pub fn line(&self) -> String {
        match &self.outcome {
            Outcome::Error { kind, text } => format!("{} {kind}: {text}", self.status),
            Outcome::Data { kind, rows } => {
                let shown: Vec<String> = rows.iter().take(6).map(Row::line).collect();
                format!("{kind}, {} series: {}", rows.len(), shown.join("; "))
            }
        }
    }

    /// How `other` differs from this one, or how close they are.
    pub fn compare(&self, other: &Self, ordered: bool) -> Result<Tally, String> {
        let mut tally = Tally {
            notes_differ: self.notes != other.notes,
            ..Tally::default()
        };
        match (&self.outcome, &other.outcome) {
            (
                Outcome::Error { kind: a, text },
                Outcome::Error {
                    kind: b,
                    text: said,
                },
            ) => {
                tally.texts_differ = told(text) != told(said);
                if (self.status, a) != (other.status, b) {
                    return Err(format!("{} {a} or {} {b}", self.status, other.status));
                }
            }
            (
                Outcome::Data {
                    kind: a,
                    rows: left,
                },
                Outcome::Data {
                    kind: b,
                    rows: right,
                },
            ) => {
                if (self.status, a) != (other.status, b) {
                    return Err(format!("{} {a} or {} {b}", self.status, other.status));
                }
                rows(left, right, &mut tally)?;
                if ordered {
                    in_order(left, right)?;
                }
                let names =
                    |rows: &[Row]| rows.iter().map(|r| r.labels.clone()).collect::<Vec<_>>();
                tally.order_differs = a == "matrix" && names(left) != names(right);
            }
            _ => return Err("one is an error".to_owned()),
        }
        Ok(tally)
    }
}

impl Row {
    fn line(&self) -> String {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(n, v)| format!("{n}={v:?}"))
            .collect();
        let points: Vec<_> = self.points.iter().take(4).map(Sample::line).collect();
        let more = self.points.len().saturating_sub(4);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("{{{}}} {}{more}", labels.join(","), points.join(" "))
    }
}

impl Sample {
    fn line(point: &(i64, Self)) -> String {
        let at_s = point.0 as f64 / 1000.0;
        match &point.1 {
            Self::Float(value) => format!("{value:?}@{at_s}"),
            Self::Text(text) => format!("{text:?}@{at_s}"),
            Self::Histogram(count, sum, buckets) => {
                format!("{{count:{count} sum:{sum} {buckets:?}}}@{at_s}")
            }
        }
    }

    fn compare(&self, other: &Self, tally: &mut Tally) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => close(*a, *b, tally),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Histogram(count, sum, buckets), Self::Histogram(count_b, sum_b, buckets_b)) => {
                let flat = |count: f64, sum: f64, buckets: &[[f64; 4]]| {
                    let buckets = buckets.iter().flatten().copied();
                    [count, sum].into_iter().chain(buckets).collect::<Vec<_>>()
                };
                let (a, b) = (
                    flat(*count, *sum, buckets),
                    flat(*count_b, *sum_b, buckets_b),
                );
                a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| close(*a, *b, tally))
            }
            _ => false,
        }
    }
}

/// What of an error's text must agree. Which of the duplicates it names hangs on the order in which
/// Prometheus' head met the series.
fn told(text: &str) -> &str {
    const DUPLICATE: &str = "found duplicate series for the match group";
    if text.starts_with(DUPLICATE) {
        DUPLICATE
    } else {
        text
    }
}

fn close(a: f64, b: f64, tally: &mut Tally) -> bool {
    tally.values += 1;
    if a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) {
        tally.bit_exact += 1;
        return true;
    }
    a == b || (a - b).abs() <= FRACTION * a.abs().max(b.abs()) && a.is_finite() && b.is_finite()
}

fn rows(left: &[Row], right: &[Row], tally: &mut Tally) -> Result<(), String> {
    let index = |rows: &'_ [Row]| -> BTreeMap<BTreeMap<String, String>, Row> {
        rows.iter()
            .map(|row| (row.labels.clone(), row.clone()))
            .collect()
    };
    let (a, b) = (index(left), index(right));
    if a.len() != left.len() || b.len() != right.len() {
        return Err("one has a label set twice".to_owned());
    }
    if let Some(row) = a.values().find(|row| !b.contains_key(&row.labels)) {
        return Err(format!("missing {}", row.line()));
    }
    if let Some(row) = b.values().find(|row| !a.contains_key(&row.labels)) {
        return Err(format!("too many {}", row.line()));
    }
    for (row, other) in a.values().zip(b.values()) {
        let times = |row: &Row| row.points.iter().map(|p| p.0).collect::<Vec<_>>();
        if times(row) != times(other) {
            return Err(format!("timestamps: {} or {}", row.line(), other.line()));
        }
        for (x, y) in row.points.iter().zip(&other.points) {
            if !x.1.compare(&y.1, tally) {
                let (x, y) = (Sample::line(x), Sample::line(y));
                return Err(format!("{x} or {y} of {}", row.line()));
            }
        }
    }
    Ok(())
}

/// Equal values may stand in any order among themselves.
fn in_order(left: &[Row], right: &[Row]) -> Result<(), String> {
    for (n, (a, b)) in left.iter().zip(right).enumerate() {
        let same = a
            .points
            .iter()
            .zip(&b.points)
            .all(|(x, y)| x.1.compare(&y.1, &mut Tally::default()));
        if !same {
            return Err(format!("order, at {n}: {} or {}", a.line(), b.line()));
        }
    }
    Ok(())
}

fn data(data: &Value) -> anyhow::Result<Outcome> {
    let kind = data["resultType"]
        .as_str()
        .context("no resultType")?
        .to_owned();
    let result = &data["result"];
    let rows = match kind.as_str() {
        "scalar" | "string" => vec![Row {
            labels: BTreeMap::new(),
            points: vec![point(result, kind == "string")?],
        }],
        _ => {
            let list = result.as_array().context("no list of series")?;
            list.iter().map(row).collect::<anyhow::Result<_>>()?
        }
    };
    Ok(Outcome::Data { kind, rows })
}

fn row(value: &Value) -> anyhow::Result<Row> {
    let labels = value["metric"].as_object().context("no metric")?;
    let labels = labels.iter().map(|(name, value)| {
        let value = value.as_str().context("a label is no text")?;
        Ok((name.clone(), value.to_owned()))
    });
    let mut points = Vec::new();
    for name in ["value", "histogram"] {
        if !value[name].is_null() {
            points.push(point(&value[name], false)?);
        }
    }
    for name in ["values", "histograms"] {
        for one in value[name].as_array().into_iter().flatten() {
            points.push(point(one, false)?);
        }
    }
    points.sort_by_key(|point| point.0);
    Ok(Row {
        labels: labels.collect::<anyhow::Result<_>>()?,
        points,
    })
}

fn point(value: &Value, is_text: bool) -> anyhow::Result<(i64, Sample)> {
    let at_s = value[0].as_f64().context("no timestamp")?;
    let at_ms = (at_s * 1000.0).round() as i64;
    let sample = match &value[1] {
        Value::String(text) if is_text => Sample::Text(text.clone()),
        Value::String(text) => Sample::Float(float(text)?),
        object => {
            let number = |v: &Value| float(v.as_str().context("no number")?);
            let buckets = object["buckets"].as_array().cloned().unwrap_or_default();
            let buckets = buckets.iter().map(|bucket| {
                let rule = bucket[0].as_f64().context("no boundary rule")?;
                Ok([
                    rule,
                    number(&bucket[1])?,
                    number(&bucket[2])?,
                    number(&bucket[3])?,
                ])
            });
            Sample::Histogram(
                number(&object["count"])?,
                number(&object["sum"])?,
                buckets.collect::<anyhow::Result<_>>()?,
            )
        }
    };
    Ok((at_ms, sample))
}

fn float(text: &str) -> anyhow::Result<f64> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        text => text
            .parse()
            .with_context(|| format!("{text:?} is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(result: &str) -> Answer {
        let text = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#
        );
        Answer::read(200, text.as_bytes()).unwrap()
    }

    const A: &str = r#"{"metric":{"a":"x"},"value":[1.5,"1"]}"#;
    const B: &str = r#"{"metric":{"a":"y"},"value":[1.5,"NaN"]}"#;

    #[test]
    fn the_same_is_equal_to_the_bit() {
        let both = answer(&format!("{A},{B}"));
        let tally = both.compare(&answer(&format!("{B},{A}")), false).unwrap();
        assert_eq!((tally.values, tally.bit_exact), (2, 2));
        assert!(both.compare(&answer(&format!("{B},{A}")), true).is_err());
    }

    #[test]
    fn differences_are_seen() {
        let own = answer(A);
        for other in [
            r#"{"metric":{"a":"x"},"value":[1.5,"1.0001"]}"#,
            r#"{"metric":{"a":"x"},"value":[1.5,"NaN"]}"#,
            r#"{"metric":{"a":"x"},"value":[1.5,"+Inf"]}"#,
            r#"{"metric":{"a":"x"},"value":[1.501,"1"]}"#,
            r#"{"metric":{"a":"z"},"value":[1.5,"1"]}"#,
            r#"{"metric":{"a":"x"},"histogram":[1.5,{"count":"1","sum":"1"}]}"#,
            "",
        ] {
            assert!(own.compare(&answer(other), false).is_err(), "{other}");
            assert!(answer(other).compare(&own, false).is_err(), "{other}");
        }
        let near = answer(r#"{"metric":{"a":"x"},"value":[1.5,"1.000001"]}"#);
        let tally = own.compare(&near, true).unwrap();
        assert_eq!((tally.values, tally.bit_exact), (1, 0));
    }

    #[test]
    fn errors_agree_by_status_and_type() {
        let error = |status, kind: &str, text: &str| {
            let body = format!(r#"{{"status":"error","errorType":"{kind}","error":"{text}"}}"#);
            Answer::read(status, body.as_bytes()).unwrap()
        };
        let own = error(422, "execution", "a");
        assert!(own.compare(&error(422, "execution", "b"), false).is_ok());
        assert!(own.compare(&error(400, "bad_data", "a"), false).is_err());
        assert!(own.compare(&error(400, "execution", "a"), false).is_err());
        assert!(own.compare(&answer(A), false).is_err());
        assert!(Answer::read(502, b"oops").is_err());
    }
}
