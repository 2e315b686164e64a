//! A shard on a simulated disk, with the log that feeds it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::port::{World, read_all};
use model::source::{Consistency, MetadataSelection, Selection, Source, Take};
use model::{Matcher, Series, Timestamp};
use sim_world::{SimClock, SimDisk};
use tsdb::{
    ApplyError, Command, FileEntry, Metrics, OpenError, Outcome, Position, Shard, SnapshotFiles,
};

use tsdb::value::Value;

use super::twin::Content;

pub const DIR: &str = "shard";

/// Runs a future to its end on a runtime of its own.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

pub struct Replica {
    pub disk: SimDisk,
    pub world: World,
    pub shard: Shard,
}

pub fn world(disk: &SimDisk) -> World {
    sim_world::world(0, &SimClock::new(), disk)
}

pub async fn open(world: &World) -> Result<Shard, OpenError> {
    Shard::open(
        world,
        PathBuf::from(DIR),
        Arc::new(Metrics::new()),
        Arc::default(),
    )
    .await
}

/// What the log's owner would keep beside an index.
pub fn opaque(index: u64) -> Bytes {
    Bytes::from(format!("opaque {index}"))
}

impl Replica {
    pub async fn new(seed: u64) -> Self {
        Self::on(SimDisk::new(seed))
            .await
            .expect("a new disk opens")
    }

    pub async fn on(disk: SimDisk) -> Result<Self, OpenError> {
        let world = world(&disk);
        let shard = open(&world).await?;
        Ok(Self { disk, world, shard })
    }

    /// Opens again what a power cut left, and applies the log from where it stands.
    pub async fn reopen(&mut self, log: &[Command]) -> Result<Vec<Outcome>, OpenError> {
        self.disk.crash();
        self.world = world(&self.disk);
        self.shard = open(&self.world).await?;
        if let Some(position) = self.shard.position() {
            assert_eq!(position.opaque, opaque(position.index));
            assert_eq!(position.index, self.shard.applied_index());
        }
        self.catch_up(log).await
    }

    /// Applies what this replica has not seen of a log that begins at index 1.
    pub async fn catch_up(&mut self, log: &[Command]) -> Result<Vec<Outcome>, ApplyError> {
        let seen = self.shard.applied_index();
        let mut outcomes = Vec::new();
        for (index, command) in (1..).zip(log).skip(seen as usize) {
            outcomes.push(self.shard.apply(index, command).await?);
        }
        Ok(outcomes)
    }

    pub async fn checkpoint(&self) -> io::Result<Position> {
        self.shard.checkpoint(opaque).await
    }

    /// Copies a snapshot's files to `staged` on this replica's disk.
    pub async fn receive(
        &self,
        from: &Replica,
        snapshot: &SnapshotFiles,
        staged: &Path,
    ) -> io::Result<()> {
        let disk = &*self.world.disk;
        match disk.remove_dir_all(staged).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        disk.create_dir_all(staged).await?;
        let held = self.shard.files().await;
        for FileEntry { name, .. } in &snapshot.files {
            if held.iter().any(|own| own.name == *name) {
                continue;
            }
            let bytes = read_all(&*from.world.disk, &snapshot.dir.join(name)).await?;
            let mut file = disk.create(&staged.join(name)).await?;
            file.append(vec![bytes]).await?;
        }
        Ok(())
    }

    pub async fn everything(&self) -> Content {
        self.select(&[], Timestamp::MIN, Timestamp::MAX, Take::All)
            .await
    }

    pub async fn select(
        &self,
        matchers: &[Matcher],
        start: Timestamp,
        end: Timestamp,
        take: Take,
    ) -> Content {
        let answer = self
            .shard
            .select(&selection(matchers, start, end, take))
            .await;
        content(&answer.expect("an answer"))
    }
}

pub fn selection(matchers: &[Matcher], start: Timestamp, end: Timestamp, take: Take) -> Selection {
    Selection {
        matchers: matchers.to_vec(),
        start,
        end,
        take,
        consistency: Consistency::Local,
    }
}

pub fn metadata(any_of: Vec<Vec<Matcher>>, start: i64, end: i64) -> MetadataSelection {
    MetadataSelection {
        any_of,
        start: Timestamp(start),
        end: Timestamp(end),
        consistency: Consistency::Local,
    }
}

/// An answer as bits, checked to be sorted and without empty or repeated series.
pub fn content(answer: &[Series]) -> Content {
    assert!(
        answer.windows(2).all(|w| w[0].labels < w[1].labels),
        "series are sorted, each once"
    );
    let mut content = Content::new();
    for series in answer {
        let samples = &series.samples;
        assert!(!samples.is_empty(), "no series without samples");
        assert!(
            samples.timestamps.windows(2).all(|w| w[0] < w[1]),
            "samples are in order"
        );
        let value = |index| match samples.value(index) {
            model::Value::Float(value) => Value::Float(value.to_bits()),
            model::Value::Histogram(histogram) => {
                assert_eq!(samples.values[index].to_bits(), histogram.sum.to_bits());
                Value::Histogram(tsdb::histogram::canonical(&histogram))
            }
        };
        let values: BTreeMap<i64, Value> = (0..samples.len())
            .map(|index| (samples.timestamps[index].0, value(index)))
            .collect();
        content.insert(series.labels.clone(), values);
    }
    content
}
