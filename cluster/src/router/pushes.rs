//! Pushes: to the shard of their group, once every other shard's groups agree with them, and into
//! the history.
//!
//! A push of series its group has already agrees with all other groups as long as what is stored
//! agrees, so it goes straight to its shard. Any other is first shown to every shard
//! ([ADR 21](../../../docs/adr/0021-consistency-of-pushes.md)).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::join_all;
use model::group::{Group, GroupingKey, PushOp, PushOptions};
use model::sink::{Groups, Pushed, Sink, WriteError};
use model::source::SourceError;
use model::{Batch, Labels, ShardId, Timestamp};
use proto::node as wire;

use super::{Answer, Router, Whom, call, is_harmless, is_passing, refused, to_source_error};
use crate::convert;
use crate::journal::add_change;
use crate::meta::State;
use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::shard::Replica;

/// One push as every shard is shown it.
struct Push {
    key: GroupingKey,
    op: PushOp,
    options: PushOptions,
}

/// What a leader did.
struct Done {
    pushed: Pushed,
    /// The group's samples too.
    stored: bool,
}

impl Router {
    fn request(&self, shard: ShardId, push: &Push) -> wire::PushRequest {
        wire::PushRequest {
            cluster_id: self.cluster_id(),
            shard: shard.0,
            ..convert::push_to_wire(&push.key, &push.op, push.options)
        }
    }

    /// `None`: other groups must be asked first.
    async fn push_to(&self, shard: ShardId, push: &Push) -> Result<Option<Done>, WriteError> {
        let question = |whom| -> Answer<'_, Option<Done>> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => {
                        let Push { key, op, options } = push;
                        let pushed = replica.push(key.clone(), op.clone(), *options).await?;
                        Ok(pushed.map(|pushed| Done {
                            pushed,
                            stored: true,
                        }))
                    }
                    Whom::There(peer) => self.push_there(&peer, shard, push).await,
                }
            })
        };
        // A repeated push with an id is a no-op, a repeated one without may undo a later one.
        let again = match push.op {
            PushOp::Add { .. } => is_passing,
            _ => is_harmless,
        };
        let pushed = self.ask(shard, again, question).await;
        pushed.map_err(|refusal| not_pushed(shard, refusal))
    }

    async fn push_there(
        &self,
        peer: &Peer,
        shard: ShardId,
        push: &Push,
    ) -> Result<Option<Done>, Refusal> {
        let reply = call(peer.data().push(self.request(shard, push))).await?;
        refused(reply.refusal)?;
        if reply.must_check {
            return Ok(None);
        }
        let group = |g: Option<wire::Group>| {
            g.map(|g| convert::group_from_wire(g).map(Arc::new))
                .transpose()
                .map_err(|e| Refusal::Internal(e.to_string()))
        };
        let pushed = Pushed {
            at: Timestamp(reply.at_ms),
            before: group(reply.before)?,
            after: group(reply.after)?,
            repeated: reply.repeated,
        };
        Ok(Some(Done {
            pushed,
            stored: reply.stored,
        }))
    }

    /// Shows the push to all shards, and to each of them the series it would write there.
    async fn check(&self, push: &Push) -> Result<(), WriteError> {
        let state = self.state();
        let series = &self.series_of(&state, push);
        let questions = state.shards().map(|shard| {
            let series = series.get(&shard).map_or(&[][..], Vec::as_slice);
            async move { (shard, self.conflict_in(shard, push, series).await) }.boxed()
        });
        for (shard, answer) in join_all(questions).await {
            match answer.map_err(|refusal| not_pushed(shard, refusal))? {
                None => {}
                Some(conflict) => return Err(WriteError::Inconsistent(conflict)),
            }
        }
        Ok(())
    }

    /// Series that the push writes, by shard, where there is a limit of them.
    fn series_of(&self, state: &State, push: &Push) -> BTreeMap<ShardId, Vec<Labels>> {
        let mut series: BTreeMap<ShardId, Vec<Labels>> = BTreeMap::new();
        if !self.needs_room(push) {
            return series;
        }
        let group = Group {
            families: push.op.families().to_vec(),
            expires: push.options.ttl_ms.map(|_| Timestamp::MAX),
            ..Group::new(push.key.clone())
        };
        for (labels, _) in group.series() {
            let shard = state.shard_of(labels.as_canonical());
            series.entry(shard).or_default().push(labels);
        }
        for of_shard in series.values_mut() {
            of_shard.sort_unstable();
            of_shard.dedup();
        }
        series
    }

    fn needs_room(&self, push: &Push) -> bool {
        self.windows.series_max() > 0 && !push.options.partial
    }

    /// What a push that is to agree with others contradicts in a shard; an error without room there.
    async fn conflict_in(
        &self,
        shard: ShardId,
        push: &Push,
        series: &[Labels],
    ) -> Result<Option<String>, Refusal> {
        let question = |whom| -> Answer<'_, Option<String>> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => {
                        let conflict = replica.conflict(&push.key, &push.op, series).await?;
                        Ok(conflict.filter(|_| !push.options.unchecked))
                    }
                    Whom::There(peer) => {
                        let request = wire::PushRequest {
                            series: series.iter().map(convert::labels_to_wire).collect(),
                            ..self.request(shard, push)
                        };
                        let reply = call(peer.data().check(request)).await?;
                        refused(reply.refusal)?;
                        Ok(Some(reply.conflict).filter(|conflict| !conflict.is_empty()))
                    }
                }
            })
        };
        self.ask(shard, is_passing, question).await
    }

    /// For a leader of an older version, which leaves it to the asker.
    async fn write_history(&self, pushed: &Pushed) -> Result<(), WriteError> {
        let mut batch = Batch::default();
        let (before, after) = (pushed.before.as_deref(), pushed.after.as_deref());
        add_change(&mut batch, before, after, pushed.at);
        self.write(batch).await.map(drop)
    }

    /// Removes a group whose time is over, if the log agrees.
    pub async fn expire(&self, replica: &Replica, key: GroupingKey) -> Result<(), WriteError> {
        let options = PushOptions::default();
        let expired = replica.push(key, PushOp::Expire, options).await;
        let expired = expired.map_err(|refusal| not_pushed(replica.shard, refusal));
        expired.map(drop)
    }

    async fn wipe_shard(&self, shard: ShardId) -> Result<(), WriteError> {
        let question = |whom| -> Answer<'_, (Timestamp, Vec<Group>)> {
            Box::pin(async move {
                match whom {
                    Whom::Here(replica) => {
                        let wiped = replica.wipe().await?;
                        let groups = wiped.groups.iter().map(|g| Group::clone(g));
                        Ok((wiped.at, groups.collect()))
                    }
                    Whom::There(peer) => self.wipe_there(&peer, shard).await,
                }
            })
        };
        // Wiping twice is wiping; but whose groups the first one removed would be lost to history.
        let wiped = self.ask(shard, is_harmless, question).await;
        let (at, groups) = wiped.map_err(|refusal| not_pushed(shard, refusal))?;
        let mut batch = Batch::default();
        for (labels, _) in groups.iter().flat_map(Group::series) {
            batch.add_sample(labels, at, model::sample::STALE_NAN);
        }
        self.write(batch).await.map(drop)
    }

    async fn wipe_there(
        &self,
        peer: &Peer,
        shard: ShardId,
    ) -> Result<(Timestamp, Vec<Group>), Refusal> {
        let request = wire::ShardRequest {
            cluster_id: self.cluster_id(),
            shard: shard.0,
        };
        let reply = call(peer.data().wipe(request)).await?;
        refused(reply.refusal)?;
        let groups = reply.groups.into_iter().map(convert::group_from_wire);
        let groups = groups.collect::<Result<_, _>>();
        let groups = groups.map_err(|e| Refusal::Internal(e.to_string()))?;
        Ok((Timestamp(reply.at_ms), groups))
    }
}

fn not_pushed(shard: ShardId, refusal: Refusal) -> WriteError {
    match refusal {
        Refusal::Overloaded(why) => WriteError::Overloaded(why),
        _ => WriteError::Unavailable(vec![shard]),
    }
}

#[async_trait]
impl Groups for Router {
    async fn push(
        &self,
        key: GroupingKey,
        op: PushOp,
        options: PushOptions,
    ) -> Result<Pushed, WriteError> {
        if !options.is_valid() {
            let why = "a time to live out of range";
            return Err(WriteError::Invalid(why.to_owned()));
        }
        let state = self.state();
        if !state.is_formed() {
            return Err(WriteError::Unavailable(Vec::new()));
        }
        let shard = state.shard_of(&key.canonical());
        let mut push = Push { key, op, options };
        // Nobody checks it, but it may need room.
        push.options.unchecked = options.unchecked && !self.needs_room(&push);
        let mut pushed = self.push_to(shard, &push).await?;
        if pushed.is_none() {
            push.options.unchecked = options.unchecked;
            self.check(&push).await?;
            push.options.unchecked = true;
            pushed = self.push_to(shard, &push).await?;
        }
        let Some(Done { pushed, stored }) = pushed else {
            let why = "a shard asked twice for a check";
            return Err(WriteError::Failed(why.to_owned()));
        };
        if !stored {
            self.write_history(&pushed).await?;
        }
        Ok(pushed)
    }

    async fn wipe(&self) -> Result<(), WriteError> {
        let state = self.state();
        if !state.is_formed() {
            return Err(WriteError::Unavailable(Vec::new()));
        }
        let wipes = state.shards().map(|shard| self.wipe_shard(shard).boxed());
        join_all(wipes).await.into_iter().collect()
    }

    async fn groups(&self) -> Result<Vec<Group>, SourceError> {
        let state = self.state();
        if !state.is_formed() {
            return Err(SourceError::Unavailable(Vec::new()));
        }
        let questions = state.shards().map(|shard| {
            let groups = self.groups_of(shard);
            async move {
                groups
                    .await
                    .map_err(|refusal| to_source_error(shard, refusal))
            }
            .boxed()
        });
        let answers = join_all(questions).await;
        let mut groups = answers.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        groups.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(groups)
    }
}
