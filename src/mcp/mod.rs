//! stub
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
pub struct Gateway;
impl Gateway {
    pub fn new(
        _: Arc<crate::sessions::Sessions>,
        _: Arc<crate::directory::Directory>,
        _: Arc<crate::auth::Auth>,
        _: Arc<crate::config::Config>,
        _: Arc<str>,
        _: CancellationToken,
    ) -> Self {
        Self
    }
}
pub fn router<S: Clone + Send + Sync + 'static>(_: Arc<Gateway>) -> axum::Router<S> {
    axum::Router::new()
}
pub fn check_upstream(url: &str, _: &crate::config::Config) -> Result<String, crate::error::Error> {
    Ok(url.to_owned())
}
