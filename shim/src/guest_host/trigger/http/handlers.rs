//! The instances that answer requests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use engines::engine::{GuestConfig, Instance, Stop};
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
    pub(super) async fn handle(&self, request: Request) -> Result<Response, Stop> {
        let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request,));
        match self.instances {
            Instances::Fresh => self.guests.module.call_once(self.config(), &mut call).await?,
            Instances::Reuse => {
                let idle = self.idle().pop();
                let mut instance = match idle {
                    Some(instance) => instance,
                    None => self.guests.module.instantiate(self.config()).await?,
                };
                instance.call(&mut call).await?;
                self.idle().push(instance);
            }
        }
        Ok(call.into_result().unwrap_or_default())
    }

    fn config(&self) -> GuestConfig {
        GuestConfig { initializer: self.guests.initializer, ..self.guests.config() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Box<dyn Instance>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
