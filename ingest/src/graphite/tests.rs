//! Lines as carbon's documentation has them, pickles as CPython writes them.

use std::sync::Arc;

use proptest::prelude::*;

use super::pickle::PickleError;
use super::*;
use crate::mapping::Spec;

const NOW: Timestamp = Timestamp(1_795_233_379_500);

fn parse_with(body: &[u8], rules: &Rules, strict: bool) -> (Vec<String>, Tally) {
    let options = Options {
        rules,
        strict,
        now: NOW,
    };
    let (mut parsed, mut tally) = (Parsed::default(), Tally::default());
    read(body, &options, &mut parsed, &mut tally);
    assert_eq!(parsed.batch.validate(), Ok(()));
    let rows = &parsed.batch.rows;
    let row = |i: usize| {
        let labels = &parsed.batch.series[rows.series[i] as usize];
        format!("{labels} {} @{}", rows.values[i], rows.timestamps[i])
    };
    ((0..rows.len()).map(row).collect(), tally)
}

fn parse(body: &str) -> (Vec<String>, Tally) {
    parse_with(body.as_bytes(), &Rules::default(), false)
}

#[test]
fn lines_become_samples_at_their_times() {
    let (rows, tally) = parse(
        "local.random.diceroll 4 1500000000\n\
         test.web-server.foo.bar\t1e3  1500000000.25\r\n\
         now 1 -1\nnow 2 N\nnow 3\n\n\
         disk.used;datacenter=dc1;rack=a1;server=web01 42.5 1500000000\n\
         5xx;bad;=x;a.b=c -1 1500000000\n",
    );
    assert_eq!(
        rows,
        [
            r#"{__name__="local_random_diceroll"} 4 @1500000000000"#,
            r#"{__name__="test_web_server_foo_bar"} 1000 @1500000000250"#,
            r#"{__name__="now"} 1 @1795233379500"#,
            r#"{__name__="now"} 2 @1795233379500"#,
            r#"{__name__="now"} 3 @1795233379500"#,
            r#"{__name__="disk_used", datacenter="dc1", rack="a1", server="web01"} 42.5 @1500000000000"#,
            r#"{__name__="_5xx", a_b="c"} -1 @1500000000000"#,
        ]
    );
    let expected = Tally {
        bad_tags: 2,
        ..Tally::default()
    };
    assert_eq!(tally, expected);
}

#[test]
fn bad_lines_are_counted() {
    let (rows, tally) = parse("a\na b 1\na 1 b\na 1 2 3\na 1 NaN\n;t=1 1 1\n\u{0}\n");
    assert_eq!((rows.len(), tally.malformed), (0, 7));
    let (rows, tally) = parse_with(b"a\xff 1 1\nb NaN 1", &Rules::default(), false);
    assert_eq!(tally.malformed, 1);
    assert_eq!(rows, [r#"{__name__="b"} NaN @1000"#]);
}

#[test]
fn rules_name_drop_and_select() {
    let spec = |pattern: &str, action| Spec {
        pattern: pattern.to_owned(),
        name: "mapped".to_owned(),
        labels: vec![("host".to_owned(), "$1".to_owned())],
        action,
        ..Spec::default()
    };
    let specs = vec![
        spec("servers.*.load", Action::Map),
        spec("secret.*", Action::Drop),
    ];
    let rules = Rules::new(specs, false).unwrap();
    let body = b"servers.a.load;host=tag;x=y 1 1\nsecret.b 2 1\nother.c 3 1\n";
    let (rows, tally) = parse_with(body, &rules, false);
    assert_eq!(
        rows,
        [
            r#"{__name__="mapped", host="a", x="y"} 1 @1000"#,
            r#"{__name__="other_c"} 3 @1000"#
        ]
    );
    assert_eq!((tally.dropped, tally.unmatched), (1, 0));
    let (rows, tally) = parse_with(body, &rules, true);
    assert_eq!((rows.len(), tally.dropped, tally.unmatched), (1, 1, 1));
}

/// `pickle.dumps([("a.b", (1500000000, 1.5)), ("c", (1500000000.5, 2))], protocol=N)` of
/// CPython 3.11.
const PICKLES: [&[u8]; 5] = [
    b"(lp0\n(Va.b\np1\n(I1500000000\nF1.5\ntp2\ntp3\na(Vc\np4\n(F1500000000.5\nI2\ntp5\ntp6\na.",
    b"]q\x00((X\x03\x00\x00\x00a.bq\x01(J\x00/hYG?\xf8\x00\x00\x00\x00\x00\x00tq\x02tq\x03(X\x01\x00\x00\x00cq\x04(GA\xd6Z\x0b\xc0 \x00\x00K\x02tq\x05tq\x06e.",
    b"\x80\x02]q\x00(X\x03\x00\x00\x00a.bq\x01J\x00/hYG?\xf8\x00\x00\x00\x00\x00\x00\x86q\x02\x86q\x03X\x01\x00\x00\x00cq\x04GA\xd6Z\x0b\xc0 \x00\x00K\x02\x86q\x05\x86q\x06e.",
    b"\x80\x03]q\x00(X\x03\x00\x00\x00a.bq\x01J\x00/hYG?\xf8\x00\x00\x00\x00\x00\x00\x86q\x02\x86q\x03X\x01\x00\x00\x00cq\x04GA\xd6Z\x0b\xc0 \x00\x00K\x02\x86q\x05\x86q\x06e.",
    b"\x80\x04\x950\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c\x03a.b\x94J\x00/hYG?\xf8\x00\x00\x00\x00\x00\x00\x86\x94\x86\x94\x8c\x01c\x94GA\xd6Z\x0b\xc0 \x00\x00K\x02\x86\x94\x86\x94e.",
];

#[test]
fn pickles_of_every_protocol_are_read() {
    for (protocol, message) in PICKLES.into_iter().enumerate() {
        let points = pickle::read(message);
        let expected: Vec<(Arc<str>, f64, f64)> = vec![
            ("a.b".into(), 1.5, 1_500_000_000.0),
            ("c".into(), 2.0, 1_500_000_000.5),
        ];
        assert_eq!(points, Ok(expected), "protocol {protocol}");
        for end in 0..message.len() {
            assert!(pickle::read(&message[..end]).is_err());
        }
    }
    let long = b"(lp0\n(S'a'\n(L1500000000L\n\x8a\x02\x00\xfftta.";
    let expected: (Arc<str>, f64, f64) = ("a".into(), -256.0, 1_500_000_000.0);
    assert_eq!(pickle::read(long), Ok(vec![expected]));
}

#[test]
fn objects_are_refused() {
    for message in [
        // os.system('id') by GLOBAL and REDUCE, and by STACK_GLOBAL.
        &b"cos\nsystem\n(S'id'\ntR."[..],
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
        b"}.",
        b"(dp0\n.",
    ] {
        let error = pickle::read(message).unwrap_err();
        assert!(matches!(error, PickleError::Opcode(_)), "{error}");
    }
    // A list that holds itself, and one that is used again.
    for message in [&b"]q\x00h\x00a."[..], b"]q\x00]q\x01ah\x01a."] {
        assert_eq!(pickle::read(message), Err(PickleError::Shared));
    }
    let deep = [&[b']'; 40][..], &[b'a'; 39], b"."].concat();
    assert_eq!(pickle::read(&deep), Err(PickleError::Shared));
    assert_eq!(pickle::read(b"]K\x01a."), Err(PickleError::Shape));
    // A length that lies.
    assert_eq!(
        pickle::read(b"X\xff\xff\xff\xffa"),
        Err(PickleError::Truncated)
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = pickle::read(&bytes);
        parse_with(&bytes, &Rules::default(), false);
    }

    #[test]
    fn arbitrary_opcodes_never_panic(
        bytes in prop::collection::vec(
            prop::sample::select(&b"(.]aeltpqh)\x85\x86\x87\x94K\x00\x01U\x02N1\n"[..]), 0..80
        ),
    ) {
        let _ = pickle::read(&bytes);
    }

    #[test]
    fn words_and_numbers_have_an_answer(body in "([a-c.;=]{1,5} [0-9.e-]{1,4} [0-9-]{1,4}\n){0,4}") {
        let (rows, tally) = parse(&body);
        let lines = body.lines().count() as u64;
        prop_assert_eq!(rows.len() as u64 + tally.malformed, lines);
    }
}
