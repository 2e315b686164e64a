//! A family in protobuf's text form (protobuf.dev/reference/protobuf/textformat-spec), as much of
//! it as leaves by `/federate` and by the push port.

use std::fmt::Write;

use proto::exposition::{Histogram, Metric, MetricFamily, MetricType, Summary};

/// One field a line, and an empty line behind the family.
pub fn lines(family: &MetricFamily) -> String {
    write(family, Some(0)) + "\n"
}

/// The family on one line.
pub fn compact(family: &MetricFamily) -> String {
    let text = write(family, None);
    text.trim_end().to_owned() + "\n"
}

/// Fields as they come; `depth` is `None` for one line.
struct Writer {
    out: String,
    depth: Option<usize>,
}

impl Writer {
    fn field(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        let Some(depth) = self.depth else {
            return write!(self.out, "{name}:{value} ").expect("a String takes all");
        };
        let indent = 2 * depth;
        writeln!(self.out, "{:indent$}{name}: {value}", "").expect("a String takes all");
    }

    fn text(&mut self, name: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.field(name, format_args!("\"{}\"", escaped(value)));
        }
    }

    fn number(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.field(name, format_args!("{value}"));
        }
    }

    fn float(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.field(name, format_args!("{}", float(value)));
        }
    }

    fn message(&mut self, name: &str, fields: impl FnOnce(&mut Self)) {
        let indent = self.depth.map_or(0, |depth| 2 * depth);
        let (open, close) = match self.depth {
            Some(_) => (": {\n", "}\n"),
            None => (":{", "} "),
        };
        write!(self.out, "{:indent$}{name}{open}", "").expect("a String takes all");
        self.depth = self.depth.map(|depth| depth + 1);
        fields(self);
        self.depth = self.depth.map(|depth| depth - 1);
        if self.depth.is_none() && self.out.ends_with(' ') {
            self.out.pop();
        }
        write!(self.out, "{:indent$}{close}", "").expect("a String takes all");
    }
}

fn write(family: &MetricFamily, depth: Option<usize>) -> String {
    let mut writer = Writer {
        out: String::new(),
        depth,
    };
    writer.text("name", family.name.as_ref());
    writer.text("help", family.help.as_ref());
    let kind = family
        .r#type
        .and_then(|kind| MetricType::try_from(kind).ok());
    writer.number("type", kind.map(|kind| kind.as_str_name()));
    for metric in &family.metric {
        writer.message("metric", |writer| write_metric(writer, metric));
    }
    writer.out
}

fn write_metric(writer: &mut Writer, metric: &Metric) {
    for label in &metric.label {
        writer.message("label", |writer| {
            writer.text("name", label.name.as_ref());
            writer.text("value", label.value.as_ref());
        });
    }
    if let Some(gauge) = &metric.gauge {
        writer.message("gauge", |writer| writer.float("value", gauge.value));
    }
    if let Some(counter) = &metric.counter {
        writer.message("counter", |writer| writer.float("value", counter.value));
    }
    if let Some(summary) = &metric.summary {
        writer.message("summary", |writer| write_summary(writer, summary));
    }
    if let Some(untyped) = &metric.untyped {
        writer.message("untyped", |writer| writer.float("value", untyped.value));
    }
    if let Some(histogram) = &metric.histogram {
        writer.message("histogram", |writer| write_histogram(writer, histogram));
    }
    writer.number("timestamp_ms", metric.timestamp_ms);
}

fn write_summary(writer: &mut Writer, summary: &Summary) {
    writer.number("sample_count", summary.sample_count);
    writer.float("sample_sum", summary.sample_sum);
    for quantile in &summary.quantile {
        writer.message("quantile", |writer| {
            writer.float("quantile", quantile.quantile);
            writer.float("value", quantile.value);
        });
    }
}

fn write_histogram(writer: &mut Writer, histogram: &Histogram) {
    writer.number("sample_count", histogram.sample_count);
    writer.float("sample_count_float", histogram.sample_count_float);
    writer.float("sample_sum", histogram.sample_sum);
    for bucket in &histogram.bucket {
        writer.message("bucket", |writer| {
            writer.number("cumulative_count", bucket.cumulative_count);
            writer.float("cumulative_count_float", bucket.cumulative_count_float);
            writer.float("upper_bound", bucket.upper_bound);
        });
    }
    writer.number("schema", histogram.schema);
    writer.float("zero_threshold", histogram.zero_threshold);
    writer.number("zero_count", histogram.zero_count);
    writer.float("zero_count_float", histogram.zero_count_float);
    let sides = [
        (
            "negative",
            &histogram.negative_span,
            &histogram.negative_delta,
            &histogram.negative_count,
        ),
        (
            "positive",
            &histogram.positive_span,
            &histogram.positive_delta,
            &histogram.positive_count,
        ),
    ];
    for (side, spans, deltas, counts) in sides {
        for span in spans {
            writer.message(&format!("{side}_span"), |writer| {
                writer.number("offset", span.offset);
                writer.number("length", span.length);
            });
        }
        for delta in deltas {
            writer.number(&format!("{side}_delta"), Some(*delta));
        }
        for count in counts {
            writer.float(&format!("{side}_count"), Some(*count));
        }
    }
}

/// As Go writes it.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    match value {
        f64::INFINITY => "inf".to_owned(),
        f64::NEG_INFINITY => "-inf".to_owned(),
        // The exposition drops the sign of zero, this form does not.
        0.0 if value.is_sign_negative() => "-0".to_owned(),
        value => model::number::exposition(value),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proto::exposition::{LabelPair, Untyped};

    use super::*;

    #[test]
    fn texts_are_escaped_and_odd_floats_named() {
        let metric = |value| Metric {
            label: vec![LabelPair {
                name: Some("a".to_owned()),
                value: Some("x\"\\\n\u{1}é".to_owned()),
            }],
            untyped: Some(Untyped { value: Some(value) }),
            ..Metric::default()
        };
        let family = MetricFamily {
            metric: [f64::NAN, f64::NEG_INFINITY, -0.0, 1e21]
                .map(metric)
                .to_vec(),
            ..MetricFamily::default()
        };
        let label = r#"label:{name:"a" value:"x\"\\\n\x01é"}"#;
        let metrics = ["nan", "-inf", "-0", "1e+21"]
            .map(|value| format!("metric:{{{label} untyped:{{value:{value}}}}}"));
        assert_eq!(compact(&family), metrics.join(" ") + "\n");
    }
}
