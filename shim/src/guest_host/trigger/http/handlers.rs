//! The instances that answer requests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use engines::engine::Instance;
use host_abi::http::{HANDLE_HTTP_REQUEST, HandleHttpRequest, Request, Response};

use super::options::Instances;
use crate::guest_host::trigger::Guests;

pub(super) struct Handlers {
    guests: Guests,
    instances: Instances,
    /// Those that may be used again, the last one used on top: the others' memory can be swapped out.
    idle: Mutex<Vec<Box<dyn Instance>>>,
}

impl Handlers {
    pub(super) fn new(guests: Guests, instances: Instances) -> Self {
        Self { guests, instances, idle: Mutex::default() }
    }

    /// Has a guest answer. An instance that fails, or whose answer nobody waits for any more, is gone.
    pub(super) async fn handle(&self, request: Request) -> anyhow::Result<Response> {
        let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request,));
        match self.instances {
            Instances::Fresh => self.guests.module.call_once(self.guests.config(), &mut call).await?,
            Instances::Reuse => {
                let idle = self.idle().pop();
                let mut instance = match idle {
                    Some(instance) => instance,
                    None => self.guests.module.instantiate(self.guests.config()).await?,
                };
                instance.call(&mut call).await?;
                self.idle().push(instance);
            }
        }
        call.into_result().context("the engine says that it called the handler, and has no answer")
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Box<dyn Instance>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
