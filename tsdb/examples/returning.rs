//! What series that rest cost when they are written again: time to apply the command that brings them back.
//! `cargo run --release -p tsdb --example returning [-- SERIES [shuffled]]`; prints microseconds a series.
//! Shuffled, no two neighbours in the block are of one pod.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an outermost tool: it measures by the real clock"
)]

mod pods;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use model::{SeriesId, Timestamp};
use pods::{labels, shuffled};
use sim_world::{SimClock, SimDisk};
use tsdb::{
    CollectCommand, Command, Metrics, Outcome, SealCommand, SeriesRef, Shard, WriteCommand,
};

/// Series of one command, where not all come with one.
const OF_A_COMMAND: usize = 10_000;
const ROUNDS: usize = 10;

fn write(numbers: &[u64], at: i64) -> Command {
    let mut write = WriteCommand {
        proposed_at: Timestamp(at),
        out_of_order_window_ms: 1_000_000,
        in_order_window_ms: 1_000_000,
        ..WriteCommand::default()
    };
    for (number, place) in numbers.iter().zip(0..) {
        write.labels.push(labels(*number));
        write.rows.push(SeriesRef::New(place), Timestamp(at), 1.0);
    }
    Command::Write(write)
}

async fn open(disk: &SimDisk) -> Shard {
    let world = sim_world::world(0, &SimClock::new(), disk);
    let metrics = Arc::new(Metrics::new());
    let shard = Shard::open(&world, PathBuf::from("shard"), metrics, Arc::default()).await;
    shard.expect("opens")
}

async fn apply(shard: &Shard, command: &Command) -> Outcome {
    let index = shard.applied_index() + 1;
    shard.apply(index, command).await.expect("applies")
}

/// All series sealed twice, at rest.
async fn rested(order: &[u64]) -> SimDisk {
    let disk = SimDisk::new(1);
    let shard = open(&disk).await;
    for at in [1_000, 2_000] {
        for some in order.chunks(OF_A_COMMAND) {
            apply(&shard, &write(some, at)).await;
        }
        let before = Timestamp(at + 1);
        apply(&shard, &Command::Seal(SealCommand { before })).await;
        shard.checkpoint(|_| Bytes::new()).await.expect("written");
    }
    let collect = Command::Collect(CollectCommand {
        before: Timestamp(3_000),
        series: (0..order.len() as u64).map(SeriesId).collect(),
        rest: true,
    });
    let collected = apply(&shard, &collect).await;
    assert_eq!(collected, Outcome::Collected(order.len() as u64));
    shard.checkpoint(|_| Bytes::new()).await.expect("written");
    disk
}

/// Some of the series come back to a shard that was just opened, and then others to one that has read: of several
/// times the quickest.
async fn measure(disk: &SimDisk, what: &str, (count, each): (usize, usize), numbers: &[u64]) {
    let fork = disk.fork(0);
    let shard = open(&fork).await;
    let (mut cold, mut warm) = (None, f64::MAX);
    for some in numbers.chunks_exact(count).take(ROUNDS) {
        let commands: Vec<Command> = some.chunks(each).map(|some| write(some, 9_000)).collect();
        let there = shard.series_count();
        let began = Instant::now();
        for command in &commands {
            apply(&shard, command).await;
        }
        let micros = began.elapsed().as_secs_f64() * 1e6 / count as f64;
        assert_eq!(shard.series_count(), there + count);
        match cold {
            None => cold = Some(micros),
            Some(_) => warm = warm.min(micros),
        }
    }
    let cold = cold.expect("as many series");
    println!("{what}, {count} in commands of {each}: cold {cold:.2}, warm {warm:.2} us a series");
}

async fn measure_all(series: u64, order: &[u64]) {
    let disk = rested(order).await;
    let neighbours: Vec<u64> = (series / 3..series).collect();
    let anywhere: Vec<u64> = shuffled(series);
    let new: Vec<u64> = (series..2 * series).collect();
    for sizes in [
        (1, 1),
        (100, 100),
        (2_000, 2_000),
        (50_000, 2_000),
        (50_000, 50_000),
    ] {
        measure(&disk, "neighbours", sizes, &neighbours).await;
        measure(&disk, "anywhere", sizes, &anywhere).await;
        measure(&disk, "new ones", sizes, &new).await;
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let series = match arguments.next() {
        Some(text) => text.parse().expect("a number"),
        None => 200_000,
    };
    let order = match arguments.next().as_deref() {
        None => (0..series).collect(),
        Some("shuffled") => shuffled(series),
        Some(other) => panic!("{other} is no order"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(measure_all(series, &order));
}
