//! What is chosen: for reads, for calls about labels, to be deleted.

use model::source::{Consistency, MetadataSelection, Selection, Take};
use model::{MatchOp, Matcher, Timestamp};
use proto::node as wire;
use tsdb::DeleteCommand;

use super::Malformed;

const OPS: [MatchOp; 4] = [
    MatchOp::Equal,
    MatchOp::NotEqual,
    MatchOp::Regex,
    MatchOp::NotRegex,
];

fn matcher_to_wire(matcher: &Matcher) -> wire::Matcher {
    wire::Matcher {
        op: OPS
            .iter()
            .position(|op| *op == matcher.op)
            .expect("all are listed") as u32,
        name: matcher.name.clone(),
        value: matcher.value.clone(),
    }
}

fn matcher_from_wire(matcher: wire::Matcher) -> Result<Matcher, Malformed> {
    let op = OPS
        .get(matcher.op as usize)
        .ok_or_else(|| Malformed::new("matcher"))?;
    Matcher::new(*op, matcher.name, matcher.value).map_err(Malformed::new)
}

fn consistency(local: bool) -> Consistency {
    if local {
        Consistency::Local
    } else {
        Consistency::Strong
    }
}

pub fn selection_to_wire(selection: &Selection) -> wire::SelectRequest {
    wire::SelectRequest {
        matchers: selection.matchers.iter().map(matcher_to_wire).collect(),
        start_ms: selection.start.0,
        end_ms: selection.end.0,
        last_only: selection.take == Take::Last,
        local: selection.consistency == Consistency::Local,
        ..Default::default()
    }
}

pub fn selection_from_wire(request: wire::SelectRequest) -> Result<Selection, Malformed> {
    Ok(Selection {
        matchers: request
            .matchers
            .into_iter()
            .map(matcher_from_wire)
            .collect::<Result<_, _>>()?,
        start: Timestamp(request.start_ms),
        end: Timestamp(request.end_ms),
        take: if request.last_only {
            Take::Last
        } else {
            Take::All
        },
        consistency: consistency(request.local),
    })
}

fn set_to_wire(matchers: &[Matcher]) -> wire::MatcherSet {
    wire::MatcherSet {
        matchers: matchers.iter().map(matcher_to_wire).collect(),
    }
}

fn set_from_wire(set: wire::MatcherSet) -> Result<Vec<Matcher>, Malformed> {
    set.matchers.into_iter().map(matcher_from_wire).collect()
}

pub fn sets_to_wire(any_of: &[Vec<Matcher>]) -> Vec<wire::MatcherSet> {
    any_of.iter().map(|set| set_to_wire(set)).collect()
}

pub fn sets_from_wire(sets: Vec<wire::MatcherSet>) -> Result<Vec<Vec<Matcher>>, Malformed> {
    sets.into_iter().map(set_from_wire).collect()
}

pub fn metadata_to_wire(selection: &MetadataSelection) -> wire::MetadataRequest {
    wire::MetadataRequest {
        any_of: sets_to_wire(&selection.any_of),
        start_ms: selection.start.0,
        end_ms: selection.end.0,
        local: selection.consistency == Consistency::Local,
        ..Default::default()
    }
}

pub fn metadata_from_wire(request: wire::MetadataRequest) -> Result<MetadataSelection, Malformed> {
    Ok(MetadataSelection {
        any_of: sets_from_wire(request.any_of)?,
        start: Timestamp(request.start_ms),
        end: Timestamp(request.end_ms),
        consistency: consistency(request.local),
    })
}

pub fn delete_to_wire(delete: &DeleteCommand) -> wire::DeleteRequest {
    wire::DeleteRequest {
        any_of: delete.any_of.iter().map(|set| set_to_wire(set)).collect(),
        start_ms: delete.start.0,
        end_ms: delete.end.0,
        ..Default::default()
    }
}

pub fn delete_from_wire(request: wire::DeleteRequest) -> Result<DeleteCommand, Malformed> {
    let any_of = request.any_of.into_iter().map(set_from_wire);
    Ok(DeleteCommand {
        any_of: any_of.collect::<Result<_, _>>()?,
        start: Timestamp(request.start_ms),
        end: Timestamp(request.end_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_survive_the_wire() {
        let matchers = vec![Matcher::new(MatchOp::NotRegex, "job", "a|b").unwrap()];
        let selection = Selection {
            matchers: matchers.clone(),
            start: Timestamp(-1),
            end: Timestamp::MAX,
            take: Take::Last,
            consistency: Consistency::Local,
        };
        assert_eq!(
            selection_from_wire(selection_to_wire(&selection)),
            Ok(selection)
        );
        let metadata = MetadataSelection {
            any_of: vec![matchers, vec![]],
            start: Timestamp::MIN,
            end: Timestamp(3),
            consistency: Consistency::Strong,
        };
        assert_eq!(
            metadata_from_wire(metadata_to_wire(&metadata)),
            Ok(metadata)
        );
    }

    #[test]
    fn deletions_survive_the_wire() {
        let delete = DeleteCommand {
            any_of: vec![vec![Matcher::equal("a", "b")], vec![]],
            start: Timestamp(-3),
            end: Timestamp(9),
        };
        assert_eq!(delete_from_wire(delete_to_wire(&delete)), Ok(delete));
    }
}
