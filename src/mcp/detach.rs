//! Work that does not depend on whoever began it.

use std::future::{Future, poll_fn};
use std::pin::Pin;

use tokio::runtime::Handle;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::RecvError;

/// A piece of it.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Works until what is waited for is there. Whatever is left then, or when nobody waits any more, goes on by itself: so a
/// short piece of work costs no task of its own, and a client that goes away cancels nothing.
pub async fn run_until<T>(wanted: Receiver<T>, work: Work) -> Result<T, RecvError> {
    let mut working = Working(Some(work));
    // Declared later, dropped earlier: what goes on finds that nobody waits.
    let mut wanted = wanted;
    poll_fn(|context| {
        // Out of its place meanwhile: work that panics is not to go on.
        if let Some(mut work) = working.0.take()
            && work.as_mut().poll(context).is_pending()
        {
            working.0 = Some(work);
        }
        Pin::new(&mut wanted).poll(context)
    })
    .await
}

struct Working(Option<Work>);

impl Drop for Working {
    fn drop(&mut self) {
        // Without a runtime this is the end of the process.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}
