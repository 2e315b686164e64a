//! Group commit of pushes: what waits for a shard's leader becomes one entry, so that one flush on
//! a majority serves many.
//!
//! Pushes are applied in the order in which they came, and each is answered for itself, once the
//! [`Journal`] has stored what its group then stood for. What waits is bounded in number and bytes,
//! from the moment a push comes until it is answered; beyond that it is refused.

use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use model::group::{Family, GroupingKey, PushOp, PushOptions};
use model::limits::{PUSH_QUEUE_BYTES_MAX, PUSHES_WAITING_MAX};
use model::port::{Clock, Task, World};
use model::sink::Pushed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tsdb::{Command, Outcome, PushCommand};

use crate::convert::scoped;
use crate::journal::{Journal, Waiting};
use crate::raft::group;
use crate::raft::types::{Raft, Reply};
use crate::refusal::Refusal;
use crate::shard::proposer::gather;

/// Entries of one shard under way: the log stays busy, and pushes wait long enough to merge.
const IN_FLIGHT_MAX: usize = 2;
/// A sample's or family's share of a proposal beside its labels and name.
const ITEM_BYTES: usize = 24;

struct Request {
    push: PushCommand,
    bytes: usize,
    waiting: Waiting,
}

/// Accepts pushes for one shard.
pub struct Pushes {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    _task: Task,
}

impl Pushes {
    pub fn start(world: &World, raft: Raft, journal: Arc<Journal>) -> Self {
        let (requests, receiver) = mpsc::channel(PUSHES_WAITING_MAX);
        let worker = Worker {
            raft,
            journal,
            clock: world.clock.clone(),
        };
        let task = scoped(&world.dice, worker.run(receiver));
        Self {
            requests,
            room: Arc::new(Semaphore::new(PUSH_QUEUE_BYTES_MAX)),
            clock: world.clock.clone(),
            _task: world.spawn.spawn("pushes", task),
        }
    }

    /// Returns when the push is committed and its samples are stored, or was not taken.
    pub async fn push(
        &self,
        key: GroupingKey,
        op: PushOp,
        options: PushOptions,
    ) -> Result<Pushed, Refusal> {
        let push = PushCommand {
            proposed_at: self.clock.now(),
            key,
            op,
            options,
        };
        let bytes = size_of(&push);
        let room = self.take_room(bytes)?;
        let (done, answer) = oneshot::channel();
        let partial = options.partial;
        let waiting = Waiting {
            done,
            room,
            partial,
        };
        let request = Request {
            push,
            bytes,
            waiting,
        };
        self.requests.try_send(request).map_err(|_| full())?;
        let stopped = |_| Refusal::Unavailable("the replica stopped".to_owned());
        answer.await.map_err(stopped)?
    }

    fn take_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let bytes = bytes.min(PUSH_QUEUE_BYTES_MAX) as u32;
        let room = self.room.clone().try_acquire_many_owned(bytes);
        room.map_err(|_| full())
    }
}

fn full() -> Refusal {
    Refusal::Overloaded("too many pushes wait for this shard".to_owned())
}

fn size_of(push: &PushCommand) -> usize {
    let key = push.key.iter().map(|(n, v)| n.len() + v.len());
    let family = |f: &Family| {
        let samples = f.samples.iter();
        let samples = samples.map(|s| ITEM_BYTES + s.labels.as_canonical().len());
        ITEM_BYTES + f.name.len() + f.help.as_ref().map_or(0, String::len) + samples.sum::<usize>()
    };
    let families = push.op.families().iter().map(family);
    ITEM_BYTES + key.sum::<usize>() + families.sum::<usize>()
}

struct Worker {
    raft: Raft,
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
}

impl Worker {
    async fn run(self, mut requests: mpsc::Receiver<Request>) {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = under_way.next() => {}
                first = requests.recv(), if under_way.len() < IN_FLIGHT_MAX => {
                    let Some(first) = first else { return };
                    let gathered = gather(first, &mut requests, |r| r.bytes);
                    under_way.push(self.commit(gathered));
                }
            }
        }
    }

    async fn commit(&self, requests: Vec<Request>) {
        let now = self.clock.now();
        let (mut pushes, waiting): (Vec<_>, Vec<_>) =
            requests.into_iter().map(|r| (r.push, r.waiting)).unzip();
        for push in &mut pushes {
            push.proposed_at = now;
        }
        match self.propose(pushes).await {
            Ok(pushed) => self.journal.note(pushed, waiting).await,
            Err(refusal) => {
                for waiting in waiting {
                    waiting.answer(Err(refusal.clone()));
                }
            }
        }
    }

    async fn propose(&self, mut pushes: Vec<PushCommand>) -> Result<Vec<Pushed>, Refusal> {
        let command = match pushes.len() {
            1 => Command::Push(pushes.remove(0)),
            _ => Command::Pushes(pushes),
        };
        match group::propose(&self.raft, command.encode()).await? {
            Reply::Shard(Outcome::Pushed(pushed)) => Ok(vec![pushed]),
            Reply::Shard(Outcome::PushedAll(pushed)) => Ok(pushed),
            reply => unreachable!("pushes were answered with {reply:?}"),
        }
    }
}
