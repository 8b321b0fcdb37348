//! temporary
use crate::session::*;
use futures_util::future::BoxFuture;
use std::sync::Arc;
#[allow(missing_docs)]
pub struct ConsoleContext {
    pub directory: Arc<crate::database::Directory>,
    pub clients: Arc<crate::database::Clients>,
    pub registry: crate::metrics::Registry,
    pub workers: usize,
    pub started: std::time::Instant,
    pub actions: Arc<dyn ConsoleActions>,
}
#[allow(missing_docs)]
pub trait ConsoleActions: Send + Sync {
    fn settings(&self) -> Arc<crate::config::Settings>;
    fn reload(&self) -> BoxFuture<'static, Result<crate::config::ReloadPlan, String>>;
    fn shutdown(&self, mode: ShutdownMode);
}
#[allow(missing_docs)]
pub enum ShutdownMode {
    Drain,
    Now,
}
#[allow(missing_docs)]
pub struct Console(ConsoleContext);
impl Console {
    #[allow(missing_docs)]
    pub fn new(c: ConsoleContext) -> Self {
        Console(c)
    }
}
impl ConsoleHandler for Console {
    fn serve(&self, _c: ConsoleClient) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
