//! Tasks that run for as long as the service does. One that breaks must not go unnoticed while the process lives on.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::logs;

/// Runs a task to its end. If it panics the process ends, with words: memory and disk may differ then, or nobody is let in
/// any more, and a fresh start knows better.
pub fn vital(name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let running = tokio::spawn(task);
    tokio::spawn(async move {
        if running.await.is_err_and(|error| error.is_panic()) {
            logs::end(70, &format!("the task {name:?} broke, without which the service cannot work"));
        }
    })
}

/// Runs a background task, and again if it panics: nothing here may stop without being told to.
pub fn supervise<Task, Run>(name: &'static str, stopping: CancellationToken, task: Run) -> JoinHandle<()>
where
    Task: Future<Output = ()> + Send + 'static,
    Run: Fn(CancellationToken) -> Task + Send + 'static,
{
    tokio::spawn(async move {
        while !stopping.is_cancelled() {
            if let Err(error) = tokio::spawn(task(stopping.clone())).await {
                tracing::error!(%error, task = name, "a background task broke; starting it again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    })
}
