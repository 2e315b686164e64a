//! Lanes: each carries out its planned operations one after the other and records them.
//!
//! After an operation whose end is in doubt the lane goes on under a new process id, for the old
//! process may still be at it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::cluster::Target;
use crate::history::{Call, Entry, Kind, Recorder};
use crate::http::{Connection, Reply};
use crate::plan::Lane;
use crate::workload::{Listener, Scope};

/// Pause before an unacknowledged request is sent again, and how long that goes on after the end.
const RESEND_PAUSE: Duration = Duration::from_millis(50);
const RESEND_DEADLINE: Duration = Duration::from_secs(60);

/// What all lanes of a run share.
pub struct Context<'a> {
    pub targets: &'a [Target],
    pub scope: &'a Scope,
    pub recorder: &'a Recorder,
    pub deadline: Duration,
    /// How many lanes there are: the distance between a process id and its successor.
    pub lanes: usize,
}

/// One client: a process id and a connection to each listener it used.
pub struct Client<'a> {
    context: &'a Context<'a>,
    proc: u64,
    connections: Vec<(Connection, Connection)>,
}

impl<'a> Client<'a> {
    pub fn new(context: &'a Context<'a>, lane: usize) -> Self {
        let connections = context
            .targets
            .iter()
            .map(|t| (Connection::new(t.api), Connection::new(t.push)))
            .collect();
        Self {
            context,
            proc: lane as u64,
            connections,
        }
    }

    /// Carries out one operation and records it.
    pub async fn perform(&mut self, call: &Call, node: usize, last: bool) -> anyhow::Result<Kind> {
        let context = self.context;
        let t0 = context.recorder.now();
        let reply = self.send(call, node).await;
        let t1 = context.recorder.now();
        let outcome = context.scope.outcome(call, reply);
        let kind = outcome.kind;
        context.recorder.record(Entry {
            i: 0,
            proc: self.proc,
            node,
            call: call.clone(),
            t0,
            t1,
            kind,
            val: outcome.val,
            status: outcome.status,
            note: outcome.note,
            last,
        })?;
        if kind == Kind::Info {
            self.proc += context.lanes as u64;
        }
        Ok(kind)
    }

    async fn send(&mut self, call: &Call, node: usize) -> Reply {
        let request = self.context.scope.request(call, wall_ms());
        let (api, push) = &mut self.connections[node];
        let connection = match request.listener {
            Listener::Api => api,
            Listener::Push => push,
        };
        let deadline = self.context.deadline;
        connection
            .send(
                request.method,
                &request.path,
                request.headers,
                request.body,
                deadline,
            )
            .await
    }
}

/// Carries out a lane until its operations or the time are over.
pub async fn drive(
    context: &Context<'_>,
    lane: usize,
    plan: &Lane,
    begin: Instant,
    end: Instant,
) -> anyhow::Result<()> {
    let mut client = Client::new(context, lane);
    for op in &plan.ops {
        tokio::time::sleep_until(begin + Duration::from_millis(op.at_ms)).await;
        if Instant::now() >= end {
            break;
        }
        let mut node = op.node;
        while client.perform(&op.call, node, false).await? != Kind::Ok {
            // A lane that has fallen behind its plan must not burn the rest of it on a dead node.
            tokio::time::sleep(RESEND_PAUSE).await;
            if !plan.resend || Instant::now() > end + RESEND_DEADLINE {
                break;
            }
            node = (node + 1) % context.targets.len();
        }
    }
    Ok(())
}

/// Milliseconds since 1970.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
