//! Requests that are done to their end, whoever is there to be told: as long as one is under way, containerd may end, or
//! the time may be over that it gives. What was begun for it would else be left half done, and unknown to all.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim::TtrpcContext;
use containerd_shim::protos::ttrpc::r#async::{MethodHandler, Service};
use containerd_shim::protos::ttrpc::{self, Request, Response};

/// The method that waits for something to end, and does nothing.
const WAIT: &str = "Wait";

type Method = dyn MethodHandler + Send + Sync;

/// The services, with methods that go on when their caller has gone.
pub(super) fn done_to_their_end(mut services: HashMap<String, Service>) -> HashMap<String, Service> {
    for service in services.values_mut() {
        let methods = mem::take(&mut service.methods).into_iter().map(|(name, method)| {
            let method: Box<Method> = if name == WAIT { method } else { Box::new(ToItsEnd(Arc::from(method))) };
            (name, method)
        });
        service.methods = methods.collect();
    }
    services
}

struct ToItsEnd(Arc<Method>);

#[async_trait]
impl MethodHandler for ToItsEnd {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let method = Arc::clone(&self.0);
        let done = tokio::spawn(async move { method.handler(context, request).await }).await;
        done.unwrap_or_else(|error| Err(ttrpc::Error::Others(error.to_string())))
    }
}
