//! Questions to several shards and their answers as node-to-node messages.

use std::collections::BTreeMap;

use model::ShardId;
use model::fragment::FragmentError;
use prost::Message;
use proto::node as messages;
use proto::node::metadata_request::Kind;
use proto::node::read_request::Question as Asked;

use super::answer::Answer;
use super::{Found, Question};
use crate::convert::{self, Malformed};
use crate::evaluate;
use crate::raft::standing::{Leadership, Seen};
use crate::refusal::Refusal;
use crate::shards_service;

/// Label sets or texts in one message of an answer.
const ITEMS_PER_MESSAGE: usize = 64 << 10;

pub fn votes_to_wire(votes: Vec<(ShardId, Seen)>) -> Vec<messages::ShardVote> {
    let votes = votes.into_iter().map(|(shard, seen)| messages::ShardVote {
        shard: shard.0,
        term: seen.vote.term,
        node: seen.vote.node,
        reached: seen.reached,
    });
    votes.collect()
}

pub fn votes_from_wire(votes: &[messages::ShardVote]) -> BTreeMap<ShardId, Seen> {
    let seen = |vote: &messages::ShardVote| Seen {
        vote: Leadership {
            term: vote.term,
            node: vote.node,
        },
        reached: vote.reached,
    };
    votes.iter().map(|v| (ShardId(v.shard), seen(v))).collect()
}

pub fn question_to_wire(question: &Question) -> Asked {
    let metadata = |kind: Kind, label: &str, selection| {
        Asked::Metadata(messages::MetadataRequest {
            kind: kind.into(),
            label: label.to_owned(),
            ..convert::metadata_to_wire(selection)
        })
    };
    match question {
        Question::Select(selection) => Asked::Select(convert::selection_to_wire(selection)),
        Question::Evaluate(fragment) => Asked::Evaluate(evaluate::fragment_to_wire(fragment)),
        Question::Series(selection) => metadata(Kind::Series, "", selection),
        Question::LabelNames(selection) => metadata(Kind::LabelNames, "", selection),
        Question::LabelValues(name, selection) => metadata(Kind::LabelValues, name, selection),
        Question::Exemplars(selection) => metadata(Kind::Exemplars, "", selection),
    }
}

pub fn question_from_wire(asked: Option<Asked>) -> Result<Question, Malformed> {
    Ok(match asked {
        None => return Err(Malformed("a read without a question".to_owned())),
        Some(Asked::Select(request)) => Question::Select(convert::selection_from_wire(request)?),
        Some(Asked::Evaluate(request)) => Question::Evaluate(evaluate::fragment_from_wire(request)),
        Some(Asked::Metadata(request)) => {
            let (kind, label) = (request.kind(), request.label.clone());
            let selection = convert::metadata_from_wire(request)?;
            match kind {
                Kind::Series => Question::Series(selection),
                Kind::LabelNames => Question::LabelNames(selection),
                Kind::LabelValues => Question::LabelValues(label, selection),
                Kind::Exemplars => Question::Exemplars(selection),
            }
        }
    })
}

/// Only refusals.
pub fn refused(refused: Vec<(ShardId, Refusal)>) -> messages::ReadReply {
    let refused = refused
        .into_iter()
        .map(|(shard, refusal)| messages::RefusedShard {
            shard: shard.0,
            refusal: Some(convert::refusal_to_wire(refusal)),
        });
    messages::ReadReply {
        refused: refused.collect(),
        end: true,
        ..Default::default()
    }
}

/// An answer as messages of bounded size, at least one; refusals in the last one.
pub fn replies(
    refusals: Vec<(ShardId, Refusal)>,
    question: &Question,
    answer: Answer,
) -> Vec<messages::ReadReply> {
    let mut replies = match answer {
        Err(error) => evaluate_replies(Err(error)),
        Ok(found) => found_replies(question, found),
    };
    let end = refused(refusals);
    match replies.last_mut() {
        Some(last) => (last.refused, last.end) = (end.refused, end.end),
        None => replies.push(end),
    }
    replies
}

fn evaluate_replies(answer: evaluate::Answer) -> Vec<messages::ReadReply> {
    let replies = evaluate::replies(Ok(answer)).into_iter();
    let reply = |evaluate| messages::ReadReply {
        evaluate: Some(evaluate),
        ..Default::default()
    };
    replies.map(reply).collect()
}

fn found_replies(question: &Question, found: Found) -> Vec<messages::ReadReply> {
    match question {
        Question::Evaluate(_) => {
            let parts = found.parts.into_iter();
            parts.flat_map(|part| evaluate_replies(Ok(part))).collect()
        }
        Question::Select(_) => {
            let select = |select| messages::ReadReply {
                select: Some(select),
                ..Default::default()
            };
            let replies = shards_service::messages(found.series).into_iter();
            replies.map(select).collect()
        }
        _ => metadata_replies(found),
    }
}

fn metadata_replies(found: Found) -> Vec<messages::ReadReply> {
    let reply = |metadata| messages::ReadReply {
        metadata: Some(metadata),
        ..Default::default()
    };
    let sets = found.label_sets.chunks(ITEMS_PER_MESSAGE).map(|sets| {
        reply(messages::MetadataReply {
            series: convert::label_sets_to_wire(sets),
            ..Default::default()
        })
    });
    let texts = found.texts.chunks(ITEMS_PER_MESSAGE).map(|texts| {
        reply(messages::MetadataReply {
            texts: texts.to_vec(),
            ..Default::default()
        })
    });
    let exemplars = found.exemplars.chunks(ITEMS_PER_MESSAGE).map(|exemplars| {
        reply(messages::MetadataReply {
            exemplars: exemplars.iter().map(convert::exemplars_to_wire).collect(),
            ..Default::default()
        })
    });
    sets.chain(texts).chain(exemplars).collect()
}

/// A whole answer.
pub struct Arrived {
    pub answer: Answer,
    pub refused: Vec<(ShardId, Refusal)>,
    pub bytes: u64,
}

/// An answer of which not all messages are here.
#[derive(Default)]
pub struct Arriving {
    found: Found,
    part: evaluate::Arriving,
    refused: Vec<(ShardId, Refusal)>,
    failure: Option<FragmentError>,
    bytes: u64,
}

impl Arriving {
    /// Whether the message is one of the answer's own, so that the work over there is done.
    pub fn has_begun(&self, reply: &messages::ReadReply) -> bool {
        reply.select.is_some() || reply.metadata.is_some() || reply.evaluate.is_some()
    }

    /// Takes the next message; the answer, once it is whole.
    pub fn add(&mut self, reply: messages::ReadReply) -> Result<Option<Arrived>, Refusal> {
        self.bytes += reply.encoded_len() as u64;
        let malformed = |error: Malformed| Refusal::Internal(error.to_string());
        for refused in reply.refused {
            let refusal = refused.refusal.unwrap_or_default();
            let refusal = convert::refusal_from_wire(refusal);
            self.refused.push((ShardId(refused.shard), refusal));
        }
        if let Some(select) = reply.select {
            for one in select.series {
                let joined = convert::series_from_wire(one)
                    .and_then(|one| convert::join_series(&mut self.found.series, one));
                joined.map_err(malformed)?;
            }
        }
        if let Some(metadata) = reply.metadata {
            let sets = convert::label_sets_from_wire(metadata.series).map_err(malformed)?;
            self.found.label_sets.extend(sets);
            self.found.texts.extend(metadata.texts);
            let exemplars = metadata.exemplars.into_iter();
            let exemplars: Result<Vec<_>, _> =
                exemplars.map(convert::exemplars_from_wire).collect();
            self.found.exemplars.extend(exemplars.map_err(malformed)?);
        }
        if let Some(evaluate) = reply.evaluate {
            match self.part.add(evaluate)? {
                None => {}
                Some(Ok(part)) => {
                    self.found.parts.push(part);
                    self.part = evaluate::Arriving::default();
                }
                Some(Err(error)) => self.failure = Some(error),
            }
        }
        Ok(reply.end.then(|| Arrived {
            answer: match self.failure.take() {
                Some(error) => Err(error),
                None => Ok(std::mem::take(&mut self.found)),
            },
            refused: std::mem::take(&mut self.refused),
            bytes: self.bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use model::fragment::{Part, PartColumn};
    use model::source::{Consistency, MetadataSelection};
    use model::{Labels, Timestamp};

    use super::*;

    fn arrive(replies: Vec<messages::ReadReply>) -> Arrived {
        let mut arriving = Arriving::default();
        for reply in replies {
            if let Some(arrived) = arriving.add(reply).unwrap() {
                return arrived;
            }
        }
        panic!("the answer broke off");
    }

    fn selection() -> MetadataSelection {
        MetadataSelection {
            any_of: Vec::new(),
            start: Timestamp(1),
            end: Timestamp(2),
            consistency: Consistency::Local,
        }
    }

    fn fragment() -> Question {
        Question::Evaluate(evaluate::fragment_from_wire(Default::default()))
    }

    #[test]
    fn several_parts_and_refusals_survive_the_wire() {
        let part = |name: &str| Part {
            columns: vec![PartColumn {
                labels: Labels::from_pairs([("__name__", name)]),
                drop_name: false,
                values: vec![1.0; 100_000],
                histograms: Vec::new(),
                rest: Vec::new(),
            }],
            series: 1,
            ..Part::default()
        };
        let found = Found {
            parts: vec![part("a"), part("b")],
            ..Found::default()
        };
        let refusals = vec![(ShardId(3), Refusal::NotLeader(Some(2)))];
        let arrived = arrive(replies(refusals.clone(), &fragment(), Ok(found)));
        assert_eq!(arrived.refused, refusals);
        let parts = arrived.answer.unwrap().parts;
        assert_eq!(parts.len(), 2);
        assert!(
            parts
                .iter()
                .all(|part| part.series == 1 && part.columns.len() == 1)
        );
        let error = FragmentError::TooManySamples;
        let arrived = arrive(replies(Vec::new(), &fragment(), Err(error.clone())));
        assert_eq!(arrived.answer.unwrap_err(), error);
    }

    #[test]
    fn lists_and_questions_survive_the_wire() {
        let question = Question::LabelValues("job".to_owned(), selection());
        let back = question_from_wire(Some(question_to_wire(&question))).unwrap();
        assert_eq!(format!("{back:?}"), format!("{question:?}"));
        assert!(question_from_wire(None).is_err());
        let found = Found {
            texts: (0..ITEMS_PER_MESSAGE + 1).map(|n| n.to_string()).collect(),
            ..Found::default()
        };
        let texts = found.texts.clone();
        let messages = replies(Vec::new(), &question, Ok(found));
        assert_eq!(messages.len(), 2);
        assert_eq!(arrive(messages).answer.unwrap().texts, texts);
        let vote = Leadership { term: 2, node: 3 };
        let votes = [None, Some(0), Some(9)].map(|reached| Seen { vote, reached });
        let votes: Vec<_> = (1..).map(ShardId).zip(votes).collect();
        let back = votes_from_wire(&votes_to_wire(votes.clone()));
        assert_eq!(back.into_iter().collect::<Vec<_>>(), votes);
    }
}
