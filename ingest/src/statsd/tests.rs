//! Lines as statsd_exporter's documentation and line parser have them, and what they come to.

use proptest::prelude::*;

use model::Labels;
use model::group::Family;

use super::fold::{Fold, Options, Refused};
use super::*;
use crate::mapping::{Action, Observer, Rules, Spec};

/// Name, tags, kind of each event; then malformed and bad tags.
fn shown(line: &str) -> (Vec<String>, u64, u64) {
    let mut tally = Tally::default();
    let events = parse(line, &mut tally);
    let event = |event: &Event<'_>| {
        let tags = event.tags.iter().map(|(n, v)| format!("{n}={v}"));
        let tags: Vec<_> = tags.collect();
        format!("{}{{{}}} {:?}", event.name, tags.join(","), event.kind)
    };
    (
        events.iter().map(event).collect(),
        tally.malformed,
        tally.bad_tags,
    )
}

#[test]
fn lines_of_every_style() {
    for (line, events, malformed, bad_tags) in [
        ("foo:2|c", vec!["foo{} Count(2.0)"], 0, 0),
        ("foo:2|c|@0.1", vec!["foo{} Count(20.0)"], 0, 0),
        ("foo:2|c|@0", vec!["foo{} Count(2.0)"], 0, 0),
        ("foo:3|g", vec!["foo{} Gauge(3.0)"], 0, 0),
        ("foo:-10|g", vec!["foo{} Change(-10.0)"], 0, 0),
        ("foo:+1|g|@0.5", vec!["foo{} Change(1.0)"], 0, 0),
        (
            "foo:200|ms",
            vec!["foo{} Observation { value: 0.2, times: 1.0 }"],
            0,
            0,
        ),
        (
            "foo:200|h|@0.3",
            vec!["foo{} Observation { value: 200.0, times: 3.0 }"],
            0,
            0,
        ),
        (
            "foo:1:2|d|#a:b",
            vec![
                "foo{a=b} Observation { value: 1.0, times: 1.0 }",
                "foo{a=b} Observation { value: 2.0, times: 1.0 }",
            ],
            0,
            0,
        ),
        ("foo:1:2|c|#a:b", vec![], 1, 0),
        (
            "foo:2|c|#__x:1,____:2,_y:3",
            vec!["foo{_x=1,_=2,_y=3} Count(2.0)"],
            0,
            0,
        ),
        (
            "foo:1|c:2|g:3|x",
            vec!["foo{} Count(1.0)", "foo{} Gauge(2.0)"],
            1,
            0,
        ),
        (
            "foo:100|c|#tag1:bar,#tag2:baz:x,bad,:y,",
            vec!["foo{tag1=bar,tag2=baz:x} Count(100.0)"],
            0,
            2,
        ),
        (
            "foo:100|c|@0.1|#09digits:0,tag-x:ü",
            vec!["foo{_09digits=0,tag_x=ü} Count(1000.0)"],
            0,
            0,
        ),
        ("foo#a=b,c=d:1|c", vec!["foo{a=b,c=d} Count(1.0)"], 0, 0),
        ("foo,a=b,c=d:1|c", vec!["foo{a=b,c=d} Count(1.0)"], 0, 0),
        (
            "foo.[a=b,c=d]x:1|c",
            vec!["foo.x{a=b,c=d} Count(1.0)"],
            0,
            0,
        ),
        ("foo.[a=b:1|c", vec!["foo.[a=b{} Count(1.0)"], 0, 1),
        ("foo]a[:1|c", vec!["foo]a[{} Count(1.0)"], 0, 1),
        ("foo,a=b:1|c|#c:d", vec![], 1, 0),
        (
            "foo:1|c|#a:b|c:abc|T1656581400",
            vec!["foo{a=b,container_id=abc} Count(1.0)"],
            0,
            0,
        ),
        ("foo:1|c|T1x", vec![], 1, 0),
        ("foo:joe|set", vec![], 1, 0),
        ("foo:1|s", vec![], 1, 0),
        ("foo:-1|c", vec![], 1, 0),
        ("foo:nan|g", vec![], 1, 0),
        ("foo:1", vec![], 1, 0),
        ("foo", vec![], 1, 0),
        (":1|c", vec![], 1, 0),
        ("foo:1|c||", vec![], 1, 0),
        ("foo:1|c|@x", vec!["foo{} Count(1.0)"], 1, 0),
        ("foo:1|ms|@5", vec![], 0, 0),
        // From here on of statsd_exporter's own tests (bridge_test.go).
        ("foo:3|g|@0.2", vec!["foo{} Gauge(3.0)"], 0, 0),
        (
            "foo:0.01|d|@0.2|#tag1:bar,#tag2:baz",
            vec!["foo{tag1=bar,tag2=baz} Observation { value: 0.01, times: 5.0 }"],
            0,
            0,
        ),
        (
            "foo#09digits=0,tag.with.dots=1:100|c",
            vec!["foo{_09digits=0,tag_with_dots=1} Count(100.0)"],
            0,
            0,
        ),
        (
            "foo:100|c|#tag_without_a_value,tag:value",
            vec!["foo{tag=value} Count(100.0)"],
            0,
            1,
        ),
        (
            "foo:100|c|#tag:value,,",
            vec!["foo{tag=value} Count(100.0)"],
            0,
            1,
        ),
        (
            "foo#tag1=foo,tag3=bing:100|c|@0.1|#tag1:bar,#tag2:baz",
            vec![],
            1,
            0,
        ),
        (
            "foo:200|ms:300|ms:5|c|@0.1:6|g",
            vec![
                "foo{} Observation { value: 0.2, times: 1.0 }",
                "foo{} Observation { value: 0.3, times: 1.0 }",
                "foo{} Count(50.0)",
                "foo{} Gauge(6.0)",
            ],
            0,
            0,
        ),
        (
            "foo.timing:0.5|ms|@0.1",
            vec!["foo.timing{} Observation { value: 0.0005, times: 10.0 }"],
            0,
            0,
        ),
        ("foo:1o|c", vec![], 1, 0),
        ("foo:2|t", vec![], 1, 0),
        ("_e{5,4}:title|text", vec![], 1, 1),
        ("", vec![], 0, 0),
    ] {
        let expected: Vec<String> = events.into_iter().map(str::to_owned).collect();
        assert_eq!(shown(line), (expected, malformed, bad_tags), "{line}");
    }
}

fn folded(fold: &mut Fold, lines: &[&str]) -> Vec<Refused> {
    let mut refused = Vec::new();
    for line in lines {
        for event in parse(line, &mut Tally::default()) {
            refused.extend(fold.add(&event).err());
        }
    }
    refused
}

fn families(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        text += &format!("{} {}\n", family.name, family.kind.as_str());
        for sample in &family.samples {
            text += &format!("  {}{} {}\n", sample.suffix, sample.labels, sample.value);
        }
    }
    text
}

/// Else a bucket of the one series and one of the other would be the same.
#[test]
fn a_tag_called_as_a_bound_is_renamed() {
    for (observer, expected) in [
        (
            Observer::Histogram,
            r#"_sum{exported_le="v", quantile="v"} 0.1"#,
        ),
        (
            Observer::Summary,
            r#"{exported_quantile="v", le="v", quantile="0.5"} 0.1"#,
        ),
    ] {
        let mut fold = Fold::new(Options {
            observer: Some(observer),
            ..Options::default()
        });
        let refused = folded(&mut fold, &["h:100|ms|#le:v,quantile:v"]);
        assert_eq!(refused, []);
        let told = families(&fold.take(|_, _| None));
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn an_interval_is_added_up() {
    let mut fold = Fold::default();
    let lines = [
        "c:1|c",
        "c:2|c|@0.5",
        "c,x=y:7|c",
        "g:5|g",
        "g:+2|g",
        "r:-3|g",
        "t:20|ms",
        "t:3000|ms",
        "t:60000|ms",
    ];
    assert_eq!(folded(&mut fold, &lines), []);
    let known = |name: &str, _: &Labels| (name == "r").then_some(10.0);
    let text = families(&fold.take(known));
    assert_eq!(
        text,
        "c counter\n  {} 5\n  {x=\"y\"} 7\ng gauge\n  {} 7\nr gauge\n  {} 7\nt histogram\n  \
         _bucket{le=\"0.005\"} 0\n  _bucket{le=\"0.01\"} 0\n  _bucket{le=\"0.025\"} 1\n  \
         _bucket{le=\"0.05\"} 1\n  _bucket{le=\"0.1\"} 1\n  _bucket{le=\"0.25\"} 1\n  \
         _bucket{le=\"0.5\"} 1\n  _bucket{le=\"1.0\"} 1\n  _bucket{le=\"2.5\"} 1\n  \
         _bucket{le=\"5.0\"} 2\n  _bucket{le=\"10.0\"} 2\n  _bucket{le=\"+Inf\"} 3\n  \
         _sum{} 63.02\n  _count{} 3\n"
    );
    assert!(fold.is_empty());
    assert_eq!(folded(&mut fold, &["c:1|g", "c:1|c"]), [Refused::Conflict]);
    assert_eq!(families(&fold.take(known)), "c counter\n  {} 1\n");
}

#[test]
fn rules_name_label_scale_and_choose_the_form() {
    let spec = Spec {
        pattern: "app.*.time".to_owned(),
        name: "app_time".to_owned(),
        labels: vec![("who".to_owned(), "$1".to_owned())],
        observer: Some(Observer::Summary),
        quantiles: vec![0.5],
        scale: Some(10.0),
        ..Spec::default()
    };
    let drop = Spec {
        pattern: "secret.*".to_owned(),
        name: "x".to_owned(),
        action: Action::Drop,
        ..Spec::default()
    };
    let honors = Spec {
        pattern: "own.*".to_owned(),
        name: "own".to_owned(),
        labels: vec![("who".to_owned(), "$1".to_owned())],
        honor_labels: true,
        ..Spec::default()
    };
    let mut fold = Fold::new(Options {
        rules: Rules::new(vec![spec, drop, honors], false).unwrap(),
        ..Options::default()
    });
    let lines = [
        "app.a.time:1|h|#who:tag",
        "app.a.time:2|h",
        "app.a.time:3|h|@0.5",
        "secret.x:1|c",
        "own.a:1|c|#who:tag",
    ];
    assert_eq!(folded(&mut fold, &lines), [Refused::Dropped]);
    assert_eq!(
        families(&fold.take(|_, _| None)),
        "app_time gauge\n  {quantile=\"0.5\", who=\"a\"} 20\napp_time_count counter\n  \
         {who=\"a\"} 4\napp_time_sum counter\n  {who=\"a\"} 90\nown counter\n  {who=\"tag\"} 1\n"
    );
}

#[test]
fn what_is_kept_is_bounded() {
    use model::limits::STATSD_SERIES_MAX;
    let mut fold = Fold::default();
    for i in 0..STATSD_SERIES_MAX + 5 {
        let line = format!("m{i}:1|c");
        let refused = folded(&mut fold, &[&line]);
        assert_eq!(refused.is_empty(), i < STATSD_SERIES_MAX, "{i}");
    }
    // A series that is known is taken, also in a later interval.
    fold.take(|_, _| None);
    assert_eq!(folded(&mut fold, &["m1:1|c"]), []);
    let mut fold = Fold::new(Options {
        observer: Some(Observer::Summary),
        ..Options::default()
    });
    for i in 0..20_000 {
        folded(&mut fold, &[&format!("t:{i}|h")]);
    }
    let taken = fold.take(|_, _| None);
    let median = taken[0].samples[0].value;
    assert!((9_900.0..10_100.0).contains(&median), "{median}");
}

proptest! {
    #[test]
    fn arbitrary_lines_never_panic(
        line in "([a-cü.,#\\[\\]=]{0,6}(:[0-9.+-]{0,3})?[|@#:a-c=,0-9mshdgT]{0,12})",
    ) {
        let mut tally = Tally::default();
        let mut fold = Fold::default();
        for event in parse(&line, &mut tally) {
            fold.add(&event).ok();
        }
        fold.take(|_, _| None);
    }

    /// However lines are spread over nodes, counters and histograms come to the same.
    #[test]
    fn sums_do_not_depend_on_who_got_what(
        lines in prop::collection::vec("(a:[1-9]\\|c)|(b:[1-9]{1,4}\\|ms)", 1..20),
        split in prop::collection::vec(any::<bool>(), 20),
    ) {
        let refs: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut one = Fold::default();
        folded(&mut one, &refs);
        let (mut left, mut right) = (Fold::default(), Fold::default());
        for (line, go_left) in refs.iter().zip(split) {
            folded(if go_left { &mut left } else { &mut right }, &[line]);
        }
        let mut both: std::collections::BTreeMap<String, Family> = Default::default();
        for family in left.take(|_, _| None).into_iter().chain(right.take(|_, _| None)) {
            let added = match both.get(&family.name) {
                None => family,
                Some(old) => model::group::sum::add(old, &family),
            };
            both.insert(added.name.clone(), added);
        }
        for family in one.take(|_, _| None) {
            for (ours, theirs) in family.samples.iter().zip(&both[&family.name].samples) {
                prop_assert_eq!(&ours.labels, &theirs.labels);
                prop_assert!((ours.value - theirs.value).abs() < 1e-9);
            }
        }
    }
}
