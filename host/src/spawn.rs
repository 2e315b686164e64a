//! Tasks on tokio's threads.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use futures::future::BoxFuture;
use model::port::{Spawn, Task};

/// Spawns on the current tokio runtime. A task that panics has broken an invariant, and nobody
/// waits for it to notice: the process ends, and another node takes over.
#[derive(Debug, Clone, Copy)]
pub struct TokioSpawn;

impl Spawn for TokioSpawn {
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> Task {
        let guarded = async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                tracing::error!(
                    task = name,
                    reason = reason(&*panic),
                    "task panicked, aborting"
                );
                std::process::abort();
            }
        };
        Task::new(tokio::spawn(guarded).abort_handle())
    }
}

fn reason(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[tokio::test]
    async fn a_dropped_task_ends() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let waits = async move {
            std::future::pending::<()>().await;
            drop(sender);
        };
        let task = TokioSpawn.spawn("waits", waits.boxed());
        assert!(!task.is_finished());
        drop(task);
        assert!(receiver.await.is_err());
    }

    /// Runs itself as a child process that panics in a task, since the process must not survive.
    #[test]
    fn a_panic_in_a_task_ends_the_process() {
        const CHILD: &str = "QUORATE_TEST_PANIC";
        if std::env::var_os(CHILD).is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(async {
                let _task = TokioSpawn.spawn("fails", async { panic!("on purpose") }.boxed());
                std::future::pending::<()>().await;
            });
        }
        let name = "spawn::tests::a_panic_in_a_task_ends_the_process";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .output()
            .unwrap();
        const SIGABRT: i32 = 6;
        assert_eq!(child.status.signal(), Some(SIGABRT), "{child:?}");
    }
}
