//! The answer of this node's replicas, for itself and for others.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use model::fragment::{FragmentError, Part};
use model::source::{Consistency, Source, SourceError};
use model::{NodeId, ShardId};
use proto::node as messages;
use tsdb::Chosen;

use super::votes::Standings;
use super::{Found, Question, wire};
use crate::evaluate::{self, Seat};
use crate::raft::standing::Seen;
use crate::refusal::Refusal;
use crate::router::{Replicas, engine_refusal};
use crate::shard::Replica;

/// What a node that was reached says.
pub(super) type Answer = Result<Found, FragmentError>;

/// What `replicas`, which are fresh enough, have to say.
pub(super) async fn of(
    seat: &Seat,
    world: &model::port::World,
    replicas: &[Arc<Replica>],
    question: &Question,
) -> Result<Answer, Refusal> {
    let mut found = Found::default();
    if let Question::Evaluate(fragment) = question {
        return of_parts(evaluate::over(seat, world, replicas, fragment).await);
    }
    if let Question::Select(selection) = question {
        let series = evaluate::select_over(seat, world, replicas, selection).await;
        found.series = series.map_err(engine_refusal)?;
        return Ok(Ok(found));
    }
    let mut texts = Texts::default();
    for replica in replicas {
        let mut add_text = |text: &str, stands: &dyn Fn() -> bool| texts.add(text, stands);
        add(&mut found, &mut add_text, replica, question)
            .await
            .map_err(engine_refusal)?;
        texts.end_shard();
        let resting = of_resting(replica, question)
            .await
            .map_err(engine_refusal)?;
        resting.iter().for_each(|text| texts.add(text, &|| true));
        texts.end_shard();
    }
    found.texts = texts.all;
    Ok(Ok(found))
}

fn of_parts(parts: Result<Vec<Part>, FragmentError>) -> Result<Answer, Refusal> {
    match parts {
        Ok(parts) => Ok(Ok(Found {
            parts,
            ..Found::default()
        })),
        Err(FragmentError::Source(error)) => Err(engine_refusal(error)),
        Err(error) => Ok(Err(error)),
    }
}

/// What this node's replicas will be asked, when it is little enough for one node.
pub(super) enum Little {
    /// What the index answers.
    Metadata,
    /// The series that the answer is made of.
    Chosen(Chosen),
}

impl Little {
    /// None where it is more.
    pub async fn of(seat: &Seat, replicas: &[Arc<Replica>], question: &Question) -> Option<Self> {
        match question {
            Question::Select(selection) => {
                let chosen =
                    Chosen::within(evaluate::engines(replicas), selection, LITTLE_SAMPLES).await;
                chosen.ok().flatten().map(Self::Chosen)
            }
            Question::Evaluate(fragment) => {
                let chosen = evaluate::chosen(seat, replicas, fragment, LITTLE_SAMPLES).await;
                chosen.map(Self::Chosen)
            }
            Question::Series(_) | Question::LabelNames(_) | Question::LabelValues(..) => {
                Some(Self::Metadata)
            }
            // Nobody counted them.
            Question::Exemplars(_) => None,
        }
    }

    /// The answer of the same replicas to the same question.
    pub async fn answer(
        self,
        seat: &Seat,
        world: &model::port::World,
        replicas: &[Arc<Replica>],
        question: &Question,
    ) -> Result<Answer, Refusal> {
        match (self, question) {
            (Self::Chosen(chosen), Question::Evaluate(fragment)) => {
                of_parts(evaluate::over_chosen(seat, world, chosen, fragment).await)
            }
            (Self::Chosen(chosen), Question::Select(selection)) => {
                let series = evaluate::select(seat, &chosen, selection).await;
                let series = series.map_err(engine_refusal)?;
                Ok(Ok(Found {
                    series,
                    ..Found::default()
                }))
            }
            _ => of(seat, world, replicas, question).await,
        }
    }
}

/// Samples that one node decodes and computes on in some 2 ms; what is more is worth the way to others.
const LITTLE_SAMPLES: usize = 128 << 10;

/// Names or values of all shards, which share most of them: sorted, and each once if every shard
/// gives its own in order.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    /// Those of `all` before here are less than what came last.
    at: usize,
    new: Vec<String>,
}

impl Texts {
    /// Takes one that `stands`, which costs more to find out than that it is known.
    fn add(&mut self, text: &str, stands: &dyn Fn() -> bool) {
        while let Some(known) = self.all.get(self.at) {
            match known.as_str().cmp(text) {
                Ordering::Less => self.at += 1,
                Ordering::Equal => return,
                Ordering::Greater => break,
            }
        }
        if stands() {
            self.new.push(text.to_owned());
        }
    }

    fn end_shard(&mut self) {
        self.at = 0;
        if !self.new.is_empty() {
            self.all.append(&mut self.new);
            // Two runs, which the stable sort finds.
            self.all.sort();
        }
    }
}

async fn add(
    found: &mut Found,
    add_text: &mut (dyn FnMut(&str, &dyn Fn() -> bool) + Send),
    replica: &Replica,
    question: &Question,
) -> Result<(), SourceError> {
    let engine = &replica.engine;
    match question {
        Question::Series(selection) => found.label_sets.extend(engine.series(selection).await?),
        Question::LabelNames(selection) => {
            engine.each_label_name(selection, &mut |name| add_text(name, &|| true));
        }
        Question::LabelValues(name, selection) => {
            engine.each_label_value(name, selection, add_text);
        }
        Question::Exemplars(selection) => {
            found.exemplars.extend(engine.exemplars(selection).await?);
        }
        Question::Select(_) | Question::Evaluate(_) => {
            unreachable!("all shards are asked together")
        }
    }
    Ok(())
}

/// What series that rest have to say where names or values are asked for; sorted, each once.
async fn of_resting(
    replica: &Replica,
    question: &Question,
) -> Result<BTreeSet<String>, SourceError> {
    match question {
        Question::LabelNames(selection) => replica.engine.resting_label_names(selection).await,
        Question::LabelValues(name, selection) => {
            replica.engine.resting_label_values(name, selection).await
        }
        _ => Ok(BTreeSet::new()),
    }
}

/// What is saved here of those shards that this node has.
pub(super) fn seen_here(
    replicas: &Replicas,
    shards: impl IntoIterator<Item = ShardId>,
) -> Vec<(ShardId, Seen)> {
    let replicas = replicas.read().expect("not poisoned");
    let of_shard = |shard| {
        let replica = replicas.get(&shard)?;
        Some((shard, replica.standing.seen()))
    };
    shards.into_iter().filter_map(of_shard).collect()
}

/// Who answers other nodes' questions.
#[derive(Clone)]
pub struct Server {
    pub seat: Seat,
    pub world: model::port::World,
    pub replicas: Replicas,
}

/// How long an answer may take and still go out whole, votes and all, with the response's head:
/// the asker then wakes once.
const AT_ONCE: Duration = Duration::from_millis(10);

/// A request of this cluster that is being answered.
pub struct Answering {
    votes: messages::ReadReply,
    /// None where only votes are asked for.
    answer: Option<BoxFuture<'static, Vec<messages::ReadReply>>>,
}

impl Answering {
    pub fn new(server: Server, request: messages::ReadRequest) -> Self {
        let confirm = request.confirm.iter().copied().map(ShardId);
        let votes = wire::votes_to_wire(seen_here(&server.replicas, confirm));
        let asks = !request.shards.is_empty();
        Self {
            votes: messages::ReadReply {
                votes,
                end: !asks,
                ..Default::default()
            },
            answer: asks.then(|| async move { server.replies(request).await }.boxed()),
        }
    }

    /// All messages, where nothing has to be waited for.
    pub async fn at_once(&mut self) -> Option<Vec<messages::ReadReply>> {
        let Some(answer) = &mut self.answer else {
            return Some(vec![std::mem::take(&mut self.votes)]);
        };
        match futures::poll!(answer) {
            Poll::Ready(replies) => Some(self.with_votes(replies)),
            Poll::Pending => None,
        }
    }

    fn with_votes(&mut self, mut replies: Vec<messages::ReadReply>) -> Vec<messages::ReadReply> {
        if let Some(first) = replies.first_mut() {
            first.votes = std::mem::take(&mut self.votes.votes);
        }
        replies
    }

    /// The messages as they come. What takes long is preceded by the votes.
    pub async fn messages(mut self) -> BoxStream<'static, messages::ReadReply> {
        let all = futures::stream::iter::<Vec<_>>;
        let Some(mut answer) = self.answer.take() else {
            return all(vec![self.votes]).boxed();
        };
        match tokio::time::timeout(AT_ONCE, &mut answer).await {
            Ok(replies) => all(self.with_votes(replies)).boxed(),
            Err(_elapsed) => all(vec![self.votes])
                .chain(answer.map(all).into_stream().flatten())
                .boxed(),
        }
    }
}

impl Server {
    async fn replies(&self, request: messages::ReadRequest) -> Vec<messages::ReadReply> {
        let shards: Vec<ShardId> = request.shards.iter().copied().map(ShardId).collect();
        let all = |refusal: Refusal| shards.iter().map(|s| (*s, refusal.clone())).collect();
        let (from, told) = (
            NodeId(request.from).0,
            wire::votes_from_wire(&request.votes),
        );
        let question = match wire::question_from_wire(request.question) {
            Ok(question) => question,
            Err(error) => {
                return vec![wire::refused(all(Refusal::Internal(error.to_string())))];
            }
        };
        let mut refused: Vec<(ShardId, Refusal)> = Vec::new();
        let mut replicas = Vec::new();
        for &shard in &shards {
            let known = self.replicas.read().expect("not poisoned");
            match known.get(&shard) {
                Some(replica) => replicas.push(replica.clone()),
                None => refused.push((shard, Refusal::NotLeader(None))),
            }
        }
        let seen = |node, shard| told.get(&shard).copied().filter(|_| node == from);
        let mut standings = Standings::of(replicas, question.consistency(), seen);
        // What the asker's word does not confirm, Raft has to.
        let unconfirmed: Vec<ShardId> = standings.claims.iter().map(|(s, _)| *s).collect();
        let unconfirmed = |replica: &mut Arc<Replica>| unconfirmed.contains(&replica.shard);
        let unclear = standings.replicas.extract_if(.., unconfirmed);
        let unclear: Vec<Arc<Replica>> = unclear.chain(standings.unclear).collect();
        let settling = unclear.into_iter().map(|replica| async move {
            let settled = replica.settle(Consistency::Strong).await;
            (replica, settled)
        });
        for (replica, settled) in join_all(settling).await {
            match settled {
                Ok(()) => standings.replicas.push(replica),
                Err(refusal) => refused.push((replica.shard, refusal)),
            }
        }
        standings.replicas.sort_by_key(|replica| replica.shard);
        let answer = of(&self.seat, &self.world, &standings.replicas, &question).await;
        match answer {
            Ok(answer) => wire::replies(refused, &question, answer),
            Err(refusal) => vec![wire::refused(all(refusal))],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_shards_are_sorted_and_each_once() {
        let mut texts = Texts::default();
        for shard in [
            &["b", "d"][..],
            &["a", "b", "e"],
            &[],
            &["b", "c", "d", "f"],
        ] {
            shard.iter().for_each(|text| texts.add(text, &|| true));
            texts.add("g", &|| false);
            texts.end_shard();
        }
        assert_eq!(texts.all, ["a", "b", "c", "d", "e", "f"]);
    }
}
