//! A node of whose log a part is damaged gets its replicas back without anybody's doing, where the others can do
//! without them. Nodes of one cluster in one process, on the real network and disk.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits, reads the clock and damages files"
)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;

use std::path::PathBuf;
use std::time::Duration;

use cluster::shard::upkeep::CheckpointPolicy;
use nodes::{Node, Nodes};
use support::until;

impl Node {
    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metric = &family.expect("registered").get_metric()[0];
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }

    fn quarantined(&self) -> f64 {
        self.metric("quorate_log_quarantined_groups")
    }
}

/// Nodes that need all of their log.
async fn start_all(count: usize) -> Nodes {
    let checkpoint = CheckpointPolicy {
        quiet: Duration::from_secs(3600),
        ..CheckpointPolicy::default()
    };
    Nodes::start_all(count, checkpoint).await
}

impl Nodes {
    /// Moves of replicas that the cluster remembers: of shard, and how many there were then.
    fn moves(&self) -> Vec<(u32, usize)> {
        let node = self.running().next().expect("one runs");
        let history = &node.status().state.history;
        history.iter().map(|m| (m.shard, m.to.len())).collect()
    }

    async fn write_some(&mut self) {
        for _ in 0..10 {
            self.write().await;
        }
    }

    fn segments(&self, nth: usize) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.roots[nth].path().join("log")).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Turns a bit of an entry of the group, in the newest segment, and of the footer, which tells where entries
    /// lie, if they are to be looked for.
    fn rot(&self, nth: usize, group: u32, found: Found) {
        let path = self.segments(nth).pop().expect("a segment");
        let mut bytes = std::fs::read(&path).unwrap();
        let (entries, footer) = entries(&bytes, group);
        bytes[entries[entries.len() / 2]] ^= 4;
        if found == Found::Opening {
            bytes[footer] ^= 4;
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

/// When damage is found.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Opening,
    Reading,
}

const HEADER: usize = 64;
const RECORD: usize = 40;

/// Where payloads of a group's entries, but for the smallest, lie in a segment, and its footer, as docs/format/log.md has it.
fn entries(bytes: &[u8], group: u32) -> (Vec<usize>, usize) {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut found, mut footer, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        assert_eq!(&bytes[at..at + 3], b"QLB");
        let fill = u32_at(at + 4) >> 16;
        let (kind, index, payloads) = (bytes[at + 4], u32_at(at + 48), u32_at(at + 56));
        let records = at + HEADER;
        let mut payload = records + index as usize;
        at = payload + payloads as usize + fill as usize;
        if kind != 2 {
            footer = records;
            continue;
        }
        for record in (records..records + index as usize).step_by(RECORD) {
            let len = u32_at(record + 32) as usize;
            if bytes[record] == 1 {
                if u32_at(record + 4) == group && len > 30 {
                    found.push(payload + len / 2);
                }
                payload += len;
            }
        }
    }
    (found, footer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_log_is_damaged_leave_and_come_back() {
    let mut three = start_all(3).await;
    three.write_some().await;

    // Found when the log is opened. The others go on meanwhile.
    three.stop(0).await;
    three.rot(0, 1, Found::Opening);
    three.write().await;
    three.start(0).await;
    assert_eq!(three.node(0).quarantined(), 1.0);
    three.write().await;
    until("it came back", async || match three.moves()[..] {
        [(0, 2), (0, 3)] => Ok(()),
        ref moves => Err(format!("{moves:?}")),
    })
    .await;
    three.agree().await;
    assert_eq!(three.node(0).quarantined(), 0.0);

    // It votes: the others are stopped in turn.
    for nth in [1, 2] {
        three.stop(nth).await;
        three.write_some().await;
        three.start(nth).await;
        three.agree().await;
    }

    // Found when it is read, and of both shards at once.
    three.stop(0).await;
    three.rot(0, 1, Found::Reading);
    three.rot(0, 2, Found::Reading);
    three.start(0).await;
    three.write().await;
    until("both came back", async || {
        let mut moves = three.moves().split_off(2);
        moves.sort_unstable();
        match moves[..] {
            [(0, 2), (0, 3), (1, 2), (1, 3)] => Ok(()),
            ref moves => Err(format!("{moves:?}")),
        }
    })
    .await;
    three.agree().await;
    assert_eq!(three.node(0).quarantined(), 0.0);

    // What came back is whole when it is opened again.
    three.stop(0).await;
    three.write().await;
    three.start(0).await;
    three.agree().await;
    assert_eq!(three.node(0).quarantined(), 0.0);
    three.stop(1).await;
    three.write().await;
    three.agree().await;
    assert_eq!(three.moves().len(), 6, "nothing else moved");
    let relieved = three.nodes.iter().flatten();
    let relieved = relieved.map(|node| node.metric("quorate_shard_relieved_total"));
    assert!(relieved.sum::<f64>() <= 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_another_one_needs_stays_in_quarantine() {
    let mut two = start_all(2).await;
    two.write_some().await;
    two.stop(0).await;
    two.rot(0, 1, Found::Opening);
    two.start(0).await;
    let closed = async || match two.node(0).cluster.ready() {
        Err(why) if why.contains("group g1 does not run: the log is damaged") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("g1 is in quarantine", closed).await;
    // The meta leader has asked some times by then.
    tokio::time::sleep(Duration::from_secs(7)).await;
    closed().await.unwrap();
    assert_eq!(two.moves(), []);
    assert_eq!(two.node(0).quarantined(), 1.0);
}
