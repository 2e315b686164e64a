//! Power cuts at every operation that changes the disk. After each, the log must hold what it
//! held after some prefix of the script that contains every acknowledged step: nothing
//! acknowledged lost, nothing reordered, nothing half.

mod rig;

use model::GroupId;
use model::port::Dice;
use rig::*;
use sim_world::{SimDice, SimDisk};
use wal::Log;

const GROUPS: u64 = 3;
const STEPS: usize = 45;

/// Runs the script until the power goes; returns how many steps were begun.
async fn run_until_dark(disk: &SimDisk, steps: &[Step], durable: &Durable) -> usize {
    let Ok((log, _)) = try_open(disk, small()).await else {
        return 0;
    };
    let mut begun = 0;
    for (number, step) in steps.iter().enumerate() {
        begun = number + 1;
        if run(&log, number, step, durable).await.is_err() {
            break;
        }
        // Lets some batches hold one step and some many.
        if number.is_multiple_of(3) {
            tokio::task::yield_now().await;
        }
    }
    log.closed().await;
    begun
}

/// Opens the log after a cut, with more cuts while it recovers.
async fn reopen_through_cuts(disk: &SimDisk, dice: &dyn Dice) -> std::sync::Arc<wal::SegmentedLog> {
    loop {
        disk.crash();
        // Recovery changes the disk half a dozen times: some cuts come during it, some after.
        disk.crash_after(dice.below(10));
        if let Ok((log, recovery)) = try_open(disk, small()).await {
            assert!(recovery.quarantined.is_empty(), "{recovery:?}");
            assert!(recovery.damage.is_empty(), "{recovery:?}");
            if log.settled().await.is_ok() && !disk.is_dark() {
                // Recovery is through: what it leaves must hold by itself.
                drop(log);
                disk.crash();
                let (log, recovery) = open(disk, small()).await;
                assert_eq!(recovery.torn_bytes, 0, "the tail was cut for good");
                return log;
            }
        }
    }
}

async fn cut_at(seed: u64, boundary: u64) -> bool {
    let dice = SimDice::new(seed ^ boundary.rotate_left(32));
    let (steps, twins) = script(seed, STEPS, GROUPS);
    let disk = SimDisk::new(dice.roll());
    disk.crash_after(boundary);
    let durable = Durable::default();
    let begun = run_until_dark(&disk, &steps, &durable).await;
    let was_cut = disk.is_dark();
    let log = reopen_through_cuts(&disk, &dice).await;
    let held = holds(&log, GROUPS).await.unwrap();
    let kept = (durable.steps()..=begun).find(|&n| held == held_by(&twins[n], GROUPS));
    let Some(kept) = kept else {
        panic!(
            "seed {seed} boundary {boundary}: {} steps durable, {begun} begun, held {held:#?}",
            durable.steps()
        );
    };

    // The log goes on as if nothing had been, and a second cut finds that too.
    let mut twin = twins[kept].clone();
    let durable = Durable::default();
    for number in 0..8 {
        let step = twin.step(&dice, GROUPS);
        twin.apply(&step);
        run(&log, number, &step, &durable).await.unwrap();
    }
    let last = Step::Vote(GroupId(1), vote(99));
    twin.apply(&last);
    run(&log, 8, &last, &durable).await.unwrap();
    drop(log);
    disk.crash();
    let (log, recovery) = open(&disk, small()).await;
    assert_eq!(recovery.quarantined, []);
    let held = holds(&log, GROUPS).await.unwrap();
    assert_eq!(
        held,
        held_by(&twin, GROUPS),
        "seed {seed} boundary {boundary}"
    );
    was_cut
}

#[tokio::test]
async fn a_power_cut_at_any_boundary_loses_nothing_acknowledged() {
    let mut cuts = 0;
    for seed in 0..12 {
        let mut boundary = 0;
        while cut_at(seed, boundary).await {
            boundary += 1;
        }
        assert!(boundary > 40, "seed {seed}: only {boundary} boundaries");
        cuts += boundary;
    }
    assert!(cuts > 1000, "{cuts} cuts");
}

/// A flushed log, then one batch that is written but not flushed: whatever of it a cut leaves,
/// it is there whole or not at all, and what came before is untouched.
#[tokio::test]
async fn a_torn_batch_is_there_whole_or_not_at_all() {
    let disk = SimDisk::new(5);
    let (log, _) = open(&disk, small()).await;
    append(&log, GroupId(1), vec![entry(1, 0, 30)])
        .await
        .unwrap();
    disk.crash_after(1);
    let batch: Vec<_> = (1..8).map(|index| entry(1, index, 40)).collect();
    assert!(append(&log, GroupId(1), batch).await.is_err());
    drop(log);
    let (mut whole, mut gone, mut torn) = (0, 0, 0);
    for seed in 0..400 {
        let cut = disk.fork(seed);
        let (log, recovery) = open(&cut, small()).await;
        assert_eq!(recovery.quarantined, []);
        match read(&log, GroupId(1)).await.unwrap().len() {
            8 => whole += 1,
            1 if recovery.torn_bytes > 0 => torn += 1,
            1 => gone += 1,
            other => panic!("seed {seed}: {other} entries"),
        }
    }
    assert!(whole > 0 && gone > 0 && torn > 0, "{whole} {gone} {torn}");
}
