//! The examples of graphite_exporter's and statsd_exporter's documentation.

use proptest::prelude::*;

use super::*;

fn spec(pattern: &str, name: &str, labels: &[(&str, &str)]) -> Spec {
    let labels = labels.iter();
    Spec {
        pattern: pattern.to_owned(),
        name: name.to_owned(),
        labels: labels
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        ..Spec::default()
    }
}

fn regex(pattern: &str, name: &str, labels: &[(&str, &str)]) -> Spec {
    Spec {
        match_type: MatchType::Regex,
        ..spec(pattern, name, labels)
    }
}

fn shown(rules: &Rules, metric: &str) -> Option<String> {
    let mapped = rules.find(metric, MetricType::Gauge)?;
    let labels = mapped.labels.iter().map(|(n, v)| format!("{n}={v:?}"));
    let labels: Vec<_> = labels.collect();
    Some(format!("{}{{{}}}", mapped.name, labels.join(",")))
}

#[test]
fn the_examples_of_the_exporters() {
    let rules = Rules::new(
        vec![
            spec(
                "test.dispatcher.*.*.*",
                "dispatcher_events_total",
                &[
                    ("action", "$2"),
                    ("job", "test_dispatcher"),
                    ("outcome", "$3"),
                    ("processor", "$1"),
                ],
            ),
            spec(
                "*.signup.*.*",
                "signup_events_total",
                &[
                    ("job", "${1}_server"),
                    ("outcome", "$3"),
                    ("provider", "$2"),
                ],
            ),
            regex(
                r"servers\.(.*)\.networking\.subnetworks\.transmissions\.([a-z0-9-]+)\.(.*)",
                "servers_networking_transmissions_${3}",
                &[("hostname", "${1}"), ("device", "${2}")],
            ),
            regex(
                r"test\.(\w+)\.(\w+)\.counter",
                "${2}_total",
                &[("provider", "$1")],
            ),
        ],
        false,
    )
    .unwrap();
    for (metric, expected) in [
        (
            "test.dispatcher.FooProcessor.send.success",
            Some(
                r#"dispatcher_events_total{action="send",job="test_dispatcher",outcome="success",processor="FooProcessor"}"#,
            ),
        ),
        (
            "foo_product.signup.facebook.failure",
            Some(
                r#"signup_events_total{job="foo_product_server",outcome="failure",provider="facebook"}"#,
            ),
        ),
        ("test.web-server.foo.bar", None),
        (
            "servers.rack-003-server-c4de.networking.subnetworks.transmissions.eth0.failure.mean_rate",
            Some(
                r#"servers_networking_transmissions_failure.mean_rate{hostname="rack-003-server-c4de",device="eth0"}"#,
            ),
        ),
        ("test.a.b.counter", Some(r#"b_total{provider="a"}"#)),
        // An expression is found anywhere.
        ("x.test.a.b.counters", Some(r#"b_total{provider="a"}"#)),
    ] {
        assert_eq!(shown(&rules, metric).as_deref(), expected, "{metric}");
    }
}

#[test]
fn globs_come_first_in_order_or_by_exactness() {
    let specs = || {
        vec![
            regex(".", "any", &[]),
            spec("a.*.*", "stars", &[("x", "$1-$2-$3-$1_y-$$")]),
            spec("a.b.*", "exact", &[]),
        ]
    };
    let ordered = Rules::new(specs(), false).unwrap();
    assert_eq!(
        shown(&ordered, "a.b.c").as_deref(),
        Some(r#"stars{x="b-c---$$"}"#)
    );
    let unordered = Rules::new(specs(), true).unwrap();
    assert_eq!(shown(&unordered, "a.b.c").as_deref(), Some("exact{}"));
    assert_eq!(shown(&unordered, "b").as_deref(), Some("any{}"));
}

#[test]
fn a_rule_may_be_for_one_type() {
    let counters = Spec {
        metric_type: Some(MetricType::Counter),
        ..spec("a.*", "counters", &[])
    };
    let rules = Rules::new(vec![counters], false).unwrap();
    assert!(rules.find("a.b", MetricType::Gauge).is_none());
    assert!(rules.find("a.b", MetricType::Counter).is_some());
}

#[test]
fn what_is_wrong_is_refused() {
    for (spec, text) in [
        (spec("a.*b", "x", &[]), "invalid match: a.*b"),
        (spec("1a.*", "x", &[]), "invalid match: 1a.*"),
        (spec("a..b", "x", &[]), "invalid match: a..b"),
        (spec("a.b", "", &[]), "mapping of \"a.b\" has no name"),
        (
            spec("a.b", "x-y", &[]),
            "metric name \"x-y\" is neither a name nor a template of one",
        ),
        (spec("a.b", "x", &[("a-b", "")]), "invalid label key: a-b"),
        (regex("(", "x", &[]), "invalid regex ( in mapping"),
        (
            Spec {
                buckets: vec![1.0, 1.0],
                ..spec("a", "x", &[])
            },
            "buckets of \"a\" do not ascend",
        ),
    ] {
        let error = Rules::new(vec![spec], false).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}

proptest! {
    #[test]
    fn any_rule_and_name_have_an_answer(
        pattern in "[a-c.*$()?-]{0,10}",
        name in "[a-c$1{}_]{0,8}",
        is_regex in any::<bool>(),
        metric in "[a-c.*-é]{0,10}",
    ) {
        let made = match is_regex {
            true => regex(&pattern, &name, &[("l", &name)]),
            false => spec(&pattern, &name, &[("l", &name)]),
        };
        if let Ok(rules) = Rules::new(vec![made], false) {
            rules.find(&metric, MetricType::Gauge);
        }
    }
}
