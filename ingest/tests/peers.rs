//! The parsers against what real programs answered.
//!
//! `prometheus-3.5.3.jsonl`: bodies served to Prometheus 3.5.3 as scrape targets, one JSON object
//! a line, with the scrape error it showed on its targets page (or null) and the series it then
//! held: labels, value as its API prints it, and the timestamp where the body gave one. The error
//! texts are kept for the reader; ours are worded otherwise. Left out, because there we differ on
//! purpose: blanks before a metric name (Prometheus keeps them as part of the name), `{a} 1` as
//! OpenMetrics (it crashes), `le` in hexadecimal or with `_` (it is rewritten).
//!
//! `pushgateway-1.11.2.jsonl`: bodies put to `/metrics/job/t` of an empty Pushgateway 1.11.2: the
//! answer's status and error, and the families its page then showed, without its own. Left out:
//! labels with an empty value (we hold them equal to absent ones), `a"b" 1` (read as `ab`),
//! backslashes in types, counts below zero or NaN of a summary (wrapped), one bound twice in a
//! histogram (kept twice).

use ingest::exposition::{Entry, Parser};
use ingest::push::{self, Names};
use ingest::{openmetrics, text};
use model::group::Group;
use model::{Labels, Timestamp, number};
use serde_json::Value;

type Sample = (Labels, String, Option<Timestamp>);

fn parser(is_openmetrics: bool, body: &[u8]) -> Result<Parser<'_>, String> {
    Ok(if is_openmetrics {
        Parser::OpenMetrics(openmetrics::Parser::new(body).map_err(|e| e.to_string())?)
    } else {
        Parser::Text(text::Parser::new(body).map_err(|e| e.to_string())?)
    })
}

/// All or nothing, the first of equal series: as a scrape stores it.
fn scrape(is_openmetrics: bool, body: &[u8]) -> Result<Vec<Sample>, String> {
    let mut parser = parser(is_openmetrics, body)?;
    let mut samples: Vec<Sample> = Vec::new();
    while let Some(entry) = parser.next_entry().map_err(|e| e.to_string())? {
        let Entry::Sample(line) = entry else { continue };
        let labels = parser.labels().map_err(|e| e.to_string())?;
        if labels.metric_name().is_empty() {
            return Err("a series without a name".to_owned());
        }
        if !samples.iter().any(|(l, ..)| *l == labels) {
            samples.push((labels, number::json(line.value), line.timestamp));
        }
    }
    samples.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(samples)
}

fn expected(series: &Value) -> Vec<Sample> {
    let mut samples: Vec<Sample> = series
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            let labels = s[0].as_object().unwrap();
            let pairs = labels.iter().map(|(n, v)| (n, v.as_str().unwrap()));
            let value = s[1].as_str().unwrap().to_owned();
            (
                Labels::from_pairs(pairs),
                value,
                s[2].as_i64().map(Timestamp),
            )
        })
        .collect();
    samples.sort_by(|a, b| a.0.cmp(&b.0));
    samples
}

#[test]
fn bodies_are_taken_and_refused_as_prometheus_does() {
    let mut differences = Vec::new();
    let cases = include_str!("fixtures/prometheus-3.5.3.jsonl");
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let body = case["body"].as_str().unwrap();
        let ours = scrape(case["openmetrics"].as_bool().unwrap(), body.as_bytes());
        let agrees = match &case["error"] {
            Value::Null => ours.as_deref() == Ok(&expected(&case["series"])[..]),
            _ => ours.is_err(),
        };
        if !agrees {
            differences.push(format!("{line}\n    ours: {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(cases.lines().count() > 200);
}

#[test]
fn pushes_are_taken_and_refused_as_pushgateway_does() {
    let key = push::path::parse("/metrics/job/t", Names::Legacy).unwrap();
    let mut differences = Vec::new();
    let cases = include_str!("fixtures/pushgateway-1.11.2.jsonl");
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let body = case["body"].as_str().unwrap();
        let ours = push::parse(body.as_bytes(), &key, Names::Legacy);
        let agrees = match (&ours, case["status"].as_u64()) {
            (Ok(families), Some(200)) => page(&key, families.clone()) == case["page"],
            (Err(error), Some(400)) => {
                let theirs = case["error"].as_str().unwrap();
                same_complaint(&error.to_string(), theirs)
            }
            _ => false,
        };
        if !agrees {
            let page = ours.map(|families| page(&key, families));
            differences.push(format!("{line}\n    ours: {page:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(cases.lines().count() > 70);
}

/// The page of one group without the families every group has.
fn page(key: &model::group::GroupingKey, families: Vec<model::group::Family>) -> String {
    let group = Group {
        key: key.clone(),
        families,
        push_time: Timestamp(1),
        push_failure_time: Timestamp(0),
        expires: None,
    };
    let page = push::render(&[group], &|name| name.into());
    let own = |line: &&str| !line.contains("push_time") && !line.contains("push_failure_time");
    page.lines()
        .filter(own)
        .map(|line| line.to_owned() + "\n")
        .collect()
}

/// Equal texts; but a colliding name may be told from either side, and a compound metric's value
/// may be described otherwise.
fn same_complaint(ours: &str, theirs: &str) -> bool {
    let parts = |text: &str| (text.find("histogram:{"), text.find("was collected before"));
    match (parts(ours), parts(theirs)) {
        ((Some(a), Some(_)), (Some(b), Some(_))) => ours[..a] == theirs[..b],
        _ => ours == theirs || (ours.contains(" collides ") && theirs.contains(" collides ")),
    }
}

/// Lines of an excerpt of node_exporter 1.11.1, and what a line counter makes of them.
#[test]
fn no_line_of_node_exporter_is_lost() {
    let text = include_str!("fixtures/node_exporter-1.11.1.txt");
    let in_openmetrics = format!("{text}# EOF\n");
    for (is_openmetrics, body) in [(false, text), (true, in_openmetrics.as_str())] {
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(lines > 40);
        assert_eq!(
            scrape(is_openmetrics, body.as_bytes()).map(|samples| samples.len()),
            Ok(lines)
        );
    }
}

mod any_bytes {
    use proptest::prelude::*;

    use super::{Names, push, scrape};

    proptest! {
        #[test]
        fn never_panic(body in prop::collection::vec(any::<u8>(), 0..200), openmetrics: bool) {
            let _ = scrape(openmetrics, &body);
        }

        #[test]
        fn never_panic_when_pushed(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let key = push::path::parse("/metrics/job/t", Names::Legacy).unwrap();
            let _ = push::parse(&body, &key, Names::Utf8);
        }

        /// Texts of the formats' own pieces come further than random bytes.
        #[test]
        fn pieces_of_the_grammar_never_panic(
            pieces in prop::collection::vec("[ab_:]|[{}=,\"\\\\ \n#]|1|é|# TYPE a |# HELP |# EOF| # |le=\"1\"", 0..40),
            openmetrics: bool,
        ) {
            let body = pieces.concat();
            let _ = scrape(openmetrics, body.as_bytes());
            let key = push::path::parse("/metrics/job/t", Names::Legacy).unwrap();
            let _ = push::parse(body.as_bytes(), &key, Names::Utf8);
        }
    }
}
