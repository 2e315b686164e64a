//! VictoriaMetrics' examples, what is refused, and there and back again.

use model::Samples;
use proptest::prelude::*;

use super::*;

fn parse(body: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let done = read(body.as_bytes(), true, &[], &mut 0, &mut parsed);
    assert_eq!(done, body.len());
    assert_eq!(parsed.batch.validate(), Ok(()));
    parsed
}

/// The example of VictoriaMetrics' documentation.
#[test]
fn a_line_is_a_series() {
    let line = r#"{
"metric":{"__name__":"up","job":"node_exporter","instance":"localhost:9100"},
"values":[0,0,0],"timestamps":[1549891472010,1549891487724,1549891503438]}"#;
    let parsed = parse(&line.replace('\n', " "));
    assert_eq!(parsed.problems.first, []);
    assert_eq!(parsed.lines, [1, 1, 1]);
    let labels = r#"{__name__="up", instance="localhost:9100", job="node_exporter"}"#;
    assert_eq!(parsed.batch.series[0].to_string(), labels);
    assert_eq!(parsed.batch.rows.series, [0, 0, 0]);
    let times = [1549891472010, 1549891487724, 1549891503438].map(Timestamp);
    assert_eq!(parsed.batch.rows.timestamps, times);
}

#[test]
fn bad_lines_are_told_and_the_good_ones_stay() {
    let metric = r#""metric":{"__name__":"x"}"#;
    for (line, cause) in [
        ("nonsense".to_owned(), "expected an object at byte 1"),
        (
            r#"{"values":[1],"timestamps":[1]}"#.to_owned(),
            "missing \"metric\"",
        ),
        (
            r#"{"metric":{},"values":[1],"timestamps":[1]}"#.to_owned(),
            "\"metric\" has no __name__",
        ),
        (
            format!(r#"{{{metric},"timestamps":[1]}}"#),
            "missing \"values\"",
        ),
        (
            format!(r#"{{{metric},"values":[1],"timestamps":[1,2]}}"#),
            "1 values but 2 timestamps",
        ),
        (
            format!(r#"{{{metric},"values":["1"],"timestamps":[1]}}"#),
            "expected a number, null or \"Infinity\", \"-Infinity\", \"NaN\" at byte 38",
        ),
        (
            format!(r#"{{{metric},"values":[1],"timestamps":[1.5]}}"#),
            "expected whole milliseconds at byte 55",
        ),
        (
            format!(r#"{{{metric},"values":[1],"timestamps":[1]}} x"#),
            "something behind the object at byte 59",
        ),
        (
            format!(r#"{{{metric},"x":{}"#, "[".repeat(100)),
            "a value that nests too deep at byte 64",
        ),
    ] {
        let good = r#"{"metric":{"__name__":"y"},"values":[1],"timestamps":[1]}"#;
        let parsed = parse(&format!("{good}\n{line}\n\n{good}\n"));
        assert_eq!(parsed.lines, [1, 4], "{line}");
        let problem = &parsed.problems.first[0];
        assert_eq!((problem.line, &*problem.cause), (2, cause), "{line}");
    }
}

#[test]
fn unknown_keys_and_escapes_are_understood() {
    let line = r#"{"extra":{"a":[true,null,"x\"y",-1e3]},"metric":{"__name__":"\u0078","l":"a\"\\\n\ud83c\udf6d\ud83c"},"values":["Infinity","-Inf","NaN",null],"timestamps":[1,2,3,4e0]}"#;
    let parsed = parse(line);
    assert_eq!(parsed.problems.first, []);
    let labels = &parsed.batch.series[0];
    assert_eq!(labels.get("l"), Some("a\"\\\n🍭\u{fffd}"));
    let bits: Vec<u64> = parsed
        .batch
        .rows
        .values
        .iter()
        .map(|v| v.to_bits())
        .collect();
    let expected = [
        f64::INFINITY,
        f64::NEG_INFINITY,
        number::NORMAL_NAN,
        STALE_NAN,
    ];
    assert_eq!(bits, expected.map(f64::to_bits));
}

#[test]
fn labels_of_the_request_are_set_on_every_series() {
    let mut parsed = Parsed::default();
    let body = br#"{"metric":{"__name__":"x","a":"own"},"values":[1],"timestamps":[1]}"#;
    let extra = [("a".to_owned(), "given".to_owned())];
    read(body, true, &extra, &mut 0, &mut parsed);
    assert_eq!(parsed.batch.series[0].get("a"), Some("given"));
}

const WORDS: [&str; 4] = ["\"metric\":", "\"values\":", "\"timestamps\":", "null"];

proptest! {
    #[test]
    fn what_is_written_reads_back_to_the_bit(
        pairs in prop::collection::btree_map("[a-z]{1,3}", "\\PC{1,5}|[\"\\\\\n\t\u{1}]{1,4}", 0..4),
        values in prop::collection::vec(
            prop_oneof![
                any::<f64>(), Just(STALE_NAN), Just(number::NORMAL_NAN), Just(f64::INFINITY),
                Just(f64::NEG_INFINITY), Just(-0.0), Just(f64::MIN_POSITIVE), Just(5e-324),
            ],
            1..20,
        ),
        start in any::<i32>(),
    ) {
        let mut labels = Labels::from_pairs(&pairs).to_builder();
        labels.set("__name__", "x");
        let labels = labels.build();
        let mut samples = Samples::default();
        for (index, value) in values.iter().enumerate() {
            let value = if value.is_nan() && value.to_bits() != STALE_NAN.to_bits() {
                number::NORMAL_NAN
            } else {
                *value
            };
            samples.push(Timestamp(i64::from(start) * 1000 + index as i64), value);
        }
        let mut text = String::new();
        write(&labels, &samples, 0..samples.len(), &mut text);
        prop_assert!(text.ends_with('\n') && text.lines().count() == 1);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(json["metric"]["__name__"].as_str(), Some("x"));
        let parsed = parse(&text);
        prop_assert_eq!(&parsed.problems.first, &[]);
        prop_assert_eq!(&parsed.batch.series, &[labels]);
        prop_assert_eq!(&parsed.batch.rows.timestamps, &samples.timestamps);
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&parsed.batch.rows.values), bits(&samples.values));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(
            prop_oneof![
                prop::sample::select(&b"{}[]\",:0e-\\u8d\n\xc3"[..]).prop_map(|b| vec![b]),
                prop::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
            ],
            0..60,
        ),
    ) {
        let mut parsed = Parsed::default();
        let bytes = bytes.concat();
        let done = read(&bytes, false, &[], &mut 0, &mut parsed);
        prop_assert!(done <= bytes.len());
        prop_assert_eq!(parsed.batch.validate(), Ok(()));
    }
}
