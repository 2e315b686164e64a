//! Texts and what the parser says to them. Messages and positions are those of Prometheus 3.5.

use proptest::prelude::*;

use super::*;
use model::limits::TASK_STACK_BYTES;

/// Every feature on.
const ALL: ParseOptions = ParseOptions {
    experimental_functions: true,
    duration_expressions: true,
    fill_modifiers: true,
    extended_ranges: true,
};

fn message(text: &str) -> String {
    match parse(text) {
        Ok(expr) => format!("ok: {expr}"),
        Err(error) => error.to_string(),
    }
}

/// Runs a file of `text => expectation` lines and tells all that differ at once.
fn compare(cases: &str, outcome: impl Fn(&str) -> String) {
    let cases: Vec<_> = cases
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("# "))
        .map(|line| line.split_once(" => ").expect("text => expectation"))
        .collect();
    assert!(cases.len() > 100, "only {} cases", cases.len());
    let differing: Vec<_> = cases
        .iter()
        .map(|(text, expected)| (text, expected, outcome(text)))
        .filter(|(_, expected, got)| *expected != got)
        .map(|(text, expected, got)| format!("{text}\n  want {expected}\n  got  {got}"))
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn mistakes_are_told_where_and_how_prometheus_tells_them() {
    compare(include_str!("mistakes.txt"), |text| {
        message(text).replace("parse error: ", "")
    });
}

#[test]
fn right_texts_print_as_prometheus_prints_them() {
    compare(include_str!("formats.txt"), |text| {
        let printed = parse(text).map_or_else(|e| e.to_string(), |e| e.to_string());
        let again = parse(&printed).map_or_else(|e| e.to_string(), |e| e.to_string());
        assert_eq!(again, printed, "printing is stable");
        printed
    });
}

#[test]
fn arithmetic_on_durations_reads_as_in_prometheus() {
    compare(include_str!("durations.txt"), |text| {
        let (text, is_on) = match text.strip_prefix("off:") {
            Some(text) => (text, false),
            None => (text, true),
        };
        let options = ParseOptions {
            duration_expressions: is_on,
            ..ParseOptions::default()
        };
        let parsed = parse_with(text, options);
        let printed = parsed.map_or_else(|e| e.to_string(), |e| e.to_string());
        printed.replace("parse error: ", "")
    });
}

#[test]
fn durations_know_functions_of_newer_versions() {
    let options = ParseOptions {
        duration_expressions: true,
        ..ParseOptions::default()
    };
    for (text, printed) in [
        ("x[step()]", "x[step()]"),
        ("x[5m+RANGE()]", "x[5m + range()]"),
        (
            "x[max_of(min_of(step(),1h),(1ms))]",
            "x[max_of(min_of(step(), 1h), 1ms)]",
        ),
        ("x offset -step()*2", "x offset -step() * 2"),
        ("x offset (-step()*2)", "x offset (-step() * 2)"),
        ("x[5m:step()]", "x[5m:step()]"),
    ] {
        let parsed = parse_with(text, options).map(|expr| expr.to_string());
        assert_eq!(parsed, Ok(printed.to_owned()));
        assert!(parse(text).is_err(), "{text}");
    }
}

/// As github.com/prometheus/prometheus has it after 3.5, behind its flags.
#[test]
fn newer_syntax_is_read_behind_its_features() {
    for (text, printed) in [
        ("rate(x[5m] anchored)", "rate(x[5m] anchored)"),
        (
            "x[5m] SMOOTHED offset 1m @ 5",
            "x[5m] smoothed @ 5.000 offset 1m",
        ),
        ("x @ 5 smoothed offset 1m", "x @ 5.000 smoothed offset 1m"),
        ("anchored + smoothed", "anchored + smoothed"),
        ("x + fill(0) y", "x + fill (0) y"),
        (
            "x > bool on(a) group_left(b) fill_left(-Inf) fill_right(7) y",
            "x > bool on (a) group_left (b) fill_left (-Inf) fill_right (7) y",
        ),
        ("fill + fill(NaN) fill_left", "fill + fill (NaN) fill_left"),
        ("first_over_time(x[5m])", "first_over_time(x[5m])"),
    ] {
        let read = parse_with(text, ALL).map(|expr| expr.to_string());
        assert_eq!(read, Ok(printed.to_owned()));
        let plain = parse(text);
        assert!(plain.is_err() || text.starts_with("anchored"), "{text}");
    }
    for (text, message) in [
        (
            "x anchored smoothed",
            "1:1: parse error: anchored and smoothed modifiers cannot be used together",
        ),
        (
            "x[5m:] anchored",
            "1:1: parse error: anchored modifier is not supported for subqueries",
        ),
        (
            "(x) smoothed",
            "1:1: parse error: smoothed modifier not implemented",
        ),
        (
            "x and fill(0) y",
            "1:1: parse error: filling in missing series not allowed for set operators",
        ),
    ] {
        let refused = parse_with(text, ALL).unwrap_err().to_string();
        assert_eq!(refused, message);
    }
}

#[test]
fn precedence_and_associativity() {
    for (text, meaning) in [
        ("1 + 2 * 3", "1 + (2 * 3)"),
        ("1 - 2 - 3", "(1 - 2) - 3"),
        ("2 ^ 3 ^ 2", "2 ^ (3 ^ 2)"),
        ("-2 ^ 2", "-(2 ^ 2)"),
        ("-a * b", "(-a) * b"),
        ("2 ^ -a * b", "(2 ^ (-a)) * b"),
        ("a or b and c", "a or (b and c)"),
        ("a unless b or c", "(a unless b) or c"),
        ("a + b > c - d", "(a + b) > (c - d)"),
        ("a atan2 b % c", "(a atan2 b) % c"),
    ] {
        assert_eq!(
            shape(&parse(text).unwrap()),
            shape(&parse(meaning).unwrap()),
            "{text}"
        );
    }
}

/// The tree with every operator in its own parentheses, whatever the text had.
fn shape(expr: &Expr) -> String {
    match expr.unwrap_parens() {
        Expr::Binary(b) => {
            format!("({} {} {})", shape(&b.left), b.op.as_str(), shape(&b.right))
        }
        Expr::Unary(u) => format!("(-{})", shape(&u.expr)),
        other => other.to_string(),
    }
}

#[test]
fn match_takes_a_bare_selector_only() {
    let matchers = parse_matchers(r#"up{job="x"}"#).unwrap();
    assert_eq!(matchers.len(), 2);
    assert_eq!(matchers[1], Matcher::equal("__name__", "up"));
    assert!(parse_matchers(r#"{__name__=~".+"}"#).is_ok());
    for text in [
        "",
        "up[5m]",
        "up offset 5m",
        "rate(up[5m])",
        "1",
        "up == 1",
        "(up)",
    ] {
        assert!(parse_matchers(text).is_err(), "{text}");
    }
    assert_eq!(parse_matchers("{}"), Ok(Vec::new()));
    // Prometheus 3.5.3: `curl -g ':9090/api/v1/series?match[]=…'`.
    let both = parse_matchers("s{__name__=\"s\"}").map(|matchers| matchers.len());
    assert_eq!(both, Ok(2));
    for (text, position) in [
        ("", "unknown position"),
        (" ", "1:2"),
        ("\n", "2:1"),
        ("  # c", "1:6"),
    ] {
        let error = parse_matchers(text).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{position}: parse error: unexpected end of input")
        );
    }
    assert_eq!(
        parse_matchers(r#"{job=""}"#),
        Ok(vec![Matcher::equal("job", "")])
    );
}

#[test]
fn depth_and_length_are_bounded() {
    for text in [
        "(".repeat(60_000),
        format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000)),
        "-".repeat(60_000),
        format!("{}x", "-".repeat(60_000)),
        "1+".repeat(30_000) + "1",
        "2^".repeat(30_000) + "1",
        "abs(".repeat(15_000),
        "sum(".repeat(200) + "x" + &")".repeat(200),
        format!("x[{}1m{}]", "(".repeat(20_000), ")".repeat(20_000)),
        format!("x[{}1m]", "-".repeat(20_000)),
        format!("x[{}1m]", "1+".repeat(20_000)),
        format!("x offset ({}1m)", "2^".repeat(20_000)),
        format!("x[{}1m]", "max_of(1,".repeat(7_000)),
        format!("x{}", "[1m:1m]".repeat(9_000)),
        " ".repeat(QUERY_BYTES_MAX + 1),
    ] {
        assert!(parse(&text).is_err());
        assert!(parse_with(&text, ALL).is_err());
    }
    let deep = format!("{}1{}", "(".repeat(60), ")".repeat(60));
    assert!(parse(&deep).is_ok());
}

/// On half the stack that a server's tasks have.
#[test]
fn long_chains_are_walked_everywhere() {
    let walk = || {
        for operator in [" + ", " or ", " * on (b) "] {
            let long = format!("a{operator}").repeat(500) + "a";
            let expr = parse(&long).unwrap();
            assert_eq!(
                parse(&expr.to_string()).as_ref().map(Expr::ty),
                Ok(expr.ty())
            );
            assert!(crate::format_query(&long, ParseOptions::default()).is_ok());
            assert!(crate::parse_tree_json(&long, ParseOptions::default()).is_ok());
            assert!(crate::local::Numbers::of(&expr).get(&expr).is_some());
            assert!(!crate::plan::is_step_invariant(&expr));
            assert!(expr == expr.clone());
        }
    };
    #[allow(
        clippy::disallowed_methods,
        reason = "a test of how much stack walking takes"
    )]
    let walked = std::thread::Builder::new()
        .stack_size(TASK_STACK_BYTES / 2)
        .spawn(walk);
    walked.unwrap().join().unwrap();
}

fn any_duration() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec!["5m", "1.5", "-30s", "0x10", "step()", "range()"]);
    leaf.prop_map(str::to_owned)
        .prop_recursive(4, 12, 2, |inner| {
            let op = prop::sample::select(vec!["+", "-", "*", "/", "%", "^"]);
            prop_oneof![
                (inner.clone(), op, inner.clone()).prop_map(|(l, o, r)| format!("{l} {o} {r}")),
                inner.clone().prop_map(|d| format!("({d})")),
                inner.clone().prop_map(|d| format!("-{d}")),
                (inner.clone(), inner).prop_map(|(l, r)| format!("max_of({l}, {r})")),
            ]
        })
}

fn any_expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("1".to_owned()),
        Just("0.5".to_owned()),
        Just("5m".to_owned()),
        Just("up".to_owned()),
        Just("a:b".to_owned()),
        Just(r#"x{job="a\"b", le!~"0|1"} offset -5m"#.to_owned()),
        Just(r#"{"a.b", "c d"="é"} @ 12.5"#.to_owned()),
        Just("time()".to_owned()),
        Just("x smoothed".to_owned()),
        Just("rate(x[1m] anchored)".to_owned()),
        Just("vector(1)".to_owned()),
    ];
    leaf.prop_recursive(6, 40, 3, |inner| {
        let op = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "^", "atan2", "> bool", "==", "<",
        ]);
        let matching = prop::sample::select(vec![
            "",
            "on (a)",
            "ignoring (b, c) group_left (d)",
            "fill (1)",
        ]);
        prop_oneof![
            (inner.clone(), op, matching, inner.clone())
                .prop_map(|(l, o, m, r)| format!("{l} {o} {m} {r}")),
            inner.clone().prop_map(|e| format!("({e})")),
            inner.clone().prop_map(|e| format!("-{e}")),
            inner
                .clone()
                .prop_map(|e| format!("sum by (a, \"b c\") ({e})")),
            inner
                .clone()
                .prop_map(|e| format!("topk without (a) (2, {e})")),
            inner
                .clone()
                .prop_map(|e| format!("rate(({e})[5m:30s] @ end() offset 1h)")),
            (inner.clone(), any_duration())
                .prop_map(|(e, d)| format!("rate(({e})[{d}:({d})/2] offset ({d}))")),
            any_duration().prop_map(|d| format!("rate(info(x, {{}})[{d}] offset -({d}))")),
            inner.clone().prop_map(|e| format!("abs({e})")),
            (inner.clone(), inner).prop_map(|(l, r)| format!("{l} and on () {r}")),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,80}") {
        let _outcome = parse(&text);
        let _outcome = parse_with(&text, ALL);
        let _outcome = parse_matchers(&text);
    }

    #[test]
    fn arbitrary_tokens_never_panic(words in prop::collection::vec(
        prop::sample::select(vec![
            "(", ")", "{", "}", "[", "]", ",", ":", "=", "=~", "!=", "!~", "==", "<", "@", "-", "+", "^",
            "sum", "by", "without", "offset", "bool", "on", "group_left", "and", "x", "rate", "start",
            "5m", "1", "0x", "1e", ".", "'a'", "\"", "\\", "`", "#", "\n", "é", "nan",
            "step()", "max_of(", "[5m*", "offset (",
        ]), 0..24), glue in prop::sample::select(vec!["", " "])) {
        let text = words.join(glue);
        if let Ok(expr) = parse_with(&text, ALL) {
            let printed = expr.to_string();
            prop_assert_eq!(parse_with(&printed, ALL).map(|e| e.to_string()), Ok(printed));
        }
    }

    #[test]
    fn printing_and_parsing_agree(text in any_expression()) {
        if let Ok(expr) = parse_with(&text, ALL) {
            let printed = expr.to_string();
            let again = parse_with(&printed, ALL);
            prop_assert!(again.is_ok(), "{printed}: {again:?}");
            let laid_out = parse_with(&crate::pretty::pretty(&expr), ALL);
            prop_assert_eq!(laid_out.map(|e| e.to_string()), Ok(printed.clone()));
            let again = again.unwrap();
            prop_assert_eq!(again.to_string(), printed);
            prop_assert_eq!(shape(&again), shape(&expr));
        }
    }
}
