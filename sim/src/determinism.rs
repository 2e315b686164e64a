//! Takes the last sources of chance away from this process.
//!
//! tokio's `select!` without `biased` and std's hash maps draw from the system's random source;
//! h2 forgets reset streams by the monotonic clock, hyper writes the date into answers.
//! `mad-turmoil` stands in for libc's `getrandom` and `clock_gettime` in programs that link it:
//! the first then answers from the seed, the second from the virtual time. Nothing else needs
//! `tokio_unstable`, which turmoil would need to seed tokio itself.
//!
//! Once a process, which is why a process runs one seed.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mad_turmoil::time::SimClocksGuard;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

static STEPPED_TO_MICROS: AtomicU64 = AtomicU64::new(0);
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the process sealed.
pub struct Seal(SimClocksGuard);

/// Puts `seed` in the place of the system's random source, and virtual time in that of its
/// clocks; keeps panics, which a runtime would swallow with their task.
pub fn seal(seed: u64) -> Seal {
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        PANICS
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(panic.to_string());
    }));
    Seal(SimClocksGuard::init())
}

/// What panicked since the process was sealed.
pub fn panics() -> Vec<String> {
    PANICS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone()
}

/// Tells the log how far virtual time is.
pub fn stepped_to(now: Duration) {
    STEPPED_TO_MICROS.store(now.as_micros() as u64, Ordering::Relaxed);
}

/// What the nodes log goes to standard error, with virtual time.
pub fn log_to_stderr(filter: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_timer(VirtualTime)
        .with_writer(std::io::stderr)
        .init();
}

struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let micros = STEPPED_TO_MICROS.load(Ordering::Relaxed);
        write!(w, "{:>12.6}", micros as f64 / 1e6)
    }
}
