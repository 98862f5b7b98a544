//! What wasmer-wasix would start beside a guest: nothing.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::future::BoxFuture;
use wasmer_wasix::VirtualTaskManager;
use wasmer_wasix::WasiThreadError;
use wasmer_wasix::runtime::task_manager::TaskWasm;

/// Sleeps on the runtime that the guest's thread belongs to, and refuses everything else.
#[derive(Debug)]
pub(super) struct NoTasks;

impl VirtualTaskManager for NoTasks {
    fn sleep_now(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        Box::pin(tokio::time::sleep(time))
    }

    fn task_shared(&self, _: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>) -> Result<(), WasiThreadError> {
        Err(WasiThreadError::Unsupported)
    }

    fn task_wasm(&self, _: TaskWasm) -> Result<(), WasiThreadError> {
        Err(WasiThreadError::Unsupported)
    }

    fn task_dedicated(&self, _: Box<dyn FnOnce() + Send>) -> Result<(), WasiThreadError> {
        Err(WasiThreadError::Unsupported)
    }

    fn thread_parallelism(&self) -> Result<usize, WasiThreadError> {
        Ok(1)
    }
}
