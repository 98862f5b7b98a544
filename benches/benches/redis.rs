//! State in Redis through a guest, beside the client library alone in the same run.

use std::sync::Arc;

use benches::{GETS, STATE_GETS, instantiate, load, runtime};
use components::{App, Registry};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use host_abi::host_functions::HostContext;
use host_abi::state::SetRequest;
use redis::AsyncCommands as _;
use testbed::redis::RedisServer;

fn state_get(criterion: &mut Criterion) {
    let runtime = runtime();
    let _runtime = runtime.enter();
    let server = RedisServer::start();
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: state}}\nspec:\n  type: state.redis\n  \
         version: v1\n  metadata:\n  - {{name: redisHost, value: \"127.0.0.1:{}\"}}\n",
        server.port()
    );
    std::fs::write(folder.path().join("state.yaml"), manifest).expect("a manifest");
    let components = Registry::builtin().load(&[folder.path()], &App::default()).expect("a store");
    let store = Arc::clone(&components.state_stores["state"]);
    let set = || SetRequest { key: "key".to_owned(), value: "value".into(), ..SetRequest::default() };
    runtime.block_on(store.set(set())).expect("a write");
    let host = Arc::new(HostContext { state_stores: components.state_stores, ..HostContext::default() });
    let module = wat::parse_str(STATE_GETS).expect("a module");
    let client = redis::Client::open(server.url()).expect("a URL");
    let connection = runtime.block_on(client.get_multiplexed_async_connection()).expect("a connection");

    let mut group = criterion.benchmark_group("state get, Redis");
    group.throughput(Throughput::Elements(u64::from(GETS)));
    group.sample_size(10);
    group.bench_function("the client alone", |bencher| {
        bencher.to_async(&runtime).iter(async || {
            let mut connection = connection.clone();
            for _ in 0..GETS {
                let _: Vec<Vec<u8>> = connection.hgetall("key").await.expect("a hash");
            }
        });
    });
    for engine in engines::built_in() {
        let module = load(&*engine, &module, 1);
        let mut instance = runtime.block_on(instantiate(&*module, &host));
        group.bench_function(engine.name(), |bencher| {
            bencher.iter(|| runtime.block_on(instance.run("run")).expect("a guest that returns"));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("state set, Redis");
    group.bench_function("the store alone", |bencher| {
        bencher.to_async(&runtime).iter(async || store.set(set()).await.expect("a write"));
    });
    group.bench_function("the client alone, HSET", |bencher| {
        bencher.to_async(&runtime).iter(async || {
            let mut connection = connection.clone();
            let _: u32 = connection.hset("other", "data", "value").await.expect("a write");
        });
    });
    group.finish();
}

criterion_group!(all, state_get);
criterion_main!(all);
