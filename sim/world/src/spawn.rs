//! Tasks on the runtime of the host they are started from: turmoil gives each host one of its own,
//! single-threaded and with virtual time.

use futures::future::BoxFuture;
use model::port::{Spawn, Task};

/// Spawns on the current runtime.
#[derive(Debug, Clone, Copy)]
pub struct SimSpawn;

impl Spawn for SimSpawn {
    fn spawn(&self, _name: &'static str, future: BoxFuture<'static, ()>) -> Task {
        Task::new(tokio::spawn(future).abort_handle())
    }
}
