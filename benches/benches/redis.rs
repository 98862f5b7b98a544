//! State in Redis through guests on workers as a container's, beside the client library alone, one connection on tokio's
//! own runtime, with the same commands in the same run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use benches::{GETS, STATE_GETS, instantiate, load, runtime};
use components::{App, Registry};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use futures::future::join_all;
use host_abi::host_functions::HostContext;
use host_abi::state::{GetRequest, SetRequest, StateStore};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use shim::guest_host::workers::Workers;
use testbed::redis::RedisServer;
use tokio::runtime::{Handle, Runtime};

/// A server, the store `state` in it with a value at `key`, and a connection beside.
struct Setup {
    runtime: Runtime,
    server: RedisServer,
    store: Arc<dyn StateStore>,
    connection: MultiplexedConnection,
}

impl Setup {
    fn new() -> Self {
        let runtime = runtime();
        let server = {
            let _runtime = runtime.enter();
            RedisServer::start()
        };
        let client = redis::Client::open(server.url()).expect("a URL");
        let connection = runtime.block_on(client.get_multiplexed_async_connection()).expect("a connection");
        let store = store(&server);
        runtime.block_on(store.set(set())).expect("a write");
        Self { runtime, server, store, connection }
    }

    /// The words of the script call that a set is, as the server sees it.
    fn script_call(&self) -> Vec<String> {
        let mut monitor = TcpStream::connect(("127.0.0.1", self.server.port())).expect("a connection");
        monitor.write_all(b"MONITOR\r\n").expect("a server that listens");
        let mut lines = BufReader::new(monitor).lines().map(|line| line.expect("a line"));
        assert_eq!(lines.next().as_deref(), Some("+OK"));
        self.runtime.block_on(self.store.set(set())).expect("a write");
        let call = lines.find(|line| line.contains("\"EVALSHA\"")).expect("a script");
        call.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    }
}

/// Connects when it is first called.
fn store(server: &RedisServer) -> Arc<dyn StateStore> {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: state}}\nspec:\n  type: state.redis\n  \
         version: v1\n  metadata:\n  - {{name: redisHost, value: \"127.0.0.1:{}\"}}\n",
        server.port()
    );
    std::fs::write(folder.path().join("state.yaml"), manifest).expect("a manifest");
    let components = Registry::builtin().load(&[folder.path()], &App::default()).expect("a store");
    Arc::clone(&components.state_stores["state"])
}

fn set() -> SetRequest {
    SetRequest { key: "key".to_owned(), value: "value".into(), ..SetRequest::default() }
}

/// As often as a guest of [`STATE_GETS`].
async fn gets_alone(mut connection: MultiplexedConnection) {
    for _ in 0..GETS {
        let _: Vec<Vec<u8>> = connection.hgetall("key").await.expect("a hash");
    }
}

async fn gets_of_store(store: Arc<dyn StateStore>) {
    for _ in 0..GETS {
        let get = GetRequest { key: "key".to_owned(), ..GetRequest::default() };
        store.get(get).await.expect("a value");
    }
}

/// A worker for each guest, in turn.
fn each_on_a_worker(workers: &Workers, guests: u32) -> impl Iterator<Item = &Handle> {
    workers.runtimes().iter().cycle().take(guests as usize)
}

/// Gets by so many guests, or tasks with the client or the store alone, at once.
fn state_get(setup: &Setup, group: &mut BenchmarkGroup<'_, WallTime>, at_once: u32) {
    let Setup { runtime, server, connection, .. } = setup;
    group.throughput(Throughput::Elements(u64::from(GETS * at_once)));
    group.sample_size(10);
    group.bench_function("the client alone", |bencher| {
        bencher.iter(|| {
            let tasks = (0..at_once).map(|_| runtime.spawn(gets_alone(connection.clone())));
            runtime.block_on(join_all(tasks));
        });
    });
    let workers = Workers::start(thread::available_parallelism().expect("a processor").get()).expect("threads");
    let shared = store(server);
    group.bench_function("the store", |bencher| {
        bencher.iter(|| {
            let tasks =
                each_on_a_worker(&workers, at_once).map(|worker| worker.spawn(gets_of_store(Arc::clone(&shared))));
            runtime.block_on(join_all(tasks));
        });
    });
    let module = wat::parse_str(STATE_GETS).expect("a module");
    for engine in engines::built_in() {
        // Its own, so that the guests connect as those of a container do.
        let state_stores = [("state".to_owned(), store(server))].into();
        let host = Arc::new(HostContext { state_stores, ..HostContext::default() });
        let module = load(&*engine, &module);
        let mut instances: Vec<_> = each_on_a_worker(&workers, at_once)
            .map(|worker| {
                let (module, host) = (Arc::clone(&module), Arc::clone(&host));
                let made = worker.spawn(async move { instantiate(&*module, &host).await });
                runtime.block_on(made).expect("no panic")
            })
            .collect();
        group.bench_function(engine.name(), |bencher| {
            bencher.iter(|| {
                let tasks =
                    each_on_a_worker(&workers, at_once).zip(instances.drain(..)).map(|(worker, mut instance)| {
                        worker.spawn(async move {
                            instance.run("run").await.expect("a guest that returns");
                            instance
                        })
                    });
                let ended = runtime.block_on(join_all(tasks));
                instances.extend(ended.into_iter().map(|instance| instance.expect("no panic")));
            });
        });
    }
}

fn state_set(setup: &Setup, group: &mut BenchmarkGroup<'_, WallTime>) {
    let Setup { runtime, store, connection, .. } = setup;
    let words = setup.script_call();
    group.bench_function("the client alone", |bencher| {
        bencher.to_async(runtime).iter(async || {
            let mut connection = connection.clone();
            let command = redis::cmd(&words[0]).arg(&words[1..]).to_owned();
            let _: u32 = command.query_async(&mut connection).await.expect("a version");
        });
    });
    group.bench_function("the store", |bencher| {
        bencher.to_async(runtime).iter(async || store.set(set()).await.expect("a write"));
    });
}

fn state(criterion: &mut Criterion) {
    let setup = Setup::new();
    state_get(&setup, &mut criterion.benchmark_group("state get, Redis, one guest"), 1);
    state_get(&setup, &mut criterion.benchmark_group("state get, Redis, 50 guests"), 50);
    state_set(&setup, &mut criterion.benchmark_group("state set, Redis"));
}

criterion_group!(all, state);
criterion_main!(all);
