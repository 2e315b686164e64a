//! Asking: this node's own replicas and every other leader, all at once.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{FusedFuture, join_all, try_join, try_join_all};
use model::fragment::FragmentError;
use model::port::Clock;
use model::source::{Consistency, Source};
use model::trail::{Told, Trail};
use model::{NodeId, ShardId};
use proto::node as messages;
use tokio::time::timeout;

use super::answer::{self, Answer, Little, seen_here};
use super::link::{LinkError, Replies};
use super::votes::{Standings, Votes};
use super::{AllShards, Found, Question, near, wire};
use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::router::{ASK_TIMEOUT, Router, ShardSource, call_within, is_passing, to_source_error};

/// What one node found, and the shards it would not speak for.
type Share = (Found, Vec<ShardId>);

/// Another node, and the shards it is to speak for.
pub(super) struct Other {
    pub node: u64,
    pub peer: Arc<Peer>,
    pub shards: Vec<ShardId>,
}

/// Asks all shards.
pub(super) async fn all(source: &AllShards, question: &Question) -> Result<Found, FragmentError> {
    let router = &source.router;
    let notes = &Notes::of(source, question);
    if let Some(found) = near::ask(source, question, notes).await? {
        return Ok(found);
    }
    let mut round = Round::new(router, &source.shards, question, notes);
    let (mut found, mut left) = round.ask(None, None).await?;
    left.append(&mut round.nowhere);
    let one_by_one = left.into_iter().map(async |shard| {
        let found = one(router, shard, question).await?;
        let bytes = found.parts.iter().map(|part| part.bytes).sum();
        notes.add(None, vec![shard], &found, bytes);
        Ok::<_, FragmentError>(found)
    });
    for more in try_join_all(one_by_one).await? {
        found.extend(more);
    }
    Ok(found)
}

/// Asks one shard, looking for its leader.
async fn one(
    router: &Arc<Router>,
    shard: ShardId,
    question: &Question,
) -> Result<Found, FragmentError> {
    let source = ShardSource {
        router: router.clone(),
        shard,
    };
    let mut found = Found::default();
    match question {
        Question::Select(selection) => found.series = source.select(selection).await?,
        Question::Series(selection) => found.label_sets = source.series(selection).await?,
        Question::LabelNames(selection) => found.texts = source.label_names(selection).await?,
        Question::LabelValues(name, selection) => {
            found.texts = source.label_values(name, selection).await?;
        }
        Question::Exemplars(selection) => found.exemplars = source.exemplars(selection).await?,
        Question::Evaluate(fragment) => found.parts = source.evaluate(fragment).await?,
    }
    Ok(found)
}

/// Where it is noted who answered what of a question.
pub(super) struct Notes<'a> {
    /// With the question's number.
    trail: Option<(&'a Trail, usize)>,
    clock: &'a dyn Clock,
    began: Duration,
}

impl<'a> Notes<'a> {
    fn of(source: &'a AllShards, question: &Question) -> Self {
        let clock = &*source.router.world.clock;
        let trail = source.trail.as_deref();
        let noted = |trail: &'a Trail| Some((trail, trail.begin(question.asked()?)));
        Self {
            trail: trail.and_then(noted),
            clock,
            began: clock.monotonic(),
        }
    }

    fn add(&self, node: Option<u64>, shards: Vec<ShardId>, found: &Found, bytes: u64) {
        let Some((trail, question)) = self.trail.filter(|_| !shards.is_empty()) else {
            return;
        };
        let (series, samples) = found.read();
        let told = Told {
            node: node.map(NodeId),
            shards,
            series,
            samples,
            bytes,
            took: self.clock.monotonic().saturating_sub(self.began),
        };
        trail.note(question, told);
    }
}

/// One question to everybody at once.
pub(super) struct Round<'a> {
    pub router: &'a Arc<Router>,
    pub question: &'a Question,
    pub notes: &'a Notes<'a>,
    pub here: Standings,
    pub others: Vec<Other>,
    /// Shards that cannot be asked for now.
    pub nowhere: Vec<ShardId>,
}

impl<'a> Round<'a> {
    fn new(
        router: &'a Arc<Router>,
        shards: &[ShardId],
        question: &'a Question,
        notes: &'a Notes<'a>,
    ) -> Self {
        let consistency = question.consistency();
        let mut others: BTreeMap<u64, Other> = BTreeMap::new();
        let (mut replicas, mut nowhere) = (Vec::new(), Vec::new());
        for &shard in shards {
            let leader = router.probable_leader(shard, 0);
            let is_near = consistency == Consistency::Local || leader == Some(router.node);
            if let Some(replica) = router.replica(shard).filter(|_| is_near) {
                replicas.push(replica);
                continue;
            }
            match leader.and_then(|node| Some((node, router.peer(node)?))) {
                Some((node, peer)) => {
                    let new = || Other {
                        node,
                        peer,
                        shards: Vec::new(),
                    };
                    others.entry(node).or_insert_with(new).shards.push(shard);
                }
                None => nowhere.push(shard),
            }
        }
        let here = Standings::of(replicas, consistency, |_, _| None);
        nowhere.extend(here.unclear.iter().map(|replica| replica.shard));
        // Voters that are asked nothing else are asked for their votes.
        let voters = here.claims.iter().flat_map(|(_, claim)| claim.voters());
        for node in voters.filter(|node| *node != router.node) {
            if let Some(peer) = router.peer(node) {
                let new = || Other {
                    node,
                    peer,
                    shards: Vec::new(),
                };
                others.entry(node).or_insert_with(new);
            }
        }
        Self {
            router,
            question,
            notes,
            here,
            others: others.into_values().collect(),
            nowhere,
        }
    }

    /// `little` is what the replicas here will be asked, if that is known already. What they say is
    /// given up when it is not confirmed within `patience`, counted from when all the rest is there.
    pub async fn ask(
        &self,
        little: Option<Little>,
        patience: Option<Duration>,
    ) -> Result<Share, FragmentError> {
        let votes = Votes::default();
        let (asked, told): (Vec<&Other>, Vec<&Other>) = self
            .others
            .iter()
            .partition(|other| !other.shards.is_empty());
        let told = told.into_iter().map(|other| self.there(other, &votes));
        let mut told = pin!(join_all(told).map(drop).fuse());
        let asked = asked.into_iter().map(|other| self.there(other, &votes));
        let mut needed = pin!(try_join(try_join_all(asked), self.here(little).map(Ok)));
        // Those who only tell votes are asked first, so that they are on their way while this node
        // computes, and waited for last.
        let (shares, here) = poll_fn(|context| {
            let _not_waited_for = told.as_mut().poll(context);
            needed.as_mut().poll(context)
        })
        .await?;
        let leads = poll_fn(|context| {
            let _is_terminated = told.as_mut().poll(context);
            match votes.confirm(&self.here.claims) {
                true => Poll::Ready(true),
                false if told.is_terminated() => Poll::Ready(false),
                false => Poll::Pending,
            }
        });
        let leads = async {
            match patience {
                None => leads.await,
                Some(patience) => timeout(patience, leads).await.unwrap_or(false),
            }
        };
        let (mut found, mut left) = match here {
            Some(answer) => self.share_of_here(answer, leads.await)?,
            None => Share::default(),
        };
        for (more, refused) in shares {
            found.extend(more);
            left.extend(refused);
        }
        Ok((found, left))
    }

    /// What the replicas here say, before it is confirmed that they may: what is confirmed is how
    /// things stood when the question began. None where there are none.
    async fn here(&self, little: Option<Little>) -> Option<Result<Answer, Refusal>> {
        let (router, replicas) = (self.router, &self.here.replicas);
        if replicas.is_empty() {
            return None;
        }
        let (seat, world) = (&router.evaluator, &router.world);
        Some(match little {
            Some(little) => little.answer(seat, world, replicas, self.question).await,
            None => answer::of(seat, world, replicas, self.question).await,
        })
    }

    fn share_of_here(
        &self,
        answer: Result<Answer, Refusal>,
        leads: bool,
    ) -> Result<Share, FragmentError> {
        let replicas = self.here.replicas.iter();
        let shards: Vec<ShardId> = replicas.map(|replica| replica.shard).collect();
        if !leads {
            return Ok((Found::default(), shards));
        }
        if let Ok(Ok(found)) = &answer {
            let node = Some(self.router.node);
            self.notes.add(node, shards.clone(), found, 0);
        }
        share(shards, answer)
    }

    async fn there(&self, other: &Other, votes: &Votes) -> Result<Share, FragmentError> {
        let shards = other.shards.clone();
        let answer = self.ask_peer(other, votes).await;
        let (answer, refused) = match answer {
            Ok((answer, refused)) => (Ok(answer), refused),
            Err(refusal) => (Err(refusal), Vec::new()),
        };
        for (shard, refusal) in &refused {
            self.router.note(*shard, refusal);
        }
        if let Err(refusal) = &answer
            && is_passing(refusal)
        {
            shards
                .iter()
                .for_each(|shard| self.router.note(*shard, refusal));
        }
        let failed = refused.iter().find(|(_, refusal)| !is_passing(refusal));
        if let Some((shard, refusal)) = failed {
            return Err(to_source_error(*shard, refusal.clone()).into());
        }
        let mut share = share(shards, answer)?;
        share.1.extend(refused.into_iter().map(|(shard, _)| shard));
        Ok(share)
    }

    async fn ask_peer(
        &self,
        other: &Other,
        votes: &Votes,
    ) -> Result<(Answer, Vec<(ShardId, Refusal)>), Refusal> {
        let router = self.router;
        let confirm = self.here.claims.iter().map(|(shard, _)| shard.0);
        let seen = seen_here(&router.replicas, other.shards.iter().copied());
        let question = (!other.shards.is_empty()).then(|| wire::question_to_wire(self.question));
        let request = messages::ReadRequest {
            cluster_id: router.cluster_id(),
            from: router.node,
            votes: wire::votes_to_wire(seen),
            shards: other.shards.iter().map(|shard| shard.0).collect(),
            confirm: confirm.collect(),
            question,
        };
        let mut replies = Incoming::ask(&other.peer, request).await?;
        let mut arriving = wire::Arriving::default();
        let mut patience = match self.question {
            // The work has its own time limit over there, which answers better than ours would.
            Question::Evaluate(fragment) => {
                Duration::from_millis(fragment.timeout_ms).saturating_add(ASK_TIMEOUT)
            }
            _ => ASK_TIMEOUT,
        };
        loop {
            let next = timeout(patience, replies.next()).await;
            let reply = next.map_err(|_| too_slow())??;
            if !reply.votes.is_empty() {
                votes.tell(other.node, wire::votes_from_wire(&reply.votes));
            }
            if arriving.has_begun(&reply) {
                patience = ASK_TIMEOUT;
            }
            if let Some(arrived) = arriving.add(reply)? {
                router.received.inc_by(arrived.bytes);
                if let Ok(found) = &arrived.answer {
                    let answered = |shard: &&ShardId| {
                        !arrived.refused.iter().any(|(refused, _)| refused == *shard)
                    };
                    let shards = other.shards.iter().filter(answered).copied().collect();
                    self.notes
                        .add(Some(other.node), shards, found, arrived.bytes);
                }
                return Ok((arrived.answer, arrived.refused));
            }
        }
    }
}

/// The messages of a peer's answer.
enum Incoming {
    Framed(Replies),
    /// From a peer that does not speak in frames.
    Called(tonic::Streaming<messages::ReadReply>),
}

impl Incoming {
    async fn ask(peer: &Peer, request: messages::ReadRequest) -> Result<Self, Refusal> {
        let asked = timeout(ASK_TIMEOUT, peer.reads.ask(&request)).await;
        match asked.map_err(|_| too_slow())? {
            Ok(replies) => Ok(Self::Framed(replies)),
            Err(LinkError::NotConnected(_)) => Err(Refusal::NotLeader(None)),
            Err(error @ LinkError::Broken(_)) => Err(Refusal::Unavailable(error.to_string())),
            Err(LinkError::Otherwise) => {
                let called = call_within(ASK_TIMEOUT, peer.data().read(request)).await?;
                Ok(Self::Called(called))
            }
        }
    }

    async fn next(&mut self) -> Result<messages::ReadReply, Refusal> {
        match self {
            Self::Framed(replies) => {
                let reply = replies.next().await;
                reply.map_err(|error| Refusal::Unavailable(error.to_string()))
            }
            Self::Called(replies) => {
                let reply = replies.message().await;
                let reply = reply.map_err(|status| Refusal::Unavailable(status.to_string()))?;
                reply.ok_or_else(|| Refusal::Unavailable("the answer broke off".to_owned()))
            }
        }
    }
}

fn too_slow() -> Refusal {
    Refusal::Unavailable("no answer in time".to_owned())
}

/// A whole answer, or the shards that must be asked again.
fn share(shards: Vec<ShardId>, answer: Result<Answer, Refusal>) -> Result<Share, FragmentError> {
    match answer {
        Ok(Ok(found)) => Ok((found, Vec::new())),
        Ok(Err(error)) => Err(error),
        Err(refusal) if is_passing(&refusal) => Ok((Found::default(), shards)),
        Err(refusal) => {
            let shard = shards.first().copied().unwrap_or(ShardId(0));
            Err(to_source_error(shard, refusal).into())
        }
    }
}
