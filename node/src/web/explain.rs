//! `explain=1`: where each part of a query ran, and what it read and moved (docs/queries.md).
//!
//! Promise: an answer without the parameter has the same bytes as ever. What is shown is what the
//! nodes told of the very run that gave the answer.

use model::fragment::Fragment;
use model::source::Selection;
use model::trail::{Asked, Told, Trail};

use super::json::Json;

/// The `explain` member of a query's data.
pub fn write(trail: &Trail) -> String {
    let mut json = Json::default();
    json.raw("{\"parts\":");
    json.list(&trail.take(), |json, (asked, told)| {
        write_asked(json, asked);
        json.list(told, write_told);
        json.raw("}");
    });
    json.raw("}");
    json.into_string()
}

fn write_asked(json: &mut Json, asked: &Asked) {
    let (kind, expression) = match asked {
        Asked::Series(selection) => ("series", matchers(selection)),
        Asked::Part(fragment) => {
            let kind = if fragment.fold { "groups" } else { "columns" };
            (kind, text(fragment))
        }
    };
    json.raw("{\"returned\":\"").raw(kind);
    json.raw("\",\"expression\":").text(&expression);
    json.raw(",\"nodes\":");
}

fn write_told(json: &mut Json, told: &Told) {
    json.raw("{\"node\":");
    match told.node {
        Some(node) => json.text(&node.to_string()),
        None => json.raw("null"),
    };
    json.raw(",\"shards\":");
    json.list(&told.shards, |json, shard| {
        json.value(&shard.0);
    });
    json.raw(",\"series\":").value(&told.series);
    json.raw(",\"samples\":").value(&told.samples);
    json.raw(",\"bytes\":").value(&told.bytes);
    json.raw(",\"seconds\":").number(told.took.as_secs_f64());
    json.raw("}");
}

/// What was computed, as the query has it.
fn text(fragment: &Fragment) -> String {
    promql::fragment::expression(fragment).unwrap_or_default()
}

fn matchers(selection: &Selection) -> String {
    let all: Vec<String> = selection.matchers.iter().map(ToString::to_string).collect();
    format!("{{{}}}", all.join(","))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::source::{Consistency, Take};
    use model::{Matcher, NodeId, ShardId, Timestamp};

    use super::*;

    #[test]
    fn every_node_is_told_with_what_it_did() {
        let trail = Trail::default();
        let selection = Selection {
            matchers: vec![Matcher::equal("__name__", "up")],
            start: Timestamp(0),
            end: Timestamp(1),
            take: Take::All,
            consistency: Consistency::Strong,
        };
        let question = trail.begin(Asked::Series(selection));
        for (node, shards) in [
            (None, vec![ShardId(7)]),
            (Some(NodeId(5)), vec![ShardId(1)]),
        ] {
            let told = Told {
                node,
                shards,
                series: 2,
                samples: 30,
                bytes: 400,
                took: Duration::from_micros(1500),
            };
            trail.note(question, told);
        }
        let node = NodeId(5).to_string();
        let rest = r#""series":2,"samples":30,"bytes":400,"seconds":0.0015}"#;
        let expected = format!(
            r#"{{"parts":[{{"returned":"series","expression":"{{__name__=\"up\"}}","nodes":[{{"node":"{node}","shards":[1],{rest},{{"node":null,"shards":[7],{rest}]}}]}}"#
        );
        assert_eq!(write(&trail), expected);
    }
}
