//! openraft's own storage suite against the shared log and a shard's engine, on the simulated
//! disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cluster::raft::log_store::LogStore;
use cluster::raft::machine::StateMachine;
use cluster::raft::types::TypeConfig;
use cluster::shard::machine::{ShardMachine, checkpoint_turns};
use model::GroupId;
use model::port::World;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use sim_world::{SimClock, SimDisk};

/// Makes a fresh log and shard for each test of the suite, all on one disk: a test may hand one
/// shard's snapshot to another.
struct Builder {
    disk: SimDisk,
    built: AtomicU32,
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, World> for Builder {
    async fn build(&self) -> Result<(World, LogStore, StateMachine), StorageError<TypeConfig>> {
        let number = self.built.fetch_add(1, Ordering::Relaxed);
        let root = PathBuf::from(number.to_string());
        let world = sim_world::world(u64::from(number), &SimClock::new(), &self.disk);
        let registry = prometheus::Registry::new();
        let (log, _) = wal::SegmentedLog::open(
            &world,
            &root.join("log"),
            wal::Options::default(),
            wal::Metrics::new(&registry).expect("an empty registry"),
        )
        .await
        .expect("an empty disk opens");
        let metrics = Arc::new(tsdb::Metrics::new());
        let engine = tsdb::Shard::open(&world, root.join("engine"), metrics, Arc::default()).await;
        let engine = Arc::new(engine.expect("an empty disk opens"));
        let dir = root.join("shard");
        let machine = ShardMachine::new(engine, world.disk.clone(), dir, checkpoint_turns());
        let machine = StateMachine::new(Arc::new(machine)).expect("an empty shard has no mark");
        Ok((world, LogStore::new(log, GroupId(7)), machine))
    }
}

#[test]
fn storage_suite() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dice: Arc<dyn model::port::Dice> = Arc::new(sim_world::SimDice::new(1));
    let suite = Suite::test_all(Builder {
        disk: SimDisk::new(1),
        built: AtomicU32::new(0),
    });
    let local = tokio::task::LocalSet::new();
    // The suite's futures are not Send; the scope only needs the same thread.
    let scope =
        openraft_rt::deterministic_rng::DeterministicRng::<openraft_rt_tokio::TokioRuntime>::scope(
            dice.roll(),
            suite,
        );
    local.block_on(&runtime, scope).expect("the suite passes");
}
