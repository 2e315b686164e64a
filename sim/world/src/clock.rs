//! Virtual time. It moves only when every task waits, as tokio's paused clock does.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use model::Timestamp;
use model::port::Clock;
use tokio::time::Instant;

/// When every simulation begins: 2026-01-01T00:00:00Z.
pub const EPOCH: Timestamp = Timestamp(1_767_225_600_000);

/// One node's clock. Clones share the wall offset, so the simulation keeps one to make the wall
/// time of a node jump, before and after its restarts.
///
/// Inside a turmoil host the time is that of the whole simulation and goes on over a restart;
/// elsewhere it counts from the first reading of any clone, by tokio's clock.
#[derive(Debug, Default, Clone)]
pub struct SimClock {
    offset_ms: Arc<AtomicI64>,
    start: Arc<OnceLock<Instant>>,
}

impl SimClock {
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the wall time by `delta_ms`; monotonic time does not notice.
    pub fn jump(&self, delta_ms: i64) {
        self.offset_ms.fetch_add(delta_ms, Ordering::Relaxed);
    }

    /// The wall time when the simulation is `elapsed` old, for whoever stands outside of its hosts.
    pub fn at(&self, elapsed: Duration) -> Timestamp {
        EPOCH
            .plus_ms(elapsed.as_millis() as i64)
            .plus_ms(self.offset_ms.load(Ordering::Relaxed))
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.at(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| self.start.get_or_init(Instant::now).elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wall_time_follows_virtual_time_and_jumps() {
        let clock = SimClock::new();
        assert_eq!(clock.now(), EPOCH);
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(clock.now(), EPOCH.plus_ms(90_000));
        clock.clone().jump(-3_600_000);
        assert_eq!(clock.now(), EPOCH.plus_ms(90_000 - 3_600_000));
        assert_eq!(clock.monotonic(), Duration::from_secs(90));
    }

    #[test]
    fn time_goes_on_over_a_restart_of_the_host() {
        let clock = SimClock::new();
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut sim = turmoil::Builder::new().rng_seed(1).build();
        let (node_clock, node_seen) = (clock, seen.clone());
        sim.host("node", move || {
            let (clock, seen) = (node_clock.clone(), node_seen.clone());
            async move {
                loop {
                    seen.lock().unwrap().push(clock.monotonic());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        });
        for round in 0..4 {
            for _ in 0..500 {
                sim.step().unwrap();
            }
            if round == 1 {
                sim.bounce("node");
            }
        }
        let seen = seen.lock().unwrap();
        assert!(seen.len() > 15, "{seen:?}");
        assert!(seen.windows(2).all(|w| w[0] < w[1]), "{seen:?}");
    }
}
