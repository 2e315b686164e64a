//! Attribute values as text, as the collector's `AsString` writes them and so Prometheus.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::number;
use proto::otlp::any_value::Value;
use proto::otlp::{AnyValue, KeyValue};

/// The text of a value; of none the empty one. Lists and maps are JSON.
pub fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        None => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => double(*number),
        Some(Value::BytesValue(bytes)) => STANDARD.encode(bytes),
        Some(value) => {
            let mut out = String::new();
            put(&mut out, value);
            out
        }
    }
}

/// The value of an attribute: the first of that name.
pub fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a KeyValue> {
    attributes.iter().find(|attribute| attribute.key == key)
}

/// As ECMAScript: exponents of one digit stay so.
fn double(number: f64) -> String {
    if !number.is_finite() {
        return format!("json: unsupported value: {}", number::exposition(number));
    }
    number::json(number).replacen("e-0", "e-", 1)
}

fn put(out: &mut String, value: &Value) {
    match value {
        Value::StringValue(text) => put_text(out, text),
        Value::BoolValue(truth) => out.push_str(&truth.to_string()),
        Value::IntValue(number) => out.push_str(&number.to_string()),
        Value::DoubleValue(number) if !number.is_finite() => out.push_str("null"),
        Value::DoubleValue(number) => out.push_str(&double(*number)),
        Value::BytesValue(bytes) => put_text(out, &STANDARD.encode(bytes)),
        Value::ArrayValue(list) => {
            out.push('[');
            for (i, value) in list.values.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                put_any(out, Some(value));
            }
            out.push(']');
        }
        Value::KvlistValue(map) => {
            let by_key: BTreeMap<&str, Option<&AnyValue>> = map
                .values
                .iter()
                .map(|pair| (pair.key.as_str(), pair.value.as_ref()))
                .collect();
            out.push('{');
            for (i, (key, value)) in by_key.into_iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                put_text(out, key);
                out.push(':');
                put_any(out, value);
            }
            out.push('}');
        }
    }
}

fn put_any(out: &mut String, value: Option<&AnyValue>) {
    match value.and_then(|value| value.value.as_ref()) {
        Some(value) => put(out, value),
        None => out.push_str("null"),
    }
}

/// A JSON string as Go writes it, which keeps it out of the way of HTML.
fn put_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proto::otlp::{ArrayValue, KeyValueList};

    use super::*;

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn shown(value: Value) -> String {
        text(Some(&any(value)))
    }

    #[test]
    fn values_are_texts() {
        assert_eq!(shown(Value::StringValue("a\"b".into())), "a\"b");
        assert_eq!(shown(Value::BoolValue(true)), "true");
        assert_eq!(shown(Value::IntValue(-7)), "-7");
        assert_eq!(shown(Value::DoubleValue(1.5)), "1.5");
        assert_eq!(shown(Value::DoubleValue(3.0)), "3");
        assert_eq!(shown(Value::DoubleValue(1e-7)), "1e-7");
        assert_eq!(shown(Value::DoubleValue(1e21)), "1e+21");
        assert_eq!(shown(Value::BytesValue(vec![1, 2, 3].into())), "AQID");
        assert_eq!(text(None), "");
        assert_eq!(text(Some(&AnyValue::default())), "");
    }

    #[test]
    fn lists_and_maps_are_json() {
        let list = ArrayValue {
            values: vec![
                any(Value::StringValue("<x>".into())),
                any(Value::IntValue(1)),
                AnyValue::default(),
            ],
        };
        let pair = |key: &str, value| KeyValue {
            key: key.to_owned(),
            value: Some(any(value)),
        };
        let map = KeyValueList {
            values: vec![
                pair("z", Value::ArrayValue(list)),
                pair("a", Value::DoubleValue(0.5)),
            ],
        };
        assert_eq!(
            shown(Value::KvlistValue(map)),
            r#"{"a":0.5,"z":["\u003cx\u003e",1,null]}"#
        );
    }
}
