//! An OTLP request in JSON, to the message it stands for.
//!
//! Format: protobuf's JSON with OTLP's changes (opentelemetry.io/docs/specs/otlp): names in
//! lowerCamelCase, identifiers of traces and spans in hexadecimal, enumerations as numbers; whole
//! numbers of 64 bits may be texts, names of fields as in the .proto are taken too, and what is not
//! known is passed over.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::limits;
use proto::otlp::{
    self as wire, any_value, exemplar, exponential_histogram_data_point::Buckets, metric,
    number_data_point, summary_data_point::ValueAtQuantile,
};
use serde_json::Value;

/// Why a text is no request.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    #[error("JSON of {bytes} bytes, the limit is {max}", max = limits::OTLP_JSON_BYTES_MAX)]
    TooLarge { bytes: usize },
    #[error("JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("JSON: {field}: expected {expected}")]
    Type {
        field: &'static str,
        expected: &'static str,
    },
}

type Read<T> = Result<T, JsonError>;

/// Reads an `ExportMetricsServiceRequest`.
pub fn read(text: &[u8]) -> Read<wire::ExportMetricsServiceRequest> {
    let bytes = text.len();
    if bytes > limits::OTLP_JSON_BYTES_MAX {
        return Err(JsonError::TooLarge { bytes });
    }
    let value: Value = serde_json::from_slice(text)?;
    if !value.is_object() {
        return Err(wrong("the request", "an object"));
    }
    Ok(wire::ExportMetricsServiceRequest {
        resource_metrics: list(&value, "resourceMetrics", resource_metrics)?,
    })
}

fn wrong(field: &'static str, expected: &'static str) -> JsonError {
    JsonError::Type { field, expected }
}

/// A field that is there and not null, by either of its names.
fn find<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let found = object.get(name).or_else(|| {
        let mut snake = String::new();
        for c in name.chars() {
            if c.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        object.get(&snake)
    });
    found.filter(|value| !value.is_null())
}

fn list<T>(object: &Value, name: &'static str, read: impl Fn(&Value) -> Read<T>) -> Read<Vec<T>> {
    match find(object, name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(read).collect(),
        Some(_) => Err(wrong(name, "a list")),
    }
}

fn one<T>(object: &Value, name: &'static str, read: impl Fn(&Value) -> Read<T>) -> Read<Option<T>> {
    match find(object, name) {
        None => Ok(None),
        Some(value @ Value::Object(_)) => read(value).map(Some),
        Some(_) => Err(wrong(name, "an object")),
    }
}

fn string(object: &Value, name: &'static str) -> Read<String> {
    match find(object, name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(wrong(name, "a string")),
    }
}

fn truth(object: &Value, name: &'static str) -> Read<bool> {
    match find(object, name) {
        None => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(_) => Err(wrong(name, "true or false")),
    }
}

fn signed(name: &'static str, value: &Value) -> Read<i64> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| wrong(name, "a whole number"))
}

fn unsigned(name: &'static str, value: &Value) -> Read<u64> {
    let number = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| wrong(name, "a whole number, not below zero"))
}

fn unsigned_of(object: &Value, name: &'static str) -> Read<u64> {
    find(object, name).map_or(Ok(0), |value| unsigned(name, value))
}

fn small(object: &Value, name: &'static str) -> Read<i32> {
    let number = find(object, name).map_or(Ok(0), |value| signed(name, value))?;
    i32::try_from(number).map_err(|_| wrong(name, "a number of 32 bits"))
}

fn flags(object: &Value) -> Read<u32> {
    let number = unsigned_of(object, "flags")?;
    u32::try_from(number).map_err(|_| wrong("flags", "a number of 32 bits"))
}

fn double(name: &'static str, value: &Value) -> Read<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => model::number::parse(text),
        _ => None,
    };
    number.ok_or_else(|| wrong(name, "a number"))
}

fn double_of(object: &Value, name: &'static str) -> Read<Option<f64>> {
    let value = find(object, name);
    value.map(|value| double(name, value)).transpose()
}

fn hex(object: &Value, name: &'static str) -> Read<bytes::Bytes> {
    let text = string(object, name)?;
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |c: u8| char::from(c).to_digit(16);
    let byte = |&[high, low]: &[u8; 2]| Some((digit(high)? << 4 | digit(low)?) as u8);
    let decoded: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    let decoded = decoded.filter(|_| rest.is_empty());
    decoded
        .map(Into::into)
        .ok_or_else(|| wrong(name, "hexadecimal digits"))
}

/// A number, or the end of the enumeration's name.
fn temporality(object: &Value) -> Read<i32> {
    match find(object, "aggregationTemporality") {
        Some(Value::String(name)) if name == "AGGREGATION_TEMPORALITY_DELTA" => Ok(1),
        Some(Value::String(name)) if name == "AGGREGATION_TEMPORALITY_CUMULATIVE" => Ok(2),
        Some(Value::String(name)) if name == "AGGREGATION_TEMPORALITY_UNSPECIFIED" => Ok(0),
        _ => small(object, "aggregationTemporality"),
    }
}

fn resource_metrics(value: &Value) -> Read<wire::ResourceMetrics> {
    Ok(wire::ResourceMetrics {
        resource: one(value, "resource", |value| {
            let attributes = attributes(value, "attributes")?;
            Ok(wire::Resource { attributes })
        })?,
        scope_metrics: list(value, "scopeMetrics", scope_metrics)?,
        schema_url: string(value, "schemaUrl")?,
    })
}

fn scope_metrics(value: &Value) -> Read<wire::ScopeMetrics> {
    Ok(wire::ScopeMetrics {
        scope: one(value, "scope", |value| {
            Ok(wire::InstrumentationScope {
                name: string(value, "name")?,
                version: string(value, "version")?,
                attributes: attributes(value, "attributes")?,
            })
        })?,
        metrics: list(value, "metrics", read_metric)?,
        schema_url: string(value, "schemaUrl")?,
    })
}

fn read_metric(value: &Value) -> Read<wire::Metric> {
    let points = "dataPoints";
    let gauge = one(value, "gauge", |value| {
        let data_points = list(value, points, number_point)?;
        Ok(metric::Data::Gauge(wire::Gauge { data_points }))
    })?;
    let sum = one(value, "sum", |value| {
        Ok(metric::Data::Sum(wire::Sum {
            data_points: list(value, points, number_point)?,
            aggregation_temporality: temporality(value)?,
            is_monotonic: truth(value, "isMonotonic")?,
        }))
    })?;
    let histogram = one(value, "histogram", |value| {
        Ok(metric::Data::Histogram(wire::Histogram {
            data_points: list(value, points, histogram_point)?,
            aggregation_temporality: temporality(value)?,
        }))
    })?;
    let exponential = one(value, "exponentialHistogram", |value| {
        Ok(metric::Data::ExponentialHistogram(
            wire::ExponentialHistogram {
                data_points: list(value, points, exponential_point)?,
                aggregation_temporality: temporality(value)?,
            },
        ))
    })?;
    let summary = one(value, "summary", |value| {
        let data_points = list(value, points, summary_point)?;
        Ok(metric::Data::Summary(wire::Summary { data_points }))
    })?;
    Ok(wire::Metric {
        name: string(value, "name")?,
        description: string(value, "description")?,
        unit: string(value, "unit")?,
        data: gauge.or(sum).or(histogram).or(exponential).or(summary),
    })
}

fn number_point(value: &Value) -> Read<wire::NumberDataPoint> {
    let as_double = double_of(value, "asDouble")?.map(number_data_point::Value::AsDouble);
    let as_int = find(value, "asInt").map(|value| signed("asInt", value));
    let as_int = as_int.transpose()?.map(number_data_point::Value::AsInt);
    Ok(wire::NumberDataPoint {
        attributes: attributes(value, "attributes")?,
        start_time_unix_nano: unsigned_of(value, "startTimeUnixNano")?,
        time_unix_nano: unsigned_of(value, "timeUnixNano")?,
        exemplars: list(value, "exemplars", read_exemplar)?,
        flags: flags(value)?,
        value: as_double.or(as_int),
    })
}

fn histogram_point(value: &Value) -> Read<wire::HistogramDataPoint> {
    Ok(wire::HistogramDataPoint {
        attributes: attributes(value, "attributes")?,
        start_time_unix_nano: unsigned_of(value, "startTimeUnixNano")?,
        time_unix_nano: unsigned_of(value, "timeUnixNano")?,
        count: unsigned_of(value, "count")?,
        sum: double_of(value, "sum")?,
        bucket_counts: list(value, "bucketCounts", |v| unsigned("bucketCounts", v))?,
        explicit_bounds: list(value, "explicitBounds", |v| double("explicitBounds", v))?,
        exemplars: list(value, "exemplars", read_exemplar)?,
        flags: flags(value)?,
    })
}

fn exponential_point(value: &Value) -> Read<wire::ExponentialHistogramDataPoint> {
    Ok(wire::ExponentialHistogramDataPoint {
        attributes: attributes(value, "attributes")?,
        start_time_unix_nano: unsigned_of(value, "startTimeUnixNano")?,
        time_unix_nano: unsigned_of(value, "timeUnixNano")?,
        count: unsigned_of(value, "count")?,
        sum: double_of(value, "sum")?,
        scale: small(value, "scale")?,
        zero_count: unsigned_of(value, "zeroCount")?,
        positive: one(value, "positive", buckets)?,
        negative: one(value, "negative", buckets)?,
        flags: flags(value)?,
        exemplars: list(value, "exemplars", read_exemplar)?,
    })
}

fn buckets(value: &Value) -> Read<Buckets> {
    Ok(Buckets {
        offset: small(value, "offset")?,
        bucket_counts: list(value, "bucketCounts", |v| unsigned("bucketCounts", v))?,
    })
}

fn summary_point(value: &Value) -> Read<wire::SummaryDataPoint> {
    Ok(wire::SummaryDataPoint {
        attributes: attributes(value, "attributes")?,
        start_time_unix_nano: unsigned_of(value, "startTimeUnixNano")?,
        time_unix_nano: unsigned_of(value, "timeUnixNano")?,
        count: unsigned_of(value, "count")?,
        sum: double_of(value, "sum")?.unwrap_or_default(),
        quantile_values: list(value, "quantileValues", |value| {
            Ok(ValueAtQuantile {
                quantile: double_of(value, "quantile")?.unwrap_or_default(),
                value: double_of(value, "value")?.unwrap_or_default(),
            })
        })?,
        flags: flags(value)?,
    })
}

fn read_exemplar(value: &Value) -> Read<wire::Exemplar> {
    let as_double = double_of(value, "asDouble")?.map(exemplar::Value::AsDouble);
    let as_int = find(value, "asInt").map(|value| signed("asInt", value));
    let as_int = as_int.transpose()?.map(exemplar::Value::AsInt);
    Ok(wire::Exemplar {
        filtered_attributes: attributes(value, "filteredAttributes")?,
        time_unix_nano: unsigned_of(value, "timeUnixNano")?,
        span_id: hex(value, "spanId")?,
        trace_id: hex(value, "traceId")?,
        value: as_double.or(as_int),
    })
}

fn attributes(object: &Value, name: &'static str) -> Read<Vec<wire::KeyValue>> {
    list(object, name, |value| {
        Ok(wire::KeyValue {
            key: string(value, "key")?,
            value: one(value, "value", any)?,
        })
    })
}

/// Nests no deeper than serde_json lets a text nest.
fn any(value: &Value) -> Read<wire::AnyValue> {
    let found = if find(value, "stringValue").is_some() {
        Some(any_value::Value::StringValue(string(value, "stringValue")?))
    } else if find(value, "boolValue").is_some() {
        Some(any_value::Value::BoolValue(truth(value, "boolValue")?))
    } else if let Some(number) = find(value, "intValue") {
        Some(any_value::Value::IntValue(signed("intValue", number)?))
    } else if let Some(number) = double_of(value, "doubleValue")? {
        Some(any_value::Value::DoubleValue(number))
    } else if find(value, "bytesValue").is_some() {
        let decoded = STANDARD.decode(string(value, "bytesValue")?);
        let decoded = decoded.map_err(|_| wrong("bytesValue", "base64"))?;
        Some(any_value::Value::BytesValue(decoded.into()))
    } else if let Some(values) = one(value, "arrayValue", |value| list(value, "values", any))? {
        Some(any_value::Value::ArrayValue(wire::ArrayValue { values }))
    } else {
        let map = one(value, "kvlistValue", |value| attributes(value, "values"))?;
        map.map(|values| any_value::Value::KvlistValue(wire::KeyValueList { values }))
    };
    Ok(wire::AnyValue { value: found })
}
