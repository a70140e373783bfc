//! Work that goes on when the request that began it is dropped.

use std::future::{Future, poll_fn};
use std::pin::Pin;

use tokio::runtime::Handle;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::RecvError;

/// A piece of detachable work.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Polls the work until `wanted` has its value. Whatever is left of the work then, or when the caller is dropped, goes
/// on in a task of its own: so short work costs no task, and a client that goes away cancels nothing.
pub async fn run_until<T>(wanted: Receiver<T>, work: Work) -> Result<T, RecvError> {
    let mut detachable = DetachedOnDrop(Some(work));
    // A variable that is declared later is dropped earlier: the work that goes on finds that nobody waits.
    let mut wanted = wanted;
    poll_fn(|context| {
        // The work is out of its place while it is polled, so that work that panics does not go on.
        if let Some(mut work) = detachable.0.take()
            && work.as_mut().poll(context).is_pending()
        {
            detachable.0 = Some(work);
        }
        Pin::new(&mut wanted).poll(context)
    })
    .await
}

struct DetachedOnDrop(Option<Work>);

impl Drop for DetachedOnDrop {
    fn drop(&mut self) {
        // There is no runtime at the end of the process, and nothing can go on then.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}
