//! Calls into the guest and out of it, through the canonical ABI.

use std::sync::Arc;

use bytes::Bytes;
use engines::artifact_cache::ArtifactKey;
use engines::engine::{Engine, Instance, Stop, Trap, TrapKind};
use host_abi::http::{HANDLE_HTTP_REQUEST, HandleHttpRequest, Method, Request, Response};
use host_abi::state::GetResponse;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{OnceCell, oneshot};

use crate::support::{GetStore, Guest};

for_every_engine! {
    a_host_function_answers_the_guest,
    an_error_of_the_host_is_a_result_for_the_guest,
    a_hostile_pointer_traps_with_function_and_argument,
    an_allocator_that_lies_is_a_trap,
    an_allocator_that_traps_is_that_trap,
    an_allocator_that_calls_the_host_is_a_trap,
    a_missing_export_is_a_trap,
    an_export_of_another_type_is_a_trap,
    a_handler_gets_the_request_and_its_response_is_taken,
    a_handler_can_call_the_host,
    what_one_call_connected_to_serves_the_next_guest,
    an_initializer_comes_before_the_call_and_may_exit_with_0,
    a_response_outside_memory_is_a_trap,
    each_instance_has_its_own_memory,
    an_engine_fits_its_own_artifacts_only,
}

/// An allocator that behaves.
const REALLOC: &str = r#"
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $allocate (local.get 2) (local.get 3)))"#;

/// Gets the key and prints what it has.
const PRINT_KEY: &str = r#"
    (func (export "_start")
      (call $get_key)
      (call $ok (i32.load8_u (i32.const 2048)))
      (call $print (i32.load (i32.const 2052)) (i32.load (i32.const 2056))))"#;

async fn a_host_function_answers_the_guest(engine: &dyn Engine) {
    let value = "value ".repeat(1000);
    let data = Bytes::from(value.clone());
    let store = GetStore(move |request: host_abi::state::GetRequest| {
        assert_eq!(request.key, "key");
        let response = GetResponse { data: data.clone(), ..GetResponse::default() };
        async { response }
    });
    let ended = Guest::with_wasi(engine, format!("{REALLOC} {PRINT_KEY}")).store("state", store).run().await;
    ended.result.unwrap();
    assert_eq!(ended.stdout, value);
}

async fn an_error_of_the_host_is_a_result_for_the_guest(engine: &dyn Engine) {
    let print_error = r#"
        (func (export "_start")
          (call $get_key)
          (call $ok (i32.eqz (i32.load8_u (i32.const 2048))))
          (call $print (i32.load (i32.const 2052)) (i32.load (i32.const 2056))))"#;
    let ended = Guest::with_wasi(engine, format!("{REALLOC} {print_error}")).run().await;
    ended.result.unwrap();
    assert!(ended.stdout.contains("no state store \"state\""), "{}", ended.stdout);
}

async fn a_hostile_pointer_traps_with_function_and_argument(engine: &dyn Engine) {
    let calls = [
        ("-256 257 0 0 0 0 0 0 2048", "dapr:state/state-interface.get: name: "),
        ("0 0 131072 1 0 0 0 0 2048", "dapr:state/state-interface.get: req.key: "),
        ("0 0 0 0 7 0 0 0 2048", "dapr:state/state-interface.get: req.metadata: "),
        ("0 0 0 0 1 131000 100000000 0 2048", "dapr:state/state-interface.get: req.metadata: "),
        ("0 0 0 0 0 0 0 0 131071", "dapr:state/state-interface.get: result: "),
    ];
    for (arguments, place) in calls {
        let arguments: String = arguments.split(' ').map(|argument| format!("(i32.const {argument})")).collect();
        let start = format!(r#"{REALLOC} (func (export "_start") (call $get {arguments}))"#);
        let trap = Guest::with_wasi(engine, start).trap().await;
        assert_eq!(trap.kind, TrapKind::HostAbi);
        assert!(trap.message.as_ref().is_some_and(|message| message.starts_with(place)), "{place}: {trap}");
    }
}

/// A trap in a guest whose allocator does something else than allocate.
async fn trap_with_allocator(engine: &dyn Engine, instructions: &str) -> Trap {
    let realloc =
        format!(r#"(func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {instructions})"#);
    let store = GetStore(|_| async { GetResponse { data: Bytes::from_static(b"value"), ..GetResponse::default() } });
    Guest::with_wasi(engine, format!("{realloc} {PRINT_KEY}")).store("state", store).trap().await
}

async fn an_allocator_that_lies_is_a_trap(engine: &dyn Engine) {
    let trap = trap_with_allocator(engine, "(i32.const -1)").await;
    assert_eq!(trap.kind, TrapKind::HostAbi);
    assert!(trap.to_string().contains("cabi_realloc"), "{trap}");
}

async fn an_allocator_that_traps_is_that_trap(engine: &dyn Engine) {
    assert_eq!(trap_with_allocator(engine, "unreachable").await.kind, TrapKind::Unreachable);
}

/// Or host and guest could call each other until the host's stack is full.
async fn an_allocator_that_calls_the_host_is_a_trap(engine: &dyn Engine) {
    let trap = trap_with_allocator(engine, "(call $get_key) (i32.const 65536)").await;
    assert_eq!(trap.kind, TrapKind::HostAbi, "{trap}");
}

async fn a_missing_export_is_a_trap(engine: &dyn Engine) {
    let guest = Guest::new(engine, "(module)");
    let mut instance = guest.instantiate().await.unwrap();
    for result in [instance.run("_start").await, handle(&mut *instance, Request::default()).await.map(drop)] {
        let Err(Stop::Trap(trap)) = result else { panic!("there is no such export") };
        assert_eq!(trap.kind, TrapKind::MissingExport, "{trap}");
    }
}

async fn an_export_of_another_type_is_a_trap(engine: &dyn Engine) {
    let module = r#"(module (func (export "_start") (param i64)) (memory (export "memory") 1))"#;
    let trap = Guest::new(engine, module).trap().await;
    assert_eq!(trap.kind, TrapKind::MissingExport, "{trap}");
    assert!(trap.to_string().contains("_start"), "{trap}");
}

async fn handle(instance: &mut dyn Instance, request: Request) -> Result<Response, Stop> {
    let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request,));
    instance.call(&mut call).await?;
    Ok(call.into_result().expect("the call was made"))
}

/// Answers 201 with the uri as the only header's value and the request's body. The address of the response is 3072.
fn handler(before: &str) -> String {
    format!(
        r#"{REALLOC}
           (data (i32.const 4096) "x-uri")
           (data (i32.const 4112) "freed")
           (func (export "dapr:http/http-handler#handle-http-request")
             (param $method i32) (param $uri i32) (param $uri-length i32) (param i32 i32 i32 i32)
             (param $has-body i32) (param $body i32) (param $body-length i32)
             (result i32)
             {before}
             (i32.store (i32.const 4128) (i32.const 4096))
             (i32.store (i32.const 4132) (i32.const 5))
             (i32.store (i32.const 4136) (local.get $uri))
             (i32.store (i32.const 4140) (local.get $uri-length))
             (i32.store16 (i32.const 3072) (i32.add (i32.const 200) (local.get $method)))
             (i32.store8 (i32.const 3076) (i32.const 1))
             (i32.store (i32.const 3080) (i32.const 4128))
             (i32.store (i32.const 3084) (i32.const 1))
             (i32.store8 (i32.const 3088) (local.get $has-body))
             (i32.store (i32.const 3092) (local.get $body))
             (i32.store (i32.const 3096) (local.get $body-length))
             (i32.const 3072))
           (func (export "cabi_post_dapr:http/http-handler#handle-http-request") (param $response i32)
             (call $ok (i32.ne (local.get $response) (i32.const 3072)))
             (call $print (i32.const 4112) (i32.const 5)))
           (func (export "_start"))"#
    )
}

async fn a_handler_gets_the_request_and_its_response_is_taken(engine: &dyn Engine) {
    let guest = Guest::with_wasi(engine, handler(""));
    for body in [None, Some(Bytes::new()), Some(Bytes::from_static(b"the body"))] {
        let mut instance = guest.instantiate().await.unwrap();
        let request = Request {
            method: Method::Post,
            uri: "/path?a=b".to_owned(),
            body: body.clone().map(Into::into),
            ..Request::default()
        };
        let response = handle(&mut *instance, request).await.unwrap();
        assert_eq!(response.status, 201);
        assert_eq!(response.headers, Some(vec![("x-uri".to_owned(), "/path?a=b".to_owned())]));
        assert_eq!(response.body, body);
    }
    assert_eq!(guest.run().await.stdout, "freed".repeat(3), "the guest is told when its response was read");
}

async fn a_handler_can_call_the_host(engine: &dyn Engine) {
    let store = GetStore(|_| async { GetResponse { data: Bytes::from_static(b"stored"), ..GetResponse::default() } });
    let before = r#"
        (call $get_key)
        (local.set $has-body (i32.const 1))
        (local.set $body (i32.load (i32.const 2052)))
        (local.set $body-length (i32.load (i32.const 2056)))"#;
    let guest = Guest::with_wasi(engine, handler(before)).store("state", store);
    let mut instance = guest.instantiate().await.unwrap();
    let response = handle(&mut *instance, Request::default()).await.unwrap();
    assert_eq!(response.body.as_deref(), Some(b"stored".as_slice()));
}

/// As stores do it: the first call opens a connection and leaves a task with it behind.
async fn what_one_call_connected_to_serves_the_next_guest(engine: &dyn Engine) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    // The only client that is served.
    tokio::spawn(async move {
        let (mut client, _) = server.accept().await.unwrap();
        let (mut from, mut to) = client.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap()
    });
    let questions: Arc<OnceCell<Sender<Question>>> = Arc::default();
    let ask = move |_| {
        let questions = Arc::clone(&questions);
        async move {
            let connect = async || {
                let (sender, inbox) = mpsc::channel(1);
                tokio::spawn(serve(TcpStream::connect(address).await.unwrap(), inbox));
                sender
            };
            let (question, answer) = oneshot::channel();
            questions.get_or_init(connect).await.send(question).await.unwrap();
            GetResponse { data: vec![answer.await.unwrap()].into(), ..GetResponse::default() }
        }
    };
    let guest = Guest::with_wasi(engine, format!("{REALLOC} {PRINT_KEY}")).store("state", GetStore(ask));
    for _ in 0..3 {
        guest.instantiate().await.unwrap().run("_start").await.unwrap();
    }
}

type Question = oneshot::Sender<u8>;

/// Asks over the connection until nobody has a question.
async fn serve(mut connection: TcpStream, mut questions: Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        connection.write_u8(b'!').await.unwrap();
        question.send(connection.read_u8().await.unwrap()).unwrap();
    }
}

async fn an_initializer_comes_before_the_call_and_may_exit_with_0(engine: &dyn Engine) {
    let endings = [
        ("", None),
        ("(call $proc_exit (i32.const 0))", None),
        ("(call $proc_exit (i32.const 3))", Some("exited with code 3")),
        ("unreachable", Some("trap: unreachable instruction executed")),
    ];
    // A handler that finds anything but one initialization exits.
    let handler = handler("(call $ok (i32.ne (global.get $initialized) (i32.const 1)))");
    let handler = handler.replace(r#"(func (export "_start"))"#, "");
    for (ending, expected) in endings {
        let initializer = format!(
            r#"(global $initialized (mut i32) (i32.const 0))
               (func (export "_start")
                 (global.set $initialized (i32.add (global.get $initialized) (i32.const 1))) {ending})"#
        );
        let guest = Guest::with_wasi(engine, format!("{handler} {initializer}"));
        for _ in 0..3 {
            let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (Request::default(),));
            for ended in [guest.initialize(Some(&mut call)).await, guest.initialize(None).await] {
                let stop = ended.err().map(|stop| stop.to_string());
                assert_eq!(stop.as_deref().and_then(|stop| stop.lines().next()), expected, "{ending}");
            }
            assert_eq!(call.into_result().is_some(), expected.is_none(), "{ending}");
        }
    }
}

async fn a_response_outside_memory_is_a_trap(engine: &dyn Engine) {
    let guest = Guest::with_wasi(engine, handler("(if (i32.const 1) (then (return (i32.const -8))))"));
    let mut instance = guest.instantiate().await.unwrap();
    let Err(Stop::Trap(trap)) = handle(&mut *instance, Request::default()).await else { panic!("it must trap") };
    assert_eq!(trap.kind, TrapKind::HostAbi);
    assert!(trap.to_string().contains("handle-http-request: result: "), "{trap}");
}

async fn each_instance_has_its_own_memory(engine: &dyn Engine) {
    let once = r#"(module (global $ran (mut i32) (i32.const 0)) (memory 1)
        (func (export "_start")
          (if (i32.or (global.get $ran) (i32.load (i32.const 0))) (then unreachable))
          (global.set $ran (i32.const 1))
          (i32.store (i32.const 0) (i32.const 1))))"#;
    let guest = Guest::new(engine, once);
    for _ in 0..3 {
        guest.instantiate().await.unwrap().run("_start").await.unwrap();
    }
}

async fn an_engine_fits_its_own_artifacts_only(engine: &dyn Engine) {
    let key = ArtifactKey::new(engine, b"module");
    for other in engines::built_in() {
        assert_eq!(ArtifactKey::new(&*other, b"module") == key, other.name() == engine.name());
    }
    assert_ne!(ArtifactKey::new(engine, b"other"), key);
}
