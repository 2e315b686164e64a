//! From a batch, a push or a selection to the shards concerned and back: any node takes any
//! request.
//!
//! The leader of a shard is asked; who that is comes from the local replica, from the last answer,
//! or from trying the replicas in turn. What was certainly not done is tried again elsewhere
//! until the deadline; what may have been done is tried again only where a repeat changes nothing.

mod cutting;
mod metadata;
mod pushes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use model::fragment::{Fragment, FragmentError, Part};
use model::group::Group;
use model::hash::Map;
use model::memo::Giver;
use model::newest::Pages;
use model::port::World;
use model::sink::{Rejection, Sink, WriteError, Written};
use model::source::{MetadataSelection, Selection, Source, SourceError};
use model::{Batch, ExemplarSeries, Labels, NewestSelection, Series, ShardId};
use prost::Message;
use proto::node as wire;
use proto::node::metadata_request::Kind;
use tokio::sync::{Notify, watch};
use tsdb::Shard;

use crate::convert::{self, Malformed};
use crate::evaluate;
use crate::meta::State;
use crate::newest;
use crate::peer::{NotConnected, Peer, Peers};
use crate::reads::Near;
use crate::refusal::Refusal;
use crate::shard::Replica;
use crate::shard::proposer::Windows;
use crate::write_link::Write;
use cutting::cut;

/// How long a write or a read looks for a leader before it gives up.
const DEADLINE: Duration = Duration::from_secs(8);
/// Between two rounds of looking.
const PAUSE: Duration = Duration::from_millis(50);
/// One question to a peer.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Replicas on this node, by shard.
pub type Replicas = Arc<RwLock<BTreeMap<ShardId, Arc<Replica>>>>;

/// Finds shards and speaks to them.
pub struct Router {
    pub node: u64,
    pub world: World,
    pub peers: Arc<Peers>,
    pub replicas: Replicas,
    pub view: watch::Receiver<Arc<State>>,
    /// Who computes parts of queries; the same for what peers ask of this node.
    pub evaluator: evaluate::Seat,
    /// Bytes of answers that came from other nodes.
    pub received: prometheus::IntCounter,
    pub windows: Arc<dyn Windows>,
    /// Tells whoever looks for a shard that a replica opened here.
    pub opened: Notify,
    /// Of shards, to label sets: which one it is never changes.
    shards: Giver,
    /// Leaders that answers named, for shards without a replica here.
    hints: Mutex<Map<ShardId, u64>>,
    /// Of reads that this node's replicas answer.
    pub(crate) near: Near,
}

/// What a shard's leader will say.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, Refusal>>;

/// Who to ask about a shard.
pub(crate) enum Whom {
    Here(Arc<Replica>),
    There(Arc<Peer>),
}

impl Router {
    pub fn new(
        node: u64,
        world: World,
        peers: Arc<Peers>,
        replicas: Replicas,
        view: watch::Receiver<Arc<State>>,
        received: prometheus::IntCounter,
        windows: Arc<dyn Windows>,
    ) -> Self {
        Self {
            node,
            world,
            peers,
            replicas,
            view,
            evaluator: evaluate::Seat::default(),
            received,
            windows,
            opened: Notify::new(),
            shards: Giver::new(),
            hints: Mutex::default(),
            near: Near::default(),
        }
    }

    pub fn state(&self) -> Arc<State> {
        self.view.borrow().clone()
    }

    pub fn replica(&self, shard: ShardId) -> Option<Arc<Replica>> {
        self.replicas
            .read()
            .expect("not poisoned")
            .get(&shard)
            .cloned()
    }

    /// Who probably leads `shard`. `attempt` walks the replicas when nobody is known to.
    pub(crate) fn probable_leader(&self, shard: ShardId, attempt: usize) -> Option<u64> {
        let hint = || {
            self.hints
                .lock()
                .expect("not poisoned")
                .get(&shard)
                .copied()
        };
        let replica = self.replica(shard);
        let known = replica.and_then(|r| r.leader()).or_else(hint);
        let state = self.state();
        let replicas = &state.assignment(shard)?.replicas;
        Some(known.unwrap_or(replicas[attempt % replicas.len()]))
    }

    fn whom(&self, shard: ShardId, attempt: usize) -> Option<Whom> {
        let node = self.probable_leader(shard, attempt)?;
        match self.replica(shard) {
            Some(replica) if node == self.node => Some(Whom::Here(replica)),
            _ => Some(Whom::There(self.peer(node)?)),
        }
    }

    /// Another node, if it is known.
    pub(crate) fn peer(&self, node: u64) -> Option<Arc<Peer>> {
        Some(self.peers.at(self.state().address(node)?))
    }

    pub(crate) fn note(&self, shard: ShardId, refusal: &Refusal) {
        let mut hints = self.hints.lock().expect("not poisoned");
        match refusal {
            Refusal::NotLeader(Some(leader)) => drop(hints.insert(shard, *leader)),
            _ => drop(hints.remove(&shard)),
        }
    }

    /// Asks the shard's leader, looking for it until the deadline. `again` says which refusals
    /// may be followed by another try.
    pub(crate) async fn ask<'a, T>(
        &self,
        shard: ShardId,
        again: fn(&Refusal) -> bool,
        mut question: impl FnMut(Whom) -> Answer<'a, T> + Send,
    ) -> Result<T, Refusal> {
        let deadline = self.world.clock.monotonic() + DEADLINE;
        let mut attempt = 0;
        loop {
            let opened = self.opened.notified();
            let refusal = match self.whom(shard, attempt) {
                None => Refusal::Unavailable("the shard has no known place".to_owned()),
                Some(whom) => match question(whom).await {
                    Ok(answer) => return Ok(answer),
                    Err(refusal) => refusal,
                },
            };
            self.note(shard, &refusal);
            let late = self.world.clock.monotonic() >= deadline;
            if late || !again(&refusal) {
                return Err(refusal);
            }
            attempt += 1;
            // Whichever comes first.
            tokio::time::timeout(PAUSE, opened).await.ok();
        }
    }

    async fn write_shard(&self, shard: ShardId, batch: &Arc<Batch>) -> Result<Written, Refusal> {
        // A repeated row is a no-op: whatever happened, asking again is right.
        let question = |whom| -> Answer<'_, Written> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => replica.write(batch.clone()).await,
                    Whom::There(peer) => self.write_there(&peer, shard, batch).await,
                }
            })
        };
        self.ask(shard, is_passing, question).await
    }

    async fn write_there(
        &self,
        peer: &Peer,
        shard: ShardId,
        batch: &Arc<Batch>,
    ) -> Result<Written, Refusal> {
        let write = Write {
            cluster_id: self.cluster_id(),
            shard,
            batch: batch.clone(),
        };
        let asked = async { peer.write.ask(write).await?.answer().await };
        let reply = tokio::time::timeout(ASK_TIMEOUT, asked)
            .await
            .map_err(|_| Refusal::Unavailable("no answer in time".to_owned()))?
            .map_err(|broken| Refusal::Unavailable(broken.to_string()))?;
        match reply.result {
            Some(wire::write_reply::Result::Written(written)) => {
                convert::written_from_wire(written).map_err(|e| Refusal::Internal(e.to_string()))
            }
            Some(wire::write_reply::Result::Refusal(r)) => Err(convert::refusal_from_wire(r)),
            None => Err(Refusal::Internal("an empty answer".to_owned())),
        }
    }

    pub(crate) fn cluster_id(&self) -> bytes::Bytes {
        convert::cluster_id_to_wire(self.peers.cluster())
    }

    async fn groups_there(&self, peer: &Peer, shard: ShardId) -> Result<Vec<Group>, Refusal> {
        let request = wire::GroupsRequest {
            cluster_id: self.cluster_id(),
            shard: shard.0,
        };
        let reply = call(peer.data().groups(request)).await?;
        refused(reply.refusal)?;
        let groups: Result<_, _> = reply
            .groups
            .into_iter()
            .map(convert::group_from_wire)
            .collect();
        groups.map_err(|e| Refusal::Internal(e.to_string()))
    }

    pub(crate) async fn groups_of(&self, shard: ShardId) -> Result<Vec<Group>, Refusal> {
        let question = |whom| -> Answer<'_, Vec<Group>> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => replica.groups().await,
                    Whom::There(peer) => self.groups_there(&peer, shard).await,
                }
            })
        };
        self.ask(shard, is_passing, question).await
    }
}

/// Refusals after which a read may be tried again.
pub(crate) fn is_passing(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::NotLeader(_) | Refusal::Unavailable(_))
}

/// Refusals after which nothing was done for certain.
pub(crate) fn is_harmless(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::NotLeader(_))
}

/// One unary call with its deadline.
pub(crate) async fn call<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Refusal> {
    call_within(ASK_TIMEOUT, call).await
}

/// The next message of a peer's answer; none at its end.
pub(crate) async fn next_reply<T>(replies: &mut tonic::Streaming<T>) -> Result<Option<T>, Refusal> {
    let next = tokio::time::timeout(ASK_TIMEOUT, replies.message()).await;
    next.map_err(|_| Refusal::Unavailable("no answer in time".to_owned()))?
        .map_err(|status| Refusal::Unavailable(status.to_string()))
}

/// One call that may take so long. A connection that could not be made did nothing.
pub(crate) async fn call_within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(timeout, call).await {
        Err(_) => Err(Refusal::Unavailable("no answer in time".to_owned())),
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if NotConnected::caused(&status) => Err(Refusal::NotLeader(None)),
        Ok(Err(status)) => Err(Refusal::Unavailable(status.to_string())),
    }
}

pub(crate) fn refused(refusal: Option<wire::ShardRefusal>) -> Result<(), Refusal> {
    match refusal {
        None => Ok(()),
        Some(refusal) => Err(convert::refusal_from_wire(refusal)),
    }
}

#[async_trait]
impl Sink for Router {
    async fn write(&self, batch: Batch) -> Result<Written, WriteError> {
        self.write_kept(&batch).await
    }

    async fn write_kept(&self, batch: &Batch) -> Result<Written, WriteError> {
        let state = self.state();
        if !state.is_formed() {
            return Err(WriteError::Unavailable(Vec::new()));
        }
        let keeps_exemplars = self.windows.exemplars_max() > 0;
        let (parts, mut rejected) = cut(&state, self.shards, batch, keeps_exemplars);
        let mut writes: FuturesUnordered<_> = parts
            .iter()
            .map(|(shard, (part, _))| {
                let write = self.write_shard(*shard, part);
                async move { (*shard, write.await) }.boxed()
            })
            .collect();
        let mut lost = Vec::new();
        let mut overloaded = None;
        while let Some((shard, result)) = writes.next().await {
            match result {
                Ok(written) => rejected.extend(written.rejected.iter().map(|r| Rejection {
                    row: parts[&shard].1[r.row as usize],
                    reason: r.reason,
                })),
                Err(Refusal::Overloaded(why)) => overloaded = Some(why),
                Err(refusal) => {
                    tracing::debug!(%shard, %refusal, "write not acknowledged");
                    lost.push(shard);
                }
            }
        }
        // It was written long ago, as memory goes.
        Labels::touch_fronts(&batch.series);
        if !lost.is_empty() {
            lost.sort_unstable();
            return Err(WriteError::Unavailable(lost));
        }
        if let Some(why) = overloaded {
            return Err(WriteError::Overloaded(why));
        }
        rejected.sort_unstable_by_key(|r| r.row);
        Ok(Written { rejected })
    }
}

pub(crate) fn to_source_error(shard: ShardId, refusal: Refusal) -> SourceError {
    match refusal {
        Refusal::TooLarge(what) => SourceError::TooLarge(what),
        Refusal::Overloaded(what) => SourceError::Busy(what),
        Refusal::Internal(what) => SourceError::Internal(what),
        Refusal::NotLeader(_) | Refusal::Unavailable(_) => SourceError::Unavailable(vec![shard]),
    }
}

/// One shard of the cluster as a source, wherever it lives.
pub struct ShardSource {
    pub router: Arc<Router>,
    pub shard: ShardId,
}

impl ShardSource {
    async fn ask<'a, T>(
        &self,
        question: impl FnMut(Whom) -> Answer<'a, T> + Send,
    ) -> Result<T, SourceError> {
        let answer = self.router.ask(self.shard, is_passing, question).await;
        answer.map_err(|refusal| to_source_error(self.shard, refusal))
    }

    /// Answers from the local replica when any replica's word is good enough.
    fn near(&self, consistency: model::source::Consistency) -> Option<Arc<Replica>> {
        match consistency {
            model::source::Consistency::Local => self.router.replica(self.shard),
            model::source::Consistency::Strong => None,
        }
    }

    /// Asks about the index: the engine of a replica here, or the leader elsewhere, whose reply
    /// `there` reads.
    async fn ask_metadata<T, F>(
        &self,
        kind: Kind,
        label: &str,
        selection: &MetadataSelection,
        here: impl Fn(Arc<Shard>) -> F + Sync,
        there: impl Fn(wire::MetadataReply) -> Result<T, Malformed> + Sync,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>> + Send,
        T: Send,
    {
        if let Some(replica) = self.near(selection.consistency) {
            return here(replica.engine.clone()).await;
        }
        let (here, there) = (&here, &there);
        self.ask(|whom| {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => {
                        replica.settle(selection.consistency).await?;
                        here(replica.engine.clone()).await.map_err(engine_refusal)
                    }
                    Whom::There(peer) => {
                        let reply = self.metadata_there(&peer, kind, label, selection).await?;
                        there(reply).map_err(|e| Refusal::Internal(e.to_string()))
                    }
                }
            })
        })
        .await
    }

    async fn metadata_there(
        &self,
        peer: &Peer,
        kind: Kind,
        label: &str,
        selection: &MetadataSelection,
    ) -> Result<wire::MetadataReply, Refusal> {
        let request = wire::MetadataRequest {
            cluster_id: self.router.cluster_id(),
            shard: self.shard.0,
            kind: kind.into(),
            label: label.to_owned(),
            ..convert::metadata_to_wire(selection)
        };
        let mut reply = call(peer.data().metadata(request)).await?;
        refused(reply.refusal.take())?;
        Ok(reply)
    }

    async fn select_there(
        &self,
        peer: &Peer,
        selection: &Selection,
    ) -> Result<Vec<Series>, Refusal> {
        let request = wire::SelectRequest {
            cluster_id: self.router.cluster_id(),
            shard: self.shard.0,
            ..convert::selection_to_wire(selection)
        };
        let mut replies = call(peer.data().select(request)).await?;
        let mut series = Vec::new();
        let mut bytes = 0;
        loop {
            let next = tokio::time::timeout(ASK_TIMEOUT, replies.message()).await;
            let reply = next
                .map_err(|_| Refusal::Unavailable("no answer in time".to_owned()))?
                .map_err(|status| Refusal::Unavailable(status.to_string()))?;
            let Some(reply) = reply else {
                self.router.received.inc_by(bytes);
                return Ok(series);
            };
            bytes += reply.encoded_len() as u64;
            refused(reply.refusal)?;
            for one in reply.series {
                let joined = convert::series_from_wire(one)
                    .and_then(|one| convert::join_series(&mut series, one));
                joined.map_err(|e| Refusal::Internal(e.to_string()))?;
            }
        }
    }
}

/// What the engine's own error means to the asker.
pub fn engine_refusal(error: SourceError) -> Refusal {
    match error {
        SourceError::Unavailable(_) => Refusal::Unavailable(error.to_string()),
        SourceError::TooLarge(what) => Refusal::TooLarge(what),
        SourceError::Busy(what) => Refusal::Overloaded(what),
        SourceError::Internal(what) => Refusal::Internal(what),
    }
}

#[async_trait]
impl Source for ShardSource {
    async fn select(&self, selection: &Selection) -> Result<Vec<Series>, SourceError> {
        let seat = &self.router.evaluator;
        if let Some(replica) = self.near(selection.consistency) {
            return evaluate::select(seat, &*replica.engine, selection).await;
        }
        self.ask(|whom| {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => {
                        replica.settle(selection.consistency).await?;
                        let selected = evaluate::select(seat, &*replica.engine, selection);
                        selected.await.map_err(engine_refusal)
                    }
                    Whom::There(peer) => self.select_there(&peer, selection).await,
                }
            })
        })
        .await
    }

    async fn newest(&self, selection: &NewestSelection) -> Result<Pages, SourceError> {
        let found = newest::of_shard(&self.router, self.shard, selection, None).await?;
        Ok(found.pages)
    }

    async fn evaluate(&self, fragment: &Fragment) -> Result<Vec<Part>, FragmentError> {
        let router = &self.router;
        let here = |replica| evaluate::here(&router.evaluator, replica, fragment.clone());
        let answer = match self.near(fragment.consistency) {
            Some(replica) => here(replica)
                .await
                .map_err(|r| to_source_error(self.shard, r))?,
            None => {
                self.ask(|whom| match whom {
                    Whom::Here(replica) => Box::pin(here(replica)),
                    Whom::There(peer) => Box::pin(async move {
                        evaluate::there(router, &peer, self.shard, fragment).await
                    }),
                })
                .await?
            }
        };
        Ok(vec![answer?])
    }

    fn evaluates(&self) -> bool {
        self.router.evaluator.get().is_some()
    }

    async fn exemplars(
        &self,
        selection: &MetadataSelection,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        let here = |engine: Arc<Shard>| async move { engine.exemplars(selection).await };
        let there = |reply: wire::MetadataReply| {
            let found = reply.exemplars.into_iter();
            found.map(convert::exemplars_from_wire).collect()
        };
        self.ask_metadata(Kind::Exemplars, "", selection, here, there)
            .await
    }

    async fn series(&self, selection: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        let here = |engine: Arc<Shard>| async move { engine.series(selection).await };
        let there = |reply: wire::MetadataReply| convert::label_sets_from_wire(reply.series);
        self.ask_metadata(Kind::Series, "", selection, here, there)
            .await
    }

    async fn label_names(&self, selection: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        let here = |engine: Arc<Shard>| async move { engine.label_names(selection).await };
        self.ask_metadata(Kind::LabelNames, "", selection, here, texts)
            .await
    }

    async fn label_values(
        &self,
        name: &str,
        selection: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        let here = |engine: Arc<Shard>| async move { engine.label_values(name, selection).await };
        self.ask_metadata(Kind::LabelValues, name, selection, here, texts)
            .await
    }
}

fn texts(reply: wire::MetadataReply) -> Result<Vec<String>, Malformed> {
    Ok(reply.texts)
}
