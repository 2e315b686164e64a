//! How much memory is taken for samples of known series on their way from an HTTP body into the head: the number of
//! pieces must not rise with the number of samples.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits for a real node"
)]

use std::alloc::System;
use std::path::Path;
use std::sync::Arc;

use cluster::catalogue::{Memory, opened};
use node::config::Machine;
use node::flags::{self, Command};
use node::run::Node;
use prost::Message;
use proto::remote::{Label, Sample, TimeSeries, WriteRequest};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[allow(dead_code, reason = "other tests need more of it")]
mod rig;

use rig::{now_ms, request, wait_for};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enough for what happens beside them to be little, and for every series to fill chunks.
const REQUESTS: usize = 150;
const STEP_MS: i64 = 1_000;

/// What one request brings.
#[derive(Clone, Copy)]
struct Shape {
    series: usize,
    samples: usize,
}

impl Shape {
    fn size(self) -> usize {
        self.series * self.samples
    }

    /// Bodies one behind the other, the first samples at `begin`.
    fn bodies(self, metric: &str, begin: i64) -> Vec<Vec<u8>> {
        let series = |round: usize, nth: usize| TimeSeries {
            labels: vec![
                label("__name__", metric),
                label("instance", "a:9100"),
                label("nth", &nth.to_string()),
            ],
            samples: (0..self.samples)
                .map(|sample| round * self.samples + sample)
                .map(|place| Sample {
                    timestamp: begin + place as i64 * STEP_MS,
                    value: (place * (nth + 3) % 1_000) as f64 / 8.0,
                })
                .collect(),
            ..TimeSeries::default()
        };
        let body = |round: usize| WriteRequest {
            timeseries: (0..self.series).map(|nth| series(round, nth)).collect(),
            ..WriteRequest::default()
        };
        let packed = |body: WriteRequest| {
            let mut encoder = snap::raw::Encoder::new();
            encoder.compress_vec(&body.encode_to_vec()).unwrap()
        };
        (0..REQUESTS).map(|round| packed(body(round))).collect()
    }
}

fn label(name: &str, value: &str) -> Label {
    Label {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

async fn start(home: &Path) -> Node {
    std::fs::write(home.join("p.yml"), "").unwrap();
    let data = format!("--storage.tsdb.path={}", home.join("data").display());
    let config = format!("--config.file={}", home.join("p.yml").display());
    let arguments = [
        "quorate",
        &data,
        &config,
        "--web.listen-address=127.0.0.1:0",
        "--push.listen-address=127.0.0.1:0",
        "--cluster.listen-address=127.0.0.1:0",
        "--cluster.shards=4",
        "--web.enable-remote-write-receiver",
    ];
    let Ok(Command::Run(flags)) = flags::parse(arguments.map(str::to_owned)) else {
        panic!("{arguments:?}");
    };
    let world = host::world(&home.join("data")).unwrap();
    let catalogue = opened(Arc::new(Memory::default()));
    Node::start(world, &flags, Arc::new(Machine), catalogue)
        .await
        .unwrap()
}

/// Pieces of memory that were taken, or made larger, in the whole process for all requests but the first few, which
/// bring the series.
fn taken(node: &Node, metric: &str, shape: Shape) -> f64 {
    let all = REQUESTS * shape.samples;
    let bodies = shape.bodies(metric, now_ms() - all as i64 * STEP_MS);
    let (first, rest) = bodies.split_at(REQUESTS / 10);
    let send = |body: &Vec<u8>| {
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        let address = node.web_addresses[0];
        let answer = request(address, "POST", "/api/v1/write", &headers, body);
        assert_eq!(answer.code, 204, "{answer:?}");
    };
    first.iter().for_each(send);
    let region = Region::new(ALLOCATOR);
    rest.iter().for_each(send);
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / rest.len() as f64
}

#[test]
fn samples_of_known_series_take_no_memory_each() {
    let home = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = runtime.block_on(start(home.path()));
    wait_for("ready node", || node.ready().ok());
    for (what, few, many) in [
        (
            "as a scrape is sent",
            Shape {
                series: 500,
                samples: 1,
            },
            Shape {
                series: 2_000,
                samples: 1,
            },
        ),
        (
            "as a backlog is sent",
            Shape {
                series: 100,
                samples: 5,
            },
            Shape {
                series: 100,
                samples: 20,
            },
        ),
    ] {
        let [a, b] = [few, many].map(|shape| {
            let metric = format!("m_{}_{}", shape.series, shape.samples);
            taken(&node, &metric, shape)
        });
        let each = (b - a) / (many.size() - few.size()) as f64;
        println!(
            "{what}: {a:.0} pieces for {} samples, {b:.0} for {}, {each:.3} for each more",
            few.size(),
            many.size()
        );
        assert!(each < 0.25, "{what}: {each}");
    }
    runtime.block_on(node.stop());
}
