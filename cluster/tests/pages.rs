//! Pages of newest samples from other nodes: those that nobody takes do not hold up those that are
//! wanted. Two nodes in one process, on the real network and disk.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits and reads the clock"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::catalogue::{Memory, opened};
use cluster::{Cluster, Options};
use futures::StreamExt;
use futures::future::try_join_all;
use model::sink::Sink;
use model::source::Consistency;
use model::{Batch, Labels, Matcher, NewestSelection, Timestamp};
use support::free_addresses;

const SHARDS: u32 = 14;
/// Of a label set: a shard's series are more than a stream of the other connections may have on its
/// way, those of the other node's shards together more than such a connection.
const LABEL_BYTES: usize = 32 << 10;
const SERIES: usize = 8_400;

async fn start(root: &tempfile::TempDir, listen: &str, join: &[String]) -> Arc<Cluster> {
    let world = host::world(root.path()).expect("a world");
    let options = Options {
        listen: listen.to_owned(),
        join: join.to_vec(),
        bootstrap_expect: join.len(),
        shards: Some(SHARDS),
        ..Options::default()
    };
    let catalogue = opened(Arc::new(Memory::default()));
    let registry = prometheus::Registry::new();
    let started = Cluster::start(world, options, catalogue, &registry).await;
    started.expect("it starts")
}

async fn write(cluster: &Cluster, at: Timestamp) {
    let long = "x".repeat(LABEL_BYTES);
    let numbers: Vec<usize> = (0..SERIES).collect();
    for some in numbers.chunks(200) {
        let mut batch = Batch::default();
        for n in some {
            let labels = [("__name__", "m".to_owned()), ("n", format!("{n}{long}"))];
            batch.add_sample(Labels::from_pairs(labels), at, *n as f64);
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = cluster.write(batch.clone()).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Once all pages on their way shared one bound of 64 MiB: with enough shards on one peer, those not
/// wanted yet used it up, and the wanted one's never came.
#[tokio::test(flavor = "multi_thread")]
async fn shards_nobody_reads_do_not_hold_up_the_one_that_is_read() {
    let addresses = free_addresses(2);
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut nodes = Vec::new();
    for (root, address) in roots.iter().zip(&addresses) {
        nodes.push(start(root, address, &addresses).await);
    }
    let world = host::world(roots[0].path().join("clock").as_path());
    let at = world.expect("a clock").clock.now();
    write(&nodes[0], at).await;
    let selection = NewestSelection {
        any_of: vec![vec![Matcher::equal("__name__", "m")]],
        start: at,
        end: at,
        consistency: Consistency::Strong,
    };
    // Whoever leads which shard: each node asks the other one for those.
    for node in &nodes {
        let sources = node.shard_sources();
        let open = sources.iter().map(|source| source.newest(&selection));
        let all = try_join_all(open).await.expect("every shard has settled");
        let mut found = 0;
        for mut pages in all {
            while let Some(page) = pages.next().await {
                found += page.expect("a page comes").len();
            }
        }
        assert_eq!(found, SERIES);
    }
}
