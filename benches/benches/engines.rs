//! The engines side by side: what a container's start and a request are made of.

use std::hint::black_box;
use std::sync::Arc;

use benches::{GETS, STATE_GETS, guest, guest_config, instantiate, large_module, load, runtime};
use components::{App, Registry};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engines::artifact_cache::{Artifact, ArtifactCache, ArtifactKey, Description, ModuleFile};
use engines::engine::Instance;
use engines::module_info::ModuleInfo;
use host_abi::host_functions::HostContext;
use host_abi::http::{HANDLE_HTTP_REQUEST, HandleHttpRequest, Method, Request};
use host_abi::state::{GetRequest, SetRequest};

const IN_MEMORY: &str = "apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: state}
spec: {type: state.in-memory, version: v1}
";

fn compile(criterion: &mut Criterion) {
    let module = guest("hello");
    let mut group = criterion.benchmark_group("compile hello");
    group.sample_size(10);
    for engine in engines::built_in() {
        group.bench_function(engine.name(), |bencher| bencher.iter(|| engine.compile(black_box(&module))));
    }
    group.finish();
}

fn load_from_cache(criterion: &mut Criterion) {
    let runtime = runtime();
    let _runtime = runtime.enter();
    for (name, module) in [("hello", guest("hello")), ("20 MB", large_module(20_000_000))] {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = ArtifactCache::open(folder.path(), u64::MAX).expect("a cache");
        let file = ModuleFile::new("", &folder.path().metadata().expect("a file"));
        let mut group = criterion.benchmark_group(format!("load {name} from the cache"));
        for engine in engines::built_in() {
            let key = ArtifactKey::new(&*engine, &module);
            let description = Description { name: name.to_owned(), info: ModuleInfo::read(&module).expect("a module") };
            let compile = || Artifact::in_memory(&engine.compile(&module).expect("a module that every engine runs"));
            cache.get_or_compile(&key, description, compile).expect("an artifact");
            cache.remember(&*engine, &file, &key);
            group.bench_function(engine.name(), |bencher| {
                bencher.iter(|| {
                    let artifact = cache.find(&*engine, &file).expect("a known file").artifact;
                    // SAFETY: the cache is this function's own, and the artifact this engine's.
                    #[expect(unsafe_code, reason = "see above")]
                    unsafe { engine.load(&artifact) }.expect("a module")
                });
            });
        }
        group.finish();
    }
}

fn instantiate_hello(criterion: &mut Criterion) {
    let runtime = runtime();
    let host = Arc::new(HostContext::default());
    let mut group = criterion.benchmark_group("instantiate hello");
    for engine in engines::built_in() {
        let module = runtime.block_on(async { load(&*engine, &guest("hello")) });
        group.bench_function(engine.name(), |bencher| {
            bencher.to_async(&runtime).iter(|| instantiate(&*module, &host));
        });
    }
    group.finish();
}

fn state_get(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("state.yaml"), IN_MEMORY).expect("a manifest");
    let _runtime = runtime.enter();
    let components = Registry::builtin().load(&[folder.path()], &App::default()).expect("a store");
    let store = Arc::clone(&components.state_stores["state"]);
    let set = SetRequest { key: "key".to_owned(), value: "value".into(), ..SetRequest::default() };
    runtime.block_on(store.set(set)).expect("a write");
    let host = Arc::new(HostContext { state_stores: components.state_stores, ..HostContext::default() });
    let module = wat::parse_str(STATE_GETS).expect("a module");

    let mut group = criterion.benchmark_group("state get, in memory");
    group.throughput(Throughput::Elements(u64::from(GETS)));
    group.bench_function("the store alone", |bencher| {
        bencher.to_async(&runtime).iter(async || {
            for _ in 0..GETS {
                let get = GetRequest { key: "key".to_owned(), ..GetRequest::default() };
                black_box(store.get(get).await.expect("a value"));
            }
        });
    });
    for engine in engines::built_in() {
        let module = load(&*engine, &module);
        let mut instance = runtime.block_on(instantiate(&*module, &host));
        group.bench_function(engine.name(), |bencher| {
            bencher.iter(|| runtime.block_on(instance.run("run")).expect("a guest that returns"));
        });
    }
    group.finish();
}

fn http_request(criterion: &mut Criterion) {
    let runtime = runtime();
    let host = Arc::new(HostContext::default());
    let request = Request { method: Method::Get, uri: "/".to_owned(), ..Request::default() };
    let call = || HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request.clone(),));
    let answer = async |instance: &mut dyn Instance| {
        let mut call = call();
        instance.call(&mut call).await.expect("an answer");
        call.into_result()
    };
    let mut group = criterion.benchmark_group("http request");
    for engine in engines::built_in() {
        let module = runtime.block_on(async { load(&*engine, &guest("http")) });
        group.bench_function(BenchmarkId::new(engine.name(), "fresh"), |bencher| {
            bencher.to_async(&runtime).iter(async || {
                let mut call = call();
                module.call_once(guest_config(&host), &mut call).await.expect("an answer");
                call.into_result()
            });
        });
        let mut instance = runtime.block_on(instantiate(&*module, &host));
        group.bench_function(BenchmarkId::new(engine.name(), "reuse"), |bencher| {
            bencher.iter(|| runtime.block_on(answer(&mut *instance)));
        });
    }
    group.finish();
}

criterion_group!(all, compile, load_from_cache, instantiate_hello, state_get, http_request);
criterion_main!(all);
