//! What is lowered into a guest is lifted out of it unchanged, one value at a time and through whole calls.

mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use host_abi::canonical::{
    AbiType, ByteChunks, CoreValue, ExportCall as _, FlatValues, Guest, GuestLen, GuestPtr, Lift, Lower, Lowered,
    Params, Source, call_export,
};
use host_abi::error::{Error, ErrorClass};
use host_abi::http::{HANDLE_HTTP_REQUEST, HandleHttpRequest, HttpError, Method, Request, Response};
use host_abi::secrets::{self, Redacted, Secret, SecretError};
use host_abi::state::{
    BulkError, Concurrency, Consistency, DeleteRequest, GetOptions, GetRequest, GetResponse, ItemError, Metadata,
    Operation, SetRequest, StoreError, Transaction, WriteOptions,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::result::maybe_err;
use proptest::sample::select;
use support::{Asked, TestGuest, TestHost, context, finish, grow, host_function};

/// As parameters in core values, twice as many (in memory where they are more than sixteen), and in a list.
fn survives<T: Lift + Lower + Clone + Debug + PartialEq>(value: &T) -> Result<(), TestCaseError> {
    params_survive((value.clone(),))?;
    params_survive((value.clone(), value.clone()))?;
    params_survive((vec![value.clone(), value.clone()], vec![Vec::<T>::new()]))
}

fn params_survive<P: Params + Lower + Clone + Debug + PartialEq>(params: P) -> Result<(), TestCaseError> {
    let mut guest = one_page();
    let values = finish(Lowered::params(params.clone()).place(&mut guest, None, "test")).unwrap();
    let lifted = P::lift_params(&mut Source::new(&guest), &["first", "second"], &values);
    prop_assert_eq!(lifted, Ok(params));
    Ok(())
}

proptest! {
    #[test]
    fn integers_survive(value: ((u8, u16), (u32, u64))) {
        survives(&value)?;
    }

    #[test]
    fn strings_and_bytes_survive(value in (text(), bytes())) {
        survives(&value)?;
    }

    #[test]
    fn nested_lists_survive(value in vec(vec((any::<u8>(), vec(text(), 0..3)), 0..4), 0..4)) {
        survives(&value)?;
    }

    #[test]
    fn nested_options_survive(value in option::of(option::of((any::<u8>(), option::of(any::<u64>()))))) {
        survives(&value)?;
    }

    #[test]
    fn cases_that_share_an_i64_survive(value in (
        maybe_err(any::<u64>(), text()),
        maybe_err(any::<u32>(), (text(), any::<u64>())),
    )) {
        survives(&value)?;
    }

    #[test]
    fn results_in_results_survive(value in maybe_err(
        maybe_err(any::<u64>(), maybe_err(any::<u8>(), bytes())),
        option::of(maybe_err((any::<u16>(), any::<u64>()), vec(text(), 0..3))),
    )) {
        survives(&value)?;
    }

    #[test]
    fn records_of_the_state_interface_survive(
        get in get_request(),
        response in get_response(),
        set in set_request(),
        delete in delete_request(),
    ) {
        survives(&get)?;
        survives(&response)?;
        survives(&set)?;
        survives(&delete)?;
    }

    #[test]
    fn types_of_the_store_interface_survive(
        transaction in transaction(),
        error in error().prop_map(StoreError::from),
        failed in vec((text(), error()), 0..4),
        read in vec(maybe_err(get_response(), error().prop_map(StoreError::from)), 0..4),
        nothing in maybe_err(Just(()), text()),
    ) {
        let failed = failed.into_iter().map(|(key, error)| ItemError { key, error: error.into() }).collect();
        survives(&transaction)?;
        survives(&BulkError::Store(error))?;
        survives(&BulkError::Items(failed))?;
        survives(&read)?;
        survives(&nothing)?;
    }

    #[test]
    fn records_of_the_http_interface_survive(request in request(), response in response(), error in http_error()) {
        survives(&request)?;
        survives(&response)?;
        survives(&error)?;
    }

    #[test]
    fn get_asks_the_store_and_answers_what_it_said(request in get_request(), answer in maybe_err(get_response(), error())) {
        let host = TestHost { get: answer.clone(), ..TestHost::new() };
        let (asked, answered) = import::<Result<GetResponse, String>>("/state-interface.get", host, ("state".to_owned(), request.clone()));
        prop_assert_eq!(asked, [Asked::Get(request)]);
        prop_assert_eq!(answered, answer.map_err(String::from));
    }

    #[test]
    fn set_asks_the_store_and_answers_one(request in set_request(), answer in maybe_err(Just(()), error())) {
        let host = TestHost { write: answer.clone(), ..TestHost::new() };
        let (asked, answered) = import::<Result<u32, String>>("/state-interface.set", host, ("state".to_owned(), request.clone()));
        prop_assert_eq!(asked, [Asked::Set(request)]);
        prop_assert_eq!(answered, answer.map(|()| 1).map_err(String::from));
    }

    #[test]
    fn delete_asks_the_store_and_answers_one(request in delete_request(), answer in maybe_err(Just(()), error())) {
        let host = TestHost { write: answer.clone(), ..TestHost::new() };
        let (asked, answered) = import::<Result<u32, String>>("/state-interface.delete", host, ("state".to_owned(), request.clone()));
        prop_assert_eq!(asked, [Asked::Delete(request)]);
        prop_assert_eq!(answered, answer.map(|()| 1).map_err(String::from));
    }

    #[test]
    fn a_typed_call_asks_the_store_and_answers_with_a_case_for_each_class(
        request in set_request(),
        answer in maybe_err(Just(()), error()),
    ) {
        let host = TestHost { write: answer.clone(), ..TestHost::new() };
        let params = ("state".to_owned(), request.clone());
        let (asked, answered) = import::<Result<(), StoreError>>("/state-store.set", host, params);
        prop_assert_eq!(asked, [Asked::Set(request)]);
        prop_assert_eq!(answered, answer.map_err(StoreError::from));
    }

    #[test]
    fn a_bulk_get_asks_for_every_key_and_answers_in_their_order(
        requests in vec(get_request(), 0..4),
        answer in maybe_err(get_response(), error()),
    ) {
        type Answer = Result<Vec<Result<GetResponse, StoreError>>, StoreError>;
        let host = TestHost { get: answer.clone(), ..TestHost::new() };
        let params = ("state".to_owned(), requests.clone());
        let (asked, answered) = import::<Answer>("/state-store.bulk-get", host, params);
        let answers = vec![answer.map_err(StoreError::from); requests.len()];
        prop_assert_eq!(asked, requests.into_iter().map(Asked::Get).collect::<Vec<_>>());
        prop_assert_eq!(answered, Ok(answers));
    }

    #[test]
    fn a_bulk_write_names_every_key_that_failed(requests in vec(delete_request(), 0..4), error in option::of(error())) {
        let host = TestHost { write: error.clone().map_or(Ok(()), Err), ..TestHost::new() };
        let params = ("state".to_owned(), requests.clone());
        let (asked, answered) = import::<Result<(), BulkError>>("/state-store.bulk-delete", host, params);
        let failed = error.into_iter().flat_map(|error| {
            let item = move |request: &DeleteRequest| ItemError { key: request.key.clone(), error: error.clone().into() };
            requests.iter().map(item).collect::<Vec<_>>()
        });
        let failed: Vec<_> = failed.collect();
        prop_assert_eq!(answered, if failed.is_empty() { Ok(()) } else { Err(BulkError::Items(failed)) });
        prop_assert_eq!(asked, requests.into_iter().map(Asked::Delete).collect::<Vec<_>>());
    }

    #[test]
    fn a_transaction_is_one_request_and_its_metadata_is_each_operation_s(transaction in transaction()) {
        let params = ("state".to_owned(), transaction.clone());
        let (asked, answered) = import::<Result<(), StoreError>>("/state-store.transact", TestHost::new(), params);
        prop_assert_eq!(asked, [Asked::Transact(transaction.into_operations().unwrap())]);
        prop_assert_eq!(answered, Ok(()));
    }

    #[test]
    fn types_of_the_secrets_interface_survive(
        request in secret_request(),
        secret in secret(),
        error in error().prop_map(SecretError::from),
    ) {
        survives(&request)?;
        survives(&secret.into_iter().collect::<Vec<_>>())?;
        survives(&error)?;
    }

    #[test]
    fn a_secret_comes_back_as_its_store_had_it(request in secret_request(), answer in maybe_err(secret(), error())) {
        type Answer = Result<Vec<(String, Redacted)>, SecretError>;
        let secrets = answer.clone().map(|secret| BTreeMap::from([("name".to_owned(), secret)]));
        let host = TestHost { secrets, ..TestHost::new() };
        let params = ("state".to_owned(), request.clone());
        let (asked, answered) = import::<Answer>("/secret-store.get", host, params);
        prop_assert_eq!(asked, [Asked::GetSecret(request)]);
        prop_assert_eq!(answered.map(Secret::from_iter), answer.map_err(SecretError::from));
    }

    #[test]
    fn all_secrets_come_back_as_their_store_had_them(
        metadata in option::of(pairs()),
        answer in maybe_err(btree_map(text(), secret(), 0..4), error()),
    ) {
        type Answer = Result<Vec<(String, Vec<(String, Redacted)>)>, SecretError>;
        let host = TestHost { secrets: answer.clone(), ..TestHost::new() };
        let params = ("state".to_owned(), metadata.clone());
        let (asked, answered) = import::<Answer>("/secret-store.bulk-get", host, params);
        let answered = answered.map(|secrets| {
            let secrets = secrets.into_iter().map(|(name, pairs)| (name, Secret::from_iter(pairs)));
            secrets.collect::<BTreeMap<_, _>>()
        });
        prop_assert_eq!(asked, [Asked::GetSecrets(metadata)]);
        prop_assert_eq!(answered, answer.map_err(SecretError::from));
    }

    #[test]
    fn send_asks_the_client_and_answers_what_it_said(request in request(), answer in maybe_err(response(), http_error())) {
        let host = TestHost { send: answer.clone(), ..TestHost::new() };
        let (asked, answered) = import::<Result<Response, HttpError>>("/http-client.send", host, (request.clone(),));
        prop_assert_eq!(asked, [Asked::Send(request)]);
        prop_assert_eq!(answered, answer);
    }

    #[test]
    fn a_handler_gets_the_request_and_its_response_comes_back(request in request(), response in response()) {
        let mut guest = handler(request.clone(), response.clone());
        let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request,));
        finish(call_export(&mut guest, &mut call)).unwrap();
        prop_assert_eq!(call.into_result(), Some(response));
    }
}

#[test]
fn a_response_is_freed_once_and_after_it_was_read() {
    let response = Response { status: 200, body: Some("body".into()), ..Response::default() };
    let mut guest = handler(Request::default(), response.clone());
    guest.export(&format!("cabi_post_{HANDLE_HTTP_REQUEST}"), |guest, params| {
        let [CoreValue::I32(address)] = params else { panic!("the address of the response, not {params:?}") };
        let result = Response::load(&mut Source::new(guest), GuestPtr(*address)).unwrap();
        assert_eq!(result.status, 200, "freed twice");
        guest.memory.fill(0xdd);
        None
    });
    let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (Request::default(),));
    finish(call_export(&mut guest, &mut call)).unwrap();
    assert_eq!(call.into_result(), Some(response));
    assert!(guest.memory.iter().all(|byte| *byte == 0xdd), "not freed");
}

#[test]
fn a_detached_call_brings_its_response_back_to_the_call_it_came_from() {
    let request = Request { uri: "/a".to_owned(), ..Request::default() };
    let response = Response { status: 204, ..Response::default() };
    let mut guest = handler(request.clone(), response.clone());
    let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request,));
    let mut detached = call.detach();
    std::thread::spawn(move || finish(call_export(&mut guest, &mut *detached))).join().unwrap().unwrap();
    assert_eq!(call.into_result(), Some(response));
}

#[test]
fn metadata_of_a_transaction_is_for_the_operations_that_have_none_of_that_name() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let own = SetRequest { metadata: Some(vec![pair("a", "own")]), ..SetRequest::default() };
    let transaction = Transaction {
        operations: vec![Operation::Upsert(own), Operation::Delete(DeleteRequest::default())],
        metadata: Some(vec![pair("a", "shared"), pair("b", "shared")]),
    };
    let operations = transaction.into_operations().unwrap();
    let [Operation::Upsert(set), Operation::Delete(delete)] = &operations[..] else { panic!("{operations:?}") };
    assert_eq!(set.metadata, Some(vec![pair("a", "own"), pair("b", "shared")]));
    assert_eq!(delete.metadata, Some(vec![pair("a", "shared"), pair("b", "shared")]));
}

#[test]
fn a_store_that_is_not_configured_is_an_answer_not_a_trap() {
    let request = ("other".to_owned(), GetRequest::default());
    let (asked, answered) = import::<Result<GetResponse, String>>("/state-interface.get", TestHost::new(), request);
    assert_eq!(asked, []);
    assert_eq!(answered, Err("not-found: no state store \"other\"; configured: state".to_owned()));
}

#[test]
fn a_secret_store_that_is_not_configured_is_an_answer_not_a_trap() {
    let request = ("other".to_owned(), secrets::GetRequest::default());
    type Answer = Result<Vec<(String, Redacted)>, SecretError>;
    let (asked, answered) = import::<Answer>("/secret-store.get", TestHost::new(), request);
    assert_eq!(asked, []);
    let message = "no secret store \"other\"; configured: state".to_owned();
    assert_eq!(answered, Err(SecretError::NotFound(message)));
}

#[test]
fn a_value_on_its_way_into_a_guest_does_not_print() {
    let secret = vec![("password".to_owned(), Redacted::from("hunter2".to_owned()))];
    let printed = format!("{secret:?} {:?}", Lowered::result(secret.clone()));
    let bytes = format!("{:?}", "hunter2".as_bytes());
    assert!(!printed.contains("hunter2") && !printed.contains(bytes.trim_matches(['[', ']'])), "{printed}");
}

#[test]
fn a_case_narrower_than_the_other_is_widened_with_zeros_and_read_from_the_low_half() {
    let wide = [CoreValue::I32(1), CoreValue::I64(7)];
    assert_eq!(flat::<Result<u64, u32>>(Err(7)), wide);
    let garbage_above = [CoreValue::I32(1), CoreValue::I64(0xdead_beef_0000_0007)];
    let mut values = FlatValues::new(&garbage_above);
    assert_eq!(Result::<u64, u32>::lift(&mut Source::new(&Vec::new()), &mut values), Ok(Err(7)));
}

#[test]
fn an_address_in_a_case_that_shares_an_i64_is_widened() {
    let in_guest = [CoreValue::I32(0), CoreValue::I64(0), CoreValue::I32(3)];
    assert_eq!(flat::<Result<String, u64>>(Ok("abc".to_owned())), in_guest);
    assert_eq!(
        flat::<Result<String, u64>>(Err(u64::MAX)),
        [CoreValue::I32(1), CoreValue::I64(u64::MAX), CoreValue::I32(0)]
    );
}

#[test]
fn integers_narrower_than_their_core_value_are_taken_modulo_their_width() {
    let values = [CoreValue::I32(0x1_02), CoreValue::I32(0x1_0203)];
    let lifted = <(u8, u16)>::lift(&mut Source::new(&Vec::new()), &mut FlatValues::new(&values));
    assert_eq!(lifted, Ok((0x02, 0x0203)));
}

/// `cabi_realloc` is asked for empty lists too, as the canonical ABI has it: the guest chooses their address.
#[test]
fn every_list_is_allocated_with_its_alignment_and_size_outer_lists_first() {
    let (sender, asked) = std::sync::mpsc::channel();
    let mut guest = TestGuest::new(Vec::new(), move |memory, align, size| {
        sender.send((align, size)).unwrap();
        grow(memory, align, size)
    });
    let value = (vec![("ab".to_owned(), 1_u64), (String::new(), 2)], Vec::<u16>::new());
    finish(Lowered::params(value).place(&mut guest, None, "test")).unwrap();
    drop(guest);
    assert_eq!(asked.iter().collect::<Vec<_>>(), [(8, 32), (1, 2), (1, 0), (2, 0)]);
}

/// The core values of a value, in a guest whose memory is empty at first.
fn flat<T: Lower>(value: T) -> Vec<CoreValue> {
    finish(Lowered::params((value,)).place(&mut TestGuest::new(Vec::new(), grow), None, "test")).unwrap()
}

/// The smallest guest there is; what it allocates begins at an odd address.
fn one_page() -> TestGuest {
    TestGuest::new(vec![0; 65536 + 3], grow)
}

/// Calls a host function the way a guest does: what the host was asked, and what the guest finds.
fn import<R: Lift>(name: &str, host: TestHost, params: impl Lower) -> (Vec<Asked>, R) {
    let host = Arc::new(host);
    let mut guest = one_page();
    let result = finish(async {
        let mut arguments = Lowered::params(params).place(&mut guest, None, "test").await.unwrap();
        let result = guest.allocate(R::ALIGN, GuestLen(R::SIZE)).await.unwrap();
        arguments.push(CoreValue::I32(result.0));
        let returned = host_function(name).call(context(&host), &mut guest, &arguments).await;
        assert_eq!(returned, Ok(None));
        R::load(&mut Source::new(&guest), result).unwrap()
    });
    let asked = host.asked.lock().unwrap().clone();
    (asked, result)
}

/// A guest whose handler expects one request and answers one response.
fn handler(expected: Request, response: Response) -> TestGuest {
    let mut guest = one_page();
    guest.export(HANDLE_HTTP_REQUEST, move |guest, params| {
        let request = <(Request,)>::lift_params(&mut Source::new(guest), &["req"], params);
        assert_eq!(request.as_ref(), Ok(&(expected.clone(),)));
        finish(async {
            let address = guest.allocate(Response::ALIGN, GuestLen(Response::SIZE)).await.unwrap();
            Lowered::result(response.clone()).place(guest, Some(address), "test").await.unwrap();
            Some(CoreValue::I32(address.0))
        })
    });
    guest
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn pairs() -> impl Strategy<Value = Metadata> {
    vec((text(), text()), 0..4)
}

fn consistency() -> impl Strategy<Value = Consistency> {
    select(Consistency::CASES)
}

fn write_options() -> impl Strategy<Value = WriteOptions> {
    let options = (select(Concurrency::CASES), consistency());
    options.prop_map(|(concurrency, consistency)| WriteOptions { concurrency, consistency })
}

fn get_request() -> impl Strategy<Value = GetRequest> {
    let fields = (text(), option::of(pairs()), consistency());
    fields.prop_map(|(key, metadata, consistency)| GetRequest { key, metadata, options: GetOptions { consistency } })
}

fn get_response() -> impl Strategy<Value = GetResponse> {
    let fields = (bytes(), option::of(text()), option::of(pairs()), option::of(text()));
    fields.prop_map(|(data, etag, metadata, content_type)| GetResponse { data, etag, metadata, content_type })
}

fn set_request() -> impl Strategy<Value = SetRequest> {
    let fields = (text(), bytes(), option::of(text()), option::of(pairs()), write_options(), option::of(text()));
    fields.prop_map(|(key, value, etag, metadata, options, content_type)| SetRequest {
        key,
        value,
        etag,
        metadata,
        options,
        content_type,
    })
}

fn delete_request() -> impl Strategy<Value = DeleteRequest> {
    let fields = (text(), option::of(text()), option::of(pairs()), write_options());
    fields.prop_map(|(key, etag, metadata, options)| DeleteRequest { key, etag, metadata, options })
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let operation =
        prop_oneof![set_request().prop_map(Operation::Upsert), delete_request().prop_map(Operation::Delete)];
    let fields = (vec(operation, 0..4), option::of(pairs()));
    fields.prop_map(|(operations, metadata)| Transaction { operations, metadata })
}

fn secret_request() -> impl Strategy<Value = secrets::GetRequest> {
    (text(), option::of(pairs())).prop_map(|(key, metadata)| secrets::GetRequest { key, metadata })
}

fn secret() -> impl Strategy<Value = Secret> {
    btree_map(text(), text().prop_map(Redacted::from), 0..4)
}

fn request() -> impl Strategy<Value = Request> {
    let fields = (select(Method::CASES), text(), pairs(), pairs(), option::of(bytes()));
    fields.prop_map(|(method, uri, headers, params, body)| Request {
        method,
        uri,
        headers,
        params,
        body: body.map(ByteChunks::from),
    })
}

fn response() -> impl Strategy<Value = Response> {
    let fields = (any::<u16>(), option::of(pairs()), option::of(bytes()));
    fields.prop_map(|(status, headers, body)| Response { status, headers, body })
}

fn http_error() -> impl Strategy<Value = HttpError> {
    select(HttpError::CASES)
}

fn error() -> impl Strategy<Value = Error> {
    use ErrorClass::{EtagInvalid, EtagMismatch, Internal, InvalidArgument, NotFound, PermissionDenied, Unavailable};
    let classes =
        [EtagMismatch, EtagInvalid, NotFound, InvalidArgument, Unavailable, PermissionDenied, Internal].to_vec();
    (select(classes), text()).prop_map(|(class, message)| Error::new(class, message))
}
