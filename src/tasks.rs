//! Tasks without which the service cannot work. One that breaks must not go unnoticed while the process lives on.

use tokio::task::JoinHandle;

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
