//! The instances that answer requests.

use std::sync::{Mutex, PoisonError};

use engines::engine::{Instance, Stop};
use host_abi::http::{HANDLE_HTTP_REQUEST, HandleHttpRequest, Request, Response};
use tokio_util::sync::CancellationToken;

use super::options::Instances;
use crate::guest_host::trigger::Guests;

pub(super) struct Handlers {
    pub(super) guests: Guests,
    instances: Instances,
    /// Those that may be used again, the last one used on top: the others' memory can be swapped out.
    idle: Mutex<Vec<Box<dyn Instance>>>,
}

impl Handlers {
    pub(super) fn new(guests: Guests, instances: Instances) -> Self {
        Self { guests, instances, idle: Mutex::default() }
    }

    /// Has a guest answer. An instance that fails, or whose answer nobody waits for any more, is gone.
    pub(super) async fn handle(&self, request: Request) -> Result<Response, Stop> {
        let mut instance = match self.take_idle() {
            Some(instance) => instance,
            None => self.start().await?,
        };
        let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request,));
        instance.call(&mut call).await?;
        if self.instances == Instances::Reuse {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(instance);
        }
        Ok(call.into_result().unwrap_or_default())
    }

    fn take_idle(&self) -> Option<Box<dyn Instance>> {
        match self.instances {
            Instances::Fresh => None,
            Instances::Reuse => self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop(),
        }
    }

    async fn start(&self) -> Result<Box<dyn Instance>, Stop> {
        let mut instance = self.guests.instantiate(CancellationToken::new()).await?;
        if let Some(initializer) = self.guests.initializer {
            match instance.run(initializer).await {
                // A guest whose `_start` ends in `proc_exit(0)` is initialized all the same.
                Ok(()) | Err(Stop::Exit(0)) => {}
                Err(stop) => return Err(stop),
            }
        }
        Ok(instance)
    }
}
