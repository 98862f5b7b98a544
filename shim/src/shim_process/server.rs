//! The shim of a sandbox: it serves the task API until it is shut down.

use std::env;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use containerd_shim::Flags;
use containerd_shim::asynchronous::ExitSignal;
use containerd_shim::protos::shim_async::create_task;
use containerd_shim::protos::ttrpc::r#async::Server;
use containerd_shim::protos::ttrpc::r#async::transport::Listener;

use super::publisher::Publisher;
use super::socket::Socket;
use super::stdio::open_log;
use super::task_service::TaskService;
use super::to_its_end::done_to_their_end;
use super::{one_thread, reaper};
use crate::logging;

/// Where containerd takes events: it tells every shim that it starts.
const EVENTS_ADDRESS: &str = "TTRPC_ADDRESS";

pub(super) fn serve(flags: Flags, socket: Socket) -> anyhow::Result<()> {
    // containerd reads this FIFO of the bundle into its own log.
    if let Ok(log) = open_log(Path::new("log")) {
        logging::init(log, flags.debug);
    }
    let runtime = one_thread()?;
    let (mut server, publisher) = runtime
        .block_on(answer(flags, &socket.listener))
        .inspect_err(|error| tracing::error!(error = format!("{error:#}"), "the shim failed"))?;
    // containerd, which has seen the answer to its shutdown, does not wait for the rest.
    drop(socket);
    runtime.block_on(async {
        let shut_down = server.shutdown().await;
        publisher.finish().await;
        Ok(shut_down?)
    })
}

/// Answers requests until it is asked to shut down.
async fn answer(flags: Flags, listener: &UnixListener) -> anyhow::Result<(Server, Arc<Publisher>)> {
    reaper::start()?;
    let events = env::var(EVENTS_ADDRESS).with_context(|| format!("{EVENTS_ADDRESS} is not set"))?;
    let publisher = Publisher::connect(events.clone(), flags.namespace).await;
    let publisher = Arc::new(publisher.with_context(|| format!("cannot connect to {events}"))?);
    let exit = Arc::new(ExitSignal::default());
    let service = TaskService::new(flags.id, flags.debug, Arc::clone(&exit), Arc::clone(&publisher));
    let mut server = Server::new().add_listener(Listener::try_from(listener.try_clone()?)?);
    server = server.register_service(done_to_their_end(create_task(Arc::new(service))));
    server.start().await?;
    exit.wait().await;
    Ok((server, publisher))
}
