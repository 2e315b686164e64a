//! The answer of this node's replicas, for itself and for others.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use model::fragment::FragmentError;
use model::source::{Consistency, Source};
use model::{NodeId, ShardId};
use proto::node as messages;

use super::votes::Standings;
use super::{Found, Question, wire};
use crate::evaluate::{self, Seat};
use crate::raft::standing::Leadership;
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
        return Ok(
            match evaluate::over(seat, world, replicas, fragment).await {
                Ok(parts) => {
                    found.parts = parts;
                    Ok(found)
                }
                Err(FragmentError::Source(error)) => return Err(engine_refusal(error)),
                Err(error) => Err(error),
            },
        );
    }
    let mut texts = Texts::default();
    for replica in replicas {
        let mut add_text = |text: &str, stands: &dyn Fn() -> bool| texts.add(text, stands);
        add(&mut found, &mut add_text, replica, question)
            .await
            .map_err(engine_refusal)?;
        texts.end_shard();
    }
    found.texts = texts.all;
    Ok(Ok(found))
}

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
        while self
            .all
            .get(self.at)
            .is_some_and(|known| known.as_str() < text)
        {
            self.at += 1;
        }
        if self.all.get(self.at).is_none_or(|known| known != text) && stands() {
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
) -> Result<(), model::source::SourceError> {
    let engine = &replica.engine;
    match question {
        Question::Select(selection) => found.series.extend(engine.select(selection).await?),
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
        Question::Evaluate(_) => unreachable!("parts are computed over all shards together"),
    }
    Ok(())
}

/// The votes that are saved here of those shards that this node has.
pub(super) fn seen_here(
    replicas: &Replicas,
    shards: impl IntoIterator<Item = ShardId>,
) -> Vec<(ShardId, Leadership)> {
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

/// The messages that answer a request of this cluster. What takes long is preceded by the votes.
pub async fn serve(
    server: Server,
    request: messages::ReadRequest,
) -> BoxStream<'static, messages::ReadReply> {
    let confirm = request.confirm.iter().copied().map(ShardId);
    let votes = wire::votes_to_wire(seen_here(&server.replicas, confirm));
    let votes = messages::ReadReply {
        votes,
        end: request.shards.is_empty(),
        ..Default::default()
    };
    let all = futures::stream::iter;
    if request.shards.is_empty() {
        return all(vec![votes]).boxed();
    }
    let mut answer = async move { server.replies(request).await }.boxed();
    match tokio::time::timeout(AT_ONCE, &mut answer).await {
        Ok(mut replies) => {
            if let Some(first) = replies.first_mut() {
                first.votes = votes.votes;
            }
            all(replies).boxed()
        }
        Err(_elapsed) => all(vec![votes])
            .chain(answer.map(all).into_stream().flatten())
            .boxed(),
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
