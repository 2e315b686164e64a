//! Results as the bytes of Prometheus' JSON.
//!
//! Written by hand where Prometheus does so too: values are texts (`"1e-07"`, `"+Inf"`), a
//! timestamp has three decimals or none, label texts are escaped less than other texts. The rest
//! goes through serde in the order of the struct. Promise: byte for byte Prometheus 3.5.

use std::fmt::Write;

use model::{Histogram, Labels, Sample, Series, Timestamp, number};
use promql::{IntoSeries, Matrix, Value, VectorSample, native};
use serde::Serialize;

use super::errors::ApiError;

/// A JSON text under construction.
#[derive(Debug, Default)]
pub struct Json(String);

impl Json {
    pub fn into_string(self) -> String {
        self.0
    }

    pub fn raw(&mut self, text: &str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    /// A text as everything but a label set shows it.
    pub fn text(&mut self, text: &str) -> &mut Self {
        write_text(&mut self.0, text, Escape::Html);
        self
    }

    pub fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.0.push('[');
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            each(self, item);
        }
        self.raw("]")
    }

    pub fn texts(&mut self, texts: &[String]) -> &mut Self {
        self.list(texts, |json, text| {
            json.text(text);
        })
    }

    pub fn labels(&mut self, labels: &Labels) -> &mut Self {
        self.0.push('{');
        for (at, (name, value)) in labels.iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            write_text(&mut self.0, name, Escape::Label);
            self.0.push(':');
            write_text(&mut self.0, value, Escape::Label);
        }
        self.raw("}")
    }

    /// Anything of ours, through serde.
    pub fn value(&mut self, value: &impl Serialize) -> &mut Self {
        let mut bytes = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, HtmlSafe);
        let written = value.serialize(&mut serializer);
        written.expect("our own structs have nothing that JSON lacks");
        self.raw(&String::from_utf8(bytes).expect("JSON is UTF-8"))
    }

    /// A float as the text that JSON's numbers cannot hold.
    pub fn float(&mut self, value: f64) -> &mut Self {
        self.0.push('"');
        number::write_json(&mut self.0, value);
        self.raw("\"")
    }

    /// A float as a JSON number, as Go writes it; it is finite.
    pub fn number(&mut self, value: f64) -> &mut Self {
        debug_assert!(value.is_finite());
        number::write_json(&mut self.0, value);
        self
    }

    /// Seconds; three decimals unless they are all zero.
    pub fn timestamp(&mut self, at: Timestamp) -> &mut Self {
        write_timestamp(&mut self.0, at);
        self
    }

    fn sample(&mut self, sample: Sample) {
        self.raw("[").timestamp(sample.timestamp).raw(",");
        self.float(sample.value).raw("]");
    }

    /// A scalar or a text, whose instant Go prints as a float.
    fn lone(&mut self, at: Timestamp, value: impl FnOnce(&mut String)) -> &mut Self {
        write!(self.0, "[{},", at.seconds()).expect("a String takes all");
        value(&mut self.0);
        self.raw("]")
    }

    /// Floats and histograms go as two lists; one that is empty is left out.
    fn series(&mut self, series: &Series) {
        self.raw("{\"metric\":").labels(&series.labels);
        let samples = &series.samples;
        if samples.histograms.len() < samples.len() {
            self.raw(",\"values\":[");
            let floats = samples.iter().enumerate();
            let mut separator = "";
            for (_, sample) in floats.filter(|(at, _)| samples.histogram(*at).is_none()) {
                self.raw(separator).sample(sample);
                separator = ",";
            }
            self.raw("]");
        }
        if !samples.histograms.is_empty() {
            self.raw(",\"histograms\":");
            self.list(&samples.histograms, |json, (at, histogram)| {
                json.histogram_sample(samples.timestamps[*at as usize], histogram);
            });
        }
        self.raw("}");
    }

    fn vector_sample(&mut self, sample: &VectorSample) {
        self.raw("{\"metric\":").labels(&sample.labels);
        match &sample.value {
            model::Value::Float(value) => self.raw(",\"value\":").sample(Sample {
                timestamp: sample.timestamp,
                value: *value,
            }),
            model::Value::Histogram(histogram) => self
                .raw(",\"histogram\":")
                .histogram_sample(sample.timestamp, histogram),
        }
        self.raw("}");
    }

    fn histogram_sample(&mut self, at: Timestamp, histogram: &Histogram) {
        self.raw("[").timestamp(at).raw(",{\"count\":");
        self.float(histogram.count).raw(",\"sum\":");
        self.float(histogram.sum);
        let buckets = native::buckets(histogram);
        if !buckets.is_empty() {
            self.raw(",\"buckets\":").buckets(&buckets);
        }
        self.raw("}]");
    }

    /// Which bounds belong to a bucket, the bounds, and the count.
    pub fn buckets(&mut self, buckets: &[native::Bucket]) -> &mut Self {
        self.list(buckets, |json, bucket| {
            json.raw("[").number(bucket.boundary_rule().into()).raw(",");
            json.float(bucket.lower).raw(",");
            json.float(bucket.upper).raw(",");
            json.float(bucket.count).raw("]");
        })
    }
}

/// `{"status":"success","data":…}`, with warnings and infos where there are any.
pub fn success(data: impl FnOnce(&mut Json), warnings: &[String], infos: &[String]) -> String {
    let mut json = Json::default();
    json.raw("{\"status\":\"success\",\"data\":");
    data(&mut json);
    write_notes(&mut json, warnings, infos);
    json.into_string()
}

/// What stands behind the data.
fn write_notes(json: &mut Json, warnings: &[String], infos: &[String]) {
    for (name, notes) in [("warnings", warnings), ("infos", infos)] {
        if !notes.is_empty() {
            json.raw(",\"").raw(name).raw("\":").texts(notes);
        }
    }
    json.raw("}");
}

/// The same text as [`success`] makes of series or samples, in pieces that are written when they are asked for.
pub struct Pieces {
    json: Json,
    items: Items,
    separator: &'static str,
    /// What stands behind the series; taken with the last piece.
    end: Option<Json>,
}

enum Items {
    Series(IntoSeries),
    Samples(std::vec::IntoIter<VectorSample>),
}

impl Items {
    /// Writes the next one, if there is one.
    fn write_next(&mut self, json: &mut Json, separator: &str) -> bool {
        match self {
            Self::Series(series) => {
                let next = series.next();
                next.map(|series| json.raw(separator).series(&series))
            }
            Self::Samples(samples) => {
                let next = samples.next();
                next.map(|sample| json.raw(separator).vector_sample(&sample))
            }
        }
        .is_some()
    }
}

/// A piece of an answer ends with the series that makes it as long as this.
const PIECE_BYTES: usize = 64 << 10;

impl Pieces {
    pub fn of_matrix(matrix: Matrix, around: Around<'_>) -> Self {
        Self::new("matrix", Items::Series(matrix.into_iter()), around)
    }

    pub fn of_vector(samples: Vec<VectorSample>, around: Around<'_>) -> Self {
        Self::new("vector", Items::Samples(samples.into_iter()), around)
    }

    fn new(kind: &str, items: Items, around: Around<'_>) -> Self {
        let mut json = Json::default();
        json.raw("{\"status\":\"success\",\"data\":");
        json.raw("{\"resultType\":\"").raw(kind);
        json.raw("\",\"result\":[");
        let mut end = Json::default();
        end.raw("]");
        around.beside.write(&mut end);
        write_notes(&mut end, around.warnings, around.infos);
        Self {
            json,
            items,
            separator: "",
            end: Some(end),
        }
    }
}

/// What stands around a result.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    pub beside: Beside<'a>,
    pub warnings: &'a [String],
    pub infos: &'a [String],
}

impl Iterator for Pieces {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.end.as_ref()?;
        while self.items.write_next(&mut self.json, self.separator) {
            self.separator = ",";
            if self.json.0.len() >= PIECE_BYTES {
                return Some(std::mem::take(&mut self.json).into_string());
            }
        }
        let end = self.end.take()?;
        self.json.raw(&end.into_string());
        Some(std::mem::take(&mut self.json).into_string())
    }
}

/// `{"status":"error","errorType":…,"error":…}`.
pub fn error(error: &ApiError) -> String {
    let mut json = Json::default();
    json.raw("{\"status\":\"error\",\"errorType\":\"");
    json.raw(error.kind.as_str()).raw("\",\"error\":");
    json.text(&error.message).raw("}");
    json.into_string()
}

/// What stands beside a query's result, if it was asked for; each is JSON.
#[derive(Debug, Default, Clone, Copy)]
pub struct Beside<'a> {
    pub stats: Option<&'a str>,
    pub explain: Option<&'a str>,
}

impl Beside<'_> {
    /// With the end of the data.
    fn write(&self, json: &mut Json) {
        for (name, text) in [("stats", self.stats), ("explain", self.explain)] {
            if let Some(text) = text {
                json.raw(",\"").raw(name).raw("\":").raw(text);
            }
        }
        json.raw("}");
    }
}

/// The data of a query's answer.
pub fn write_result(json: &mut Json, value: &Value, beside: Beside<'_>) {
    let kind = match value {
        Value::Scalar(..) => "scalar",
        Value::String(..) => "string",
        Value::Vector(_) => "vector",
        Value::Matrix(_) => "matrix",
    };
    json.raw("{\"resultType\":\"")
        .raw(kind)
        .raw("\",\"result\":");
    match value {
        Value::Scalar(at, value) => json.lone(*at, |out| {
            // Unlike a vector's values, a scalar's never has an exponent.
            write!(out, "\"{}\"", number::plain(*value)).expect("a String takes all");
        }),
        Value::String(at, text) => json.lone(*at, |out| write_text(out, text, Escape::Go)),
        Value::Vector(samples) => json.list(samples, Json::vector_sample),
        Value::Matrix(matrix) => {
            json.raw("[");
            for (at, series) in matrix.series().enumerate() {
                json.raw(if at > 0 { "," } else { "" }).series(&series);
            }
            json.raw("]")
        }
    };
    beside.write(json);
}

/// Seconds; three decimals unless they are all zero.
fn write_timestamp(out: &mut String, at: Timestamp) {
    let ms = at.0.unsigned_abs();
    if at.0 < 0 {
        out.push('-');
    }
    number::write_whole(out, ms / 1000);
    let fraction = ms % 1000;
    if fraction != 0 {
        write!(out, ".{fraction:03}").expect("a String takes all");
    }
}

/// Prometheus writes texts in three ways, by which encoder each runs through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// Label sets: only what JSON demands.
    Label,
    /// Also what HTML or JavaScript would take for something else.
    Html,
    /// As [`Escape::Html`], with the short forms of backspace and form feed.
    Go,
}

fn write_text(out: &mut String, text: &str, escape: Escape) {
    out.push('"');
    if text.bytes().all(|byte| is_plain(byte, escape)) {
        out.push_str(text);
        return out.push('"');
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' if escape == Escape::Go => out.push_str("\\b"),
            '\u{c}' if escape == Escape::Go => out.push_str("\\f"),
            '\0'..='\u{1f}' => push_escape(out, c),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if escape != Escape::Label => {
                push_escape(out, c);
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Whether a byte of a text, by itself, means that nothing is to be escaped there.
fn is_plain(byte: u8, escape: Escape) -> bool {
    match byte {
        b'"' | b'\\' | 0..=0x1f => false,
        // The last one is what U+2028 begins with.
        b'<' | b'>' | b'&' | 0xe2 => escape == Escape::Label,
        _ => true,
    }
}

fn push_escape(out: &mut String, c: char) {
    write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes all");
}

/// serde's compact form with Go's escapes for HTML.
struct HtmlSafe;

impl serde_json::ser::Formatter for HtmlSafe {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        let mut safe = String::with_capacity(fragment.len());
        for c in fragment.chars() {
            match c {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => push_escape(&mut safe, c),
                _ => safe.push(c),
            }
        }
        writer.write_all(safe.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use model::Samples;
    use promql::VectorSample;

    use super::*;

    fn result(value: &Value) -> String {
        success(
            |json| write_result(json, value, Beside::default()),
            &[],
            &[],
        )
    }

    fn sample(pairs: &[(&str, &str)], at: i64, value: f64) -> VectorSample {
        VectorSample {
            labels: Labels::from_pairs(pairs.iter().copied()),
            timestamp: Timestamp(at),
            value: model::Value::Float(value),
        }
    }

    /// Prometheus 3.5.3: `curl -G :9090/api/v1/query -d time=0.5 --data-urlencode query=…`.
    #[test]
    fn numbers_are_those_of_prometheus() {
        for (value, scalar, vector) in [
            (1e21, "1000000000000000000000", "1e+21"),
            (1e-7, "0.0000001", "1e-07"),
            (-0.0, "-0", "-0"),
            (0.000_001, "0.000001", "0.000001"),
            (1e20, "100000000000000000000", "100000000000000000000"),
            (0.1 + 0.2, "0.30000000000000004", "0.30000000000000004"),
            (f64::NAN, "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf"),
        ] {
            assert_eq!(
                result(&Value::Scalar(Timestamp(500), value)),
                format!(
                    r#"{{"status":"success","data":{{"resultType":"scalar","result":[0.5,"{scalar}"]}}}}"#
                )
            );
            assert_eq!(
                result(&Value::Vector(vec![sample(&[], 500, value)])),
                format!(
                    r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[0.500,"{vector}"]}}]}}}}"#
                )
            );
        }
    }

    /// Prometheus 3.5.3: `query=label_replace(vector(1e21),"x","<&>\u2028\u0001\t\n…","","")` and
    /// the same text as a string.
    #[test]
    fn texts_are_escaped_by_where_they_stand() {
        let odd = "<&>\u{2028}\u{1}\t\n\u{8}é\u{7f}\"\\/";
        assert_eq!(
            result(&Value::Vector(vec![sample(&[("x", odd)], 1000, 1.0)])),
            "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[{\"metric\":\
             {\"x\":\"<&>\u{2028}\\u0001\\t\\n\\u0008é\u{7f}\\\"\\\\/\"},\"value\":[1,\"1\"]}]}}"
        );
        assert_eq!(
            result(&Value::String(Timestamp(1234), odd.to_owned())),
            "{\"status\":\"success\",\"data\":{\"resultType\":\"string\",\"result\":[1.234,\
             \"\\u003c\\u0026\\u003e\\u2028\\u0001\\t\\n\\bé\u{7f}\\\"\\\\/\"]}}"
        );
        let mut json = Json::default();
        json.value(&vec![odd]);
        let through_serde = json.into_string();
        assert!(through_serde.starts_with("[\"\\u003c\\u0026\\u003e\\u2028\\u0001\\t"));
    }

    #[test]
    fn a_matrix_has_its_values_in_order() {
        let mut samples = Samples::default();
        samples.push(Timestamp(-1500), 1.0);
        samples.push(Timestamp(2000), f64::NEG_INFINITY);
        let series = Series {
            labels: Labels::from_pairs([("__name__", "up"), ("job", "a")]),
            samples,
        };
        let matrix = Matrix::from(vec![series.clone(), series]);
        assert_eq!(
            result(&Value::Matrix(matrix)),
            concat!(
                r#"{"status":"success","data":{"resultType":"matrix","result":["#,
                r#"{"metric":{"__name__":"up","job":"a"},"values":[[-1.500,"1"],[2,"-Inf"]]},"#,
                r#"{"metric":{"__name__":"up","job":"a"},"values":[[-1.500,"1"],[2,"-Inf"]]}]}}"#,
            )
        );
    }

    #[test]
    fn a_matrix_in_pieces_is_the_same_text() {
        let series = |n: i64| {
            let mut samples = Samples::default();
            (0..n).for_each(|at| samples.push(Timestamp(at), 0.1 * at as f64));
            Series {
                labels: Labels::from_pairs([("n", n.to_string())]),
                samples,
            }
        };
        let beside = Beside {
            stats: Some("{}"),
            explain: None,
        };
        let (warnings, infos) = (["careful".to_owned()], []);
        for (series, pieces) in [
            (Vec::new(), 1),
            (vec![series(1)], 1),
            (
                vec![series(10_000), series(20), series(30), series(9_000)],
                3,
            ),
        ] {
            let matrix = Matrix::from(series);
            let value = Value::Matrix(matrix.clone());
            let whole = |json: &mut Json| write_result(json, &value, beside);
            let around = Around {
                beside,
                warnings: &warnings,
                infos: &infos,
            };
            let text: Vec<String> = Pieces::of_matrix(matrix, around).collect();
            assert_eq!(text.len(), pieces);
            assert_eq!(text.concat(), success(whole, &warnings, &infos));
        }
    }

    #[test]
    fn a_vector_in_pieces_is_the_same_text() {
        let sample = |n: i64| VectorSample {
            labels: Labels::from_pairs([("n", n.to_string())]),
            timestamp: Timestamp(n),
            value: model::Value::Float(0.1 * n as f64),
        };
        let around = Around {
            beside: Beside::default(),
            warnings: &[],
            infos: &["i".to_owned()],
        };
        for (count, pieces) in [(0, 1), (1, 1), (3_000, 3)] {
            let samples: Vec<VectorSample> = (0..count).map(sample).collect();
            let text: Vec<String> = Pieces::of_vector(samples.clone(), around).collect();
            assert_eq!(text.len(), pieces);
            let value = Value::Vector(samples);
            let whole = |json: &mut Json| write_result(json, &value, around.beside);
            assert_eq!(text.concat(), success(whole, around.warnings, around.infos));
        }
    }

    #[test]
    fn notes_come_last_and_only_when_there_are_any() {
        let text = success(
            |json| {
                json.raw("[]");
            },
            &["a<b".into()],
            &["i".into()],
        );
        assert_eq!(
            text,
            r#"{"status":"success","data":[],"warnings":["a\u003cb"],"infos":["i"]}"#
        );
    }
}
