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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_dropped_task_ends() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let waits = async move {
            std::future::pending::<()>().await;
            drop(sender);
        };
        let task = SimSpawn.spawn("waits", waits.boxed());
        assert!(!task.is_finished());
        drop(task);
        assert!(receiver.await.is_err());
    }
}
