//! What happened to the sandbox's tasks, told to containerd in the order in which it happened, also when containerd was
//! away. It may be told twice where its answer was lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::{io, iter, mem};

use containerd_shim::event::Event;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::shim::event::Envelope;
use containerd_shim::protos::shim::events::ForwardRequest;
use containerd_shim::protos::shim_async::{Client, EventsClient};
use containerd_shim::protos::ttrpc;
use containerd_shim::protos::ttrpc::r#async::transport::Socket;
use containerd_shim::protos::ttrpc::context::with_duration;
use containerd_shim::util::timestamp;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long an answer is waited for, here and by runc's shim.
const ANSWER: Duration = Duration::from_secs(5);
/// How often an event is sent to a containerd that is there and does not take it.
const ATTEMPTS: usize = 5;
/// Between two attempts, and while nobody is there to connect to. The first comes at once: most often a connection was to
/// a containerd that has been started again since.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The events that are kept for a containerd that is away, some hundred bytes each. Little happens to containers then, for
/// nobody asks for anything; but one that runs out of memory again and again must not have the shim grow.
const CAPACITY: usize = 1024;
/// How long a shim that ends waits for its last events to be told.
const LAST_EVENTS: Duration = Duration::from_secs(5);

pub(super) struct Publisher {
    namespace: String,
    queue: Arc<watch::Sender<Queue>>,
}

#[derive(Default)]
struct Queue {
    /// The first is under way, and stays here until it is done with.
    events: VecDeque<ForwardRequest>,
    /// Since the first got under way.
    dropped: usize,
}

impl Queue {
    fn push(&mut self, event: ForwardRequest) {
        if self.events.len() == CAPACITY {
            self.events.remove(1);
            self.dropped += 1;
        }
        self.events.push_back(event);
    }

    /// Done with the first; answers how many had to make room behind it.
    fn pop(&mut self) -> usize {
        self.events.pop_front();
        mem::take(&mut self.dropped)
    }
}

impl Publisher {
    /// `address` is where containerd takes events.
    pub(super) async fn connect(address: String, namespace: String) -> io::Result<Self> {
        let client = Some(connect(&address).await?);
        let queue = Arc::new(watch::Sender::default());
        tokio::spawn(deliver(Arc::clone(&queue), Containerd { address, client }));
        Ok(Self { namespace, queue })
    }

    /// Has containerd told what happened, after all that happened before.
    pub(super) fn publish<E: Event + Message>(&self, event: E) {
        match self.request(&event) {
            Ok(request) => self.queue.send_modify(|queue| queue.push(request)),
            Err(error) => tracing::warn!(%error, topic = event.topic(), "cannot publish an event"),
        }
    }

    fn request<E: Event + Message>(&self, event: &E) -> containerd_shim::Result<ForwardRequest> {
        // To find the name out by reflection, as the crate's `convert_to_any`, takes half a megabyte of descriptors.
        let type_url = format!("containerd.events.{}", E::NAME);
        let value = event.write_to_bytes()?;
        let envelope = Envelope {
            timestamp: Some(timestamp()?).into(),
            namespace: self.namespace.clone(),
            topic: event.topic(),
            event: Some(Any { type_url, value, ..Any::default() }).into(),
            ..Envelope::default()
        };
        Ok(ForwardRequest { envelope: Some(envelope).into(), ..ForwardRequest::default() })
    }

    /// Waits until all was told, though not for long. To be called before the process ends.
    pub(super) async fn finish(&self) {
        let mut queue = self.queue.subscribe();
        if timeout(LAST_EVENTS, queue.wait_for(|queue| queue.events.is_empty())).await.is_err() {
            let events = self.queue.borrow().events.len();
            tracing::warn!(events, "the shim ends before containerd could be told of everything");
        }
    }
}

async fn deliver(queue: Arc<watch::Sender<Queue>>, mut containerd: Containerd) {
    let mut filled = queue.subscribe();
    loop {
        let event = filled.wait_for(|queue| !queue.events.is_empty()).await;
        let Some(event) = event.ok().and_then(|queue| queue.events.front().cloned()) else { return };
        if let Err(error) = containerd.tell(&event).await {
            tracing::warn!(%error, topic = event.envelope.topic, "containerd does not take an event");
        }
        let mut dropped = 0;
        queue.send_modify(|queue| dropped = queue.pop());
        // Not before: containerd reads the log.
        if dropped > 0 {
            tracing::warn!(dropped, "containerd was away for so long that events had to be dropped, the oldest first");
        }
    }
}

struct Containerd {
    address: String,
    client: Option<EventsClient>,
}

impl Containerd {
    /// Comes back once containerd has the event, or was there [`ATTEMPTS`] times and did not take it.
    async fn tell(&mut self, event: &ForwardRequest) -> ttrpc::Result<()> {
        let mut pauses = pauses().take(ATTEMPTS - 1);
        loop {
            let client = match self.client.take() {
                Some(client) => client,
                None => connect_once_it_is_there(&self.address).await,
            };
            match client.forward(with_duration(ANSWER), event).await {
                Ok(_) => {
                    self.client = Some(client);
                    return Ok(());
                }
                Err(error) => match pauses.next() {
                    Some(pause) => sleep(pause).await,
                    None => return Err(error),
                },
            }
        }
    }
}

/// Without end.
fn pauses() -> impl Iterator<Item = Duration> {
    let growing = iter::successors(Some(SHORTEST_PAUSE), |pause| Some((*pause * 2).min(LONGEST_PAUSE)));
    iter::once(Duration::ZERO).chain(growing)
}

async fn connect_once_it_is_there(address: &str) -> EventsClient {
    let mut pauses = pauses();
    loop {
        match connect(address).await {
            Ok(client) => return client,
            Err(_) => sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await,
        }
    }
}

async fn connect(address: &str) -> io::Result<EventsClient> {
    let stream = UnixStream::connect(address).await?;
    Ok(EventsClient::new(Client::new(Socket::from(stream))))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use async_trait::async_trait;
    use containerd_shim::TtrpcContext;
    use containerd_shim::api::Empty;
    use containerd_shim::protos::events::task::{TaskExit, TaskOOM};
    use containerd_shim::protos::shim_async::{Events, create_events};
    use containerd_shim::protos::ttrpc::r#async::Server;
    use containerd_shim::protos::ttrpc::{Code, get_status};
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;

    /// Takes every event but TaskOOM.
    struct Taker(UnboundedSender<TaskExit>);

    #[async_trait]
    impl Events for Taker {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            let event = &request.envelope.event;
            if event.type_url != "containerd.events.TaskExit" {
                return Err(ttrpc::Error::RpcStatus(get_status(Code::INVALID_ARGUMENT, &event.type_url)));
            }
            self.0.send(TaskExit::parse_from_bytes(&event.value).expect("an exit")).expect("a test that waits");
            Ok(Empty::default())
        }
    }

    async fn containerd(address: &Path) -> (Server, UnboundedReceiver<TaskExit>) {
        let (taken, events) = unbounded_channel();
        let server = Server::new().bind(&format!("unix://{}", address.display())).expect("a socket");
        let mut server = server.register_service(create_events(Arc::new(Taker(taken))));
        server.start().await.expect("a server");
        (server, events)
    }

    async fn publisher(address: &Path) -> Publisher {
        let address = address.to_str().expect("text").to_owned();
        Publisher::connect(address, "test".to_owned()).await.expect("a containerd")
    }

    fn exit(pid: u32) -> TaskExit {
        TaskExit { pid, ..TaskExit::default() }
    }

    async fn next_pid(events: &mut UnboundedReceiver<TaskExit>) -> u32 {
        events.recv().await.expect("an event").pid
    }

    #[tokio::test]
    async fn events_come_in_their_order_also_those_that_happened_while_containerd_was_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let address = folder.path().join("socket");
        let (mut server, mut events) = containerd(&address).await;
        let publisher = publisher(&address).await;
        publisher.publish(exit(1));
        assert_eq!(next_pid(&mut events).await, 1);
        server.shutdown().await.expect("an end");
        drop((server, events));
        std::fs::remove_file(&address).expect("a socket");
        publisher.publish(exit(2));
        publisher.publish(exit(3));
        let (_server, mut events) = containerd(&address).await;
        publisher.publish(exit(4));
        publisher.finish().await;
        for pid in 2..=4 {
            assert_eq!(next_pid(&mut events).await, pid);
        }
        assert!(events.try_recv().is_err(), "each comes once");
    }

    #[tokio::test]
    async fn an_event_that_containerd_refuses_does_not_keep_the_next_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let address = folder.path().join("socket");
        let (_server, mut events) = containerd(&address).await;
        let publisher = publisher(&address).await;
        publisher.publish(TaskOOM::default());
        publisher.publish(exit(1));
        assert_eq!(next_pid(&mut events).await, 1);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_event_that_is_not_under_way() {
        let event = |topic: usize| ForwardRequest {
            envelope: Some(Envelope { topic: topic.to_string(), ..Envelope::default() }).into(),
            ..ForwardRequest::default()
        };
        let mut queue = Queue::default();
        (0..CAPACITY + 2).for_each(|topic| queue.push(event(topic)));
        let topics: Vec<_> = queue.events.iter().take(2).map(|event| event.envelope.topic.as_str()).collect();
        assert_eq!((topics, queue.events.len()), (vec!["0", "3"], CAPACITY));
        assert_eq!((queue.pop(), queue.pop()), (2, 0));
    }
}
