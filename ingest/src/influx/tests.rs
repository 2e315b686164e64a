//! The specification's own examples, InfluxDB's complaints, and random bytes.

use proptest::prelude::*;

use super::*;
use crate::lines::Problem;

const NOW: Timestamp = Timestamp(1_795_233_379_500);
const OPTIONS: Options<'_> = Options {
    precision: Precision::Nanoseconds,
    now: NOW,
    database: "",
};

fn parse_with(body: &str, options: &Options<'_>) -> Parsed {
    let mut parsed = Parsed::default();
    let done = read(body.as_bytes(), true, options, &mut 0, &mut parsed);
    assert_eq!(done, body.len());
    parsed
}

fn parse(body: &str) -> Parsed {
    parse_with(body, &OPTIONS)
}

/// Series, value and time of each row.
fn rows(parsed: &Parsed) -> Vec<(String, f64, i64)> {
    assert_eq!(parsed.batch.validate(), Ok(()));
    let rows = &parsed.batch.rows;
    let labels = rows
        .series
        .iter()
        .map(|s| &parsed.batch.series[*s as usize]);
    let columns = labels.zip(&rows.values).zip(&rows.timestamps);
    columns
        .map(|((labels, value), at)| (labels.to_string(), *value, at.0))
        .collect()
}

/// The line protocol reference of InfluxDB 2, its example lines.
#[test]
fn the_examples_of_the_specification() {
    for (line, expected) in [
        (
            "myMeasurement,tag1=value1,tag2=value2 fieldKey=\"fieldValue\" 1556813561098000000",
            vec![],
        ),
        (
            "myMeasurement fieldKey=1.0",
            vec![(r#"{__name__="myMeasurement_fieldKey"}"#, 1.0, NOW.0)],
        ),
        (
            "myMeasurement fieldKey=-1.234456e+78",
            vec![(
                r#"{__name__="myMeasurement_fieldKey"}"#,
                -1.234456e+78,
                NOW.0,
            )],
        ),
        (
            "myMeasurement fieldKey=12485903i 1556813561098000000",
            vec![(
                r#"{__name__="myMeasurement_fieldKey"}"#,
                12485903.0,
                1556813561098,
            )],
        ),
        (
            "myMeasurement fieldKey=12485903u,ok=TRUE,no=f",
            vec![
                (r#"{__name__="myMeasurement_fieldKey"}"#, 12485903.0, NOW.0),
                (r#"{__name__="myMeasurement_ok"}"#, 1.0, NOW.0),
                (r#"{__name__="myMeasurement_no"}"#, 0.0, NOW.0),
            ],
        ),
        (
            r#"my\ Measurement,tag\ Key1=tag\ Value1,tag\,Key2=tag\,Value2 field\=Key=100"#,
            vec![(
                r#"{__name__="my_Measurement_field_Key", tag_Key1="tag Value1", tag_Key2="tag,Value2"}"#,
                100.0,
                NOW.0,
            )],
        ),
        (
            "myMeasurement,tagKey=🍭 value=\"Launch 🚀\",x=1 1556813561098000000",
            vec![(
                r#"{__name__="myMeasurement_x", tagKey="🍭"}"#,
                1.0,
                1556813561098,
            )],
        ),
        ("# This is a comment\n\n  \n", vec![]),
        (
            "cpu,host=a value=2 1556813561098000000",
            vec![(r#"{__name__="cpu", host="a"}"#, 2.0, 1556813561098)],
        ),
    ] {
        let parsed = parse(line);
        assert_eq!(parsed.problems.first, [], "{line}");
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(labels, value, at): (&str, f64, i64)| (labels.to_owned(), value, at))
            .collect();
        assert_eq!(rows(&parsed), expected, "{line}");
    }
}

/// InfluxDB 1.8's `models.ParsePoints`, the causes behind "unable to parse".
#[test]
fn bad_lines_are_told_and_the_good_ones_stay() {
    for (line, cause) in [
        ("bad", "missing fields"),
        ("bad ", "missing fields"),
        (",t=1 v=1", "missing measurement"),
        ("m,t v=1", "missing tag value"),
        ("m,t= v=1", "missing tag value"),
        ("m,=1 v=1", "missing tag key"),
        ("m,t=a=b v=1", "invalid tag format"),
        ("m v", "missing field value"),
        ("m v=", "missing field value"),
        ("m =1", "missing field key"),
        ("m v=1,", "missing field value"),
        ("m v=1x", "invalid number"),
        ("m v=NaN", "invalid number"),
        ("m v=1e999", "invalid number"),
        ("m v=9223372036854775808i", "invalid number"),
        ("m v=tru", "invalid boolean"),
        ("m v=\"a\"b", "invalid field format"),
        ("m v=1 now", "bad timestamp"),
        ("m v=1 1 1", "bad timestamp"),
    ] {
        let parsed = parse(&format!("good a=1\n{line}\r\ngood b=2\n"));
        let told = Problem {
            line: 2,
            text: line.to_owned(),
            cause: cause.to_owned(),
            refused: false,
        };
        assert_eq!(parsed.problems.first, [told]);
        assert_eq!(parsed.lines, [1, 3], "{line}");
    }
    let open = parse("good a=1\nm v=\"open\ngood b=2\n");
    assert_eq!(open.problems.first[0].cause, "unbalanced quotes");
    assert_eq!(open.lines, [1]);
}

#[test]
fn a_string_may_hold_line_feeds() {
    let parsed = parse("m s=\"one\n\\\"two\n\",v=1 7000000\nm w=2\n");
    assert_eq!(parsed.problems.first, []);
    assert_eq!(parsed.lines, [1, 4]);
    assert_eq!(rows(&parsed)[0], (r#"{__name__="m_v"}"#.to_owned(), 1.0, 7));
}

#[test]
fn times_are_in_the_precision_of_the_request() {
    for (precision, time, expected) in [
        ("", "1500000000000000000", 1_500_000_000_000),
        ("ns", "-1", -1),
        ("u", "1500000000000001", 1_500_000_000_000),
        ("ms", "1500000000001", 1_500_000_000_001),
        ("s", "1500000000", 1_500_000_000_000),
        ("m", "25000000", 1_500_000_000_000),
        ("h", "416666", 1_499_997_600_000),
    ] {
        let options = Options {
            precision: Precision::parse(precision).unwrap(),
            ..OPTIONS
        };
        let parsed = parse_with(&format!("m value=1 {time}"), &options);
        assert_eq!(parsed.batch.rows.timestamps, [Timestamp(expected)]);
    }
    assert_eq!(Precision::parse("d"), None);
    let options = Options {
        precision: Precision::Hours,
        ..OPTIONS
    };
    let parsed = parse_with("m value=1 9223372036854775807", &options);
    assert_eq!(parsed.problems.first[0].cause, "time outside range");
}

#[test]
fn the_database_is_a_label_unless_a_tag_says_otherwise() {
    let options = Options {
        database: "telegraf",
        ..OPTIONS
    };
    let parsed = parse_with("m value=1\nm,db=own value=1\n", &options);
    let labels: Vec<_> = rows(&parsed).into_iter().map(|row| row.0).collect();
    assert_eq!(
        labels,
        [
            r#"{__name__="m", db="telegraf"}"#,
            r#"{__name__="m", db="own"}"#
        ]
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(
            prop::sample::select(&b"am=\\\", \n\r1i.t#\xc3\xa9"[..]), 0..80
        ),
    ) {
        let mut parsed = Parsed::default();
        let done = read(&bytes, false, &OPTIONS, &mut 0, &mut parsed);
        prop_assert!(done <= bytes.len());
        prop_assert_eq!(parsed.batch.validate(), Ok(()));
        prop_assert_eq!(parsed.lines.len(), parsed.batch.rows.len());
    }

    /// Wherever a body is cut into blocks, it means the same.
    #[test]
    fn blocks_do_not_show(
        lines in prop::collection::vec("m,a=[a-c ]{0,2} (s=\"[a\n]{0,3}\",)?v=[0-9]{0,2} [0-9]{1,3}", 0..6),
        cuts in prop::collection::vec(1usize..20, 0..8),
    ) {
        let body = lines.join("\n");
        let whole = parse(&body);
        let (mut parsed, mut line, mut waiting) = (Parsed::default(), 0, Vec::new());
        let mut rest = body.as_bytes();
        for cut in cuts {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            waiting.extend_from_slice(piece);
            let done = read(&waiting, false, &OPTIONS, &mut line, &mut parsed);
            waiting.drain(..done);
            rest = tail;
        }
        waiting.extend_from_slice(rest);
        read(&waiting, true, &OPTIONS, &mut line, &mut parsed);
        prop_assert_eq!(parsed, whole);
    }
}
