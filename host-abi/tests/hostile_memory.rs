//! Whatever a guest passes, keeps in its memory or answers from its allocator, it gets an answer or a trap that
//! names the function and the argument, and the host holds no more than the guest's memory could.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use host_abi::canonical::{
    AbiError, AbiType, CoreType, CoreValue, Fault, FlatValues, GuestMemory, GuestPtr, Lift, OutOfBounds, Source,
    call_export,
};
use host_abi::host_functions::{HostFunction, host_functions};
use host_abi::http::{HANDLE_HTTP_REQUEST, HandleHttpRequest, Headers, Request};
use host_abi::state::{DeleteRequest, GetResponse, Operation, SetRequest, Transaction};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use support::{TestGuest, TestHost, context, finish, grow, host_function};

/// One page of WebAssembly memory.
const PAGE: u32 = 65536;

/// What a call may take from the heap whatever the guest passed: its future, core values, texts of errors.
const OVERHEAD: u64 = 4096;

/// What one question to the store, and its answer, may take.
const ANSWER: u64 = 4096;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_import_answers_or_names_what_is_wrong(
        function in select((0..host_functions().len()).collect::<Vec<_>>()),
        words in vec(word(), 13),
        memory in memory(),
        allocations in allocations(),
    ) {
        let function = &host_functions()[function];
        let arguments = core_values(&function.signature.params, &words);
        let size = memory.0 as u64;
        let mut guest = hostile_guest(memory, allocations);
        let host = Arc::new(TestHost { get: Ok(stored()), ..TestHost::new() });
        let (result, held) = heap::most_held(|| call_import(function, &host, &mut guest, &arguments));
        let answers = host.asked.lock().unwrap().len() as u64 * ANSWER;
        prop_assert!(held <= size + answers + OVERHEAD, "{held} bytes for a guest of {size} and {answers}");
        if let Err(error) = result {
            let text = error.to_string();
            let import = format!("{}.{}: ", function.interface, function.name);
            let mut names = ["parameters", "result", "cabi_realloc"].iter().chain(function.param_names);
            prop_assert!(names.any(|name| text.starts_with(&format!("{import}{name}"))), "{text:?}");
        }
    }

    #[test]
    fn any_response_of_a_handler_is_lifted_or_names_what_is_wrong(
        result in proptest::option::of(any_core_value()),
        memory in memory(),
        allocations in allocations(),
    ) {
        let size = memory.0 as u64;
        let mut guest = hostile_guest(memory, allocations);
        guest.export(HANDLE_HTTP_REQUEST, move |_, _| result);
        let request = Request { uri: "/".to_owned(), headers: pairs(2), ..Request::default() };
        let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request,));
        let (outcome, held) = heap::most_held(|| finish(call_export(&mut guest, &mut call)));
        prop_assert!(held <= size + OVERHEAD, "{held} bytes for a guest of {size}");
        match outcome {
            Ok(()) => prop_assert!(call.into_result().is_some()),
            Err(error) => {
                let text = error.to_string();
                let names = ["result", "cabi_realloc"].map(|name| format!("{HANDLE_HTTP_REQUEST}: {name}"));
                prop_assert!(names.iter().any(|name| text.starts_with(name)), "{text:?}");
            }
        }
    }

    /// An engine checks types and numbers of core values; if one does not, that is no panic either.
    #[test]
    fn core_values_of_another_signature_are_no_panic(
        function in select((0..host_functions().len()).collect::<Vec<_>>()),
        arguments in vec(any_core_value(), 0..16),
        memory in memory(),
    ) {
        let function = &host_functions()[function];
        let mut guest = hostile_guest(memory, vec![None]);
        let _ = call_import(function, &Arc::new(TestHost::new()), &mut guest, &arguments);
    }
}

#[test]
fn errors_name_the_function_the_argument_and_the_fault() {
    for (index, value, expected) in [
        (0, u32::MAX, "name: 5 bytes at 0xffffffff reach past the end of memory (65536 bytes)"),
        (1, u32::MAX, "name: 4294967295 bytes at 0x100 reach past the end of memory (65536 bytes)"),
        (2, 0x8, "req.key: the string at 0x8 is not UTF-8"),
        (4, 2, "req.metadata: discriminant 2 where there are 2 cases"),
        (5, 0x201, "req.metadata: address 0x201 is not aligned to 4 bytes"),
        (5, 0x304, "req.metadata[1].0: the string at 0x8 is not UTF-8"),
        (5, 0x324, "req.metadata[0].1: 3 bytes at 0xffffffff reach past the end of memory (65536 bytes)"),
        (6, u32::MAX, "req.metadata: 68719476720 bytes at 0x200 reach past the end of memory (65536 bytes)"),
        (7, 3, "req.options.consistency: discriminant 3 where there are 3 cases"),
        (8, 0x402, "result: address 0x402 is not aligned to 4 bytes"),
        (8, 0xffd4, "result: 48 bytes at 0xffd4 reach past the end of memory (65536 bytes)"),
    ] {
        let (memory, mut arguments) = well_formed_get();
        arguments[index] = CoreValue::I32(value);
        let host = Arc::new(TestHost::new());
        let trap =
            call_import(host_function("/state-interface.get"), &host, &mut TestGuest::new(memory, grow), &arguments);
        assert_eq!(trap.unwrap_err().to_string(), format!("dapr:state/state-interface.get: {expected}"));
    }
    let (memory, arguments) = well_formed_get();
    let host = Arc::new(TestHost::new());
    let answer =
        call_import(host_function("/state-interface.get"), &host, &mut TestGuest::new(memory, grow), &arguments);
    assert_eq!(answer, Ok(None), "what the traps above start from");
}

#[test]
fn a_result_pointer_outside_memory_traps_before_anyone_is_asked() {
    for function in host_functions() {
        // All zeros is a request of empty strings; an empty name is no store's, so `state` lies at 0.
        let mut arguments = core_values(&function.signature.params, &[0; 13]);
        let mut memory = vec![0; PAGE as usize];
        let name = function.name;
        if function.signature.params.len() == 2 && name != "send" {
            memory[0x100..0x105].copy_from_slice(b"state");
            memory[0..8].copy_from_slice(&[0, 1, 0, 0, 5, 0, 0, 0]);
        } else if name != "send" {
            memory[..5].copy_from_slice(b"state");
            arguments[1] = CoreValue::I32(5);
        }
        let result = arguments.len() - 1;
        for (address, asked) in [(PAGE - 8, 0), (2, 0), (u32::MAX, 0), (0x400, 1)] {
            arguments[result] = CoreValue::I32(address);
            let host = Arc::new(TestHost::new());
            let returned = call_import(function, &host, &mut TestGuest::new(memory.clone(), grow), &arguments);
            // A bulk operation on nothing asks nothing; the one on secrets names none.
            let asks_nothing = name.starts_with("bulk") && function.interface == "dapr:state/state-store";
            let questions = if asks_nothing { 0 } else { asked };
            assert_eq!(host.asked.lock().unwrap().len(), questions, "{name}, result at {address:#x}");
            assert_eq!(returned.is_ok(), asked == 1, "{name}, result at {address:#x}");
        }
    }
}

#[test]
fn parameters_in_memory_are_named_like_those_in_core_values() {
    let set = |memory: Vec<u8>, parameters: u32| {
        let arguments = [CoreValue::I32(parameters), CoreValue::I32(0x400)];
        let host = Arc::new(TestHost::new());
        let trap =
            call_import(host_function("/state-interface.set"), &host, &mut TestGuest::new(memory, grow), &arguments);
        assert!(host.asked.lock().unwrap().is_empty());
        trap.unwrap_err().to_string()
    };
    let page = || vec![0; PAGE as usize];
    let at_the_end = PAGE - <(String, SetRequest)>::SIZE + 4;
    assert_eq!(set(page(), 2), "dapr:state/state-interface.set: parameters: address 0x2 is not aligned to 4 bytes");
    assert_eq!(
        set(page(), at_the_end),
        format!(
            "dapr:state/state-interface.set: parameters: {} bytes at {at_the_end:#x} reach past the end of memory \
             (65536 bytes)",
            <(String, SetRequest)>::SIZE
        )
    );
    let mut memory = page();
    // name and key are empty strings; then comes the address of the value.
    memory[0x10..0x18].copy_from_slice(&[0, 0, 1, 0, 1, 0, 0, 0]);
    assert_eq!(
        set(memory, 0),
        "dapr:state/state-interface.set: req.value: 1 bytes at 0x10000 reach past the end of memory (65536 bytes)"
    );
    let mut memory = page();
    let content_type = <(String, SetRequest)>::SIZE as usize - 12;
    memory[content_type] = 7;
    assert_eq!(
        set(memory, 0),
        "dapr:state/state-interface.set: req.content-type: discriminant 7 where there are 2 cases"
    );
}

#[test]
fn a_handlers_result_is_named_with_its_fields() {
    let respond = |memory: Vec<u8>, result| {
        let mut guest = TestGuest::new(memory, grow);
        guest.export(HANDLE_HTTP_REQUEST, move |_, _| result);
        let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (Request::default(),));
        finish(call_export(&mut guest, &mut call)).unwrap_err().to_string()
    };
    // At 0, status and headers; at 0x20, one header whose name is not UTF-8.
    let mut memory = vec![0; PAGE as usize];
    memory[4] = 1;
    memory[8..16].copy_from_slice(&[0x20, 0, 0, 0, 1, 0, 0, 0]);
    memory[0x20..0x28].copy_from_slice(&[0x40, 0, 0, 0, 1, 0, 0, 0]);
    memory[0x40] = 0xff;
    assert_eq!(
        respond(memory, Some(CoreValue::I32(0))),
        "dapr:http/http-handler#handle-http-request: result.headers[0].0: the string at 0x40 is not UTF-8"
    );
    assert_eq!(
        respond(Vec::new(), Some(CoreValue::I32(0x1000))),
        "dapr:http/http-handler#handle-http-request: result: 28 bytes at 0x1000 reach past the end of memory (0 bytes)"
    );
    assert_eq!(
        respond(Vec::new(), None),
        "dapr:http/http-handler#handle-http-request: result: the core values do not have the declared types"
    );
}

#[test]
fn an_allocator_that_answers_nonsense_is_named() {
    for (address, expected) in [
        (PAGE - 3, "4 bytes at 0xfffd reach past the end of memory (65536 bytes)"),
        (u32::MAX, "4 bytes at 0xffffffff reach past the end of memory (65536 bytes)"),
    ] {
        let (memory, arguments) = well_formed_get();
        let host = Arc::new(TestHost { get: Ok(stored()), ..TestHost::new() });
        let mut guest = TestGuest::new(memory, move |_, _, _| address);
        let trap = call_import(host_function("/state-interface.get"), &host, &mut guest, &arguments);
        assert_eq!(trap.unwrap_err().to_string(), format!("dapr:state/state-interface.get: cabi_realloc: {expected}"));
    }
    let mut guest = TestGuest::new(vec![0; PAGE as usize], |_, align, _| align + 1);
    let request = Request { headers: pairs(1), ..Request::default() };
    let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request,));
    let trap = finish(call_export(&mut guest, &mut call));
    assert_eq!(
        trap.unwrap_err().to_string(),
        "dapr:http/http-handler#handle-http-request: cabi_realloc: address 0x5 is not aligned to 4 bytes"
    );
}

#[test]
fn an_allocator_that_answers_null_harms_only_its_guest() {
    let (memory, arguments) = well_formed_get();
    let host = Arc::new(TestHost { get: Ok(stored()), ..TestHost::new() });
    let mut guest = TestGuest::new(memory, |_, _, _| 0);
    assert_eq!(call_import(host_function("/state-interface.get"), &host, &mut guest, &arguments), Ok(None));
}

#[test]
fn memory_that_grows_while_a_result_is_placed_is_used() {
    let (memory, arguments) = well_formed_get();
    let host = Arc::new(TestHost { get: Ok(stored()), ..TestHost::new() });
    let mut guest = TestGuest::new(memory, grow);
    assert_eq!(call_import(host_function("/state-interface.get"), &host, &mut guest, &arguments), Ok(None));
    assert!(guest.memory.len() > PAGE as usize);
    let answer = Result::<GetResponse, String>::load(&mut Source::new(&guest), GuestPtr(0x400));
    assert_eq!(answer, Ok(Ok(stored())));
}

/// 1000 headers whose names and values are all the same 1000 bytes.
#[test]
fn lists_that_share_their_bytes_are_refused_before_they_add_up() {
    let pair = [0_u32, 1000, 0, 1000].map(u32::to_le_bytes).concat();
    let mut memory = vec![b'x'; PAGE as usize];
    memory[0x8000..0x8000 + 16_000].copy_from_slice(&pair.repeat(1000));
    let values = [CoreValue::I32(0x8000), CoreValue::I32(1000)];
    let (lifted, held) =
        heap::most_held(|| Headers::lift(&mut Source::new(&memory), &mut FlatValues::new(&values)).unwrap_err());
    assert_eq!(lifted.fault, Fault::Overlapping { memory: u64::from(PAGE) });
    assert_eq!(
        lifted.to_string(),
        "[8].1: its parts overlap or are too many: holding them takes more than the whole memory (65536 bytes)"
    );
    assert!(held <= u64::from(PAGE) + OVERHEAD, "{held} bytes");
}

/// An empty pair takes 16 bytes in the guest and three times as many in the host.
#[test]
fn a_list_that_the_host_needs_more_room_for_than_the_guest_is_refused_before_it_is_allocated() {
    let memory = vec![0; PAGE as usize];
    let lift = |length| {
        let values = [CoreValue::I32(0), CoreValue::I32(length)];
        Headers::lift(&mut Source::new(&memory), &mut FlatValues::new(&values))
    };
    let fits = PAGE / size_of::<(String, String)>() as u32;
    assert_eq!(lift(fits).unwrap().len(), fits as usize);
    let (refused, held) = heap::most_held(|| lift(fits + 1));
    assert_eq!(refused.unwrap_err().fault, Fault::Overlapping { memory: u64::from(PAGE) });
    assert!(held <= OVERHEAD, "{held} bytes");
}

#[test]
fn the_name_of_a_store_is_not_repeated_at_any_length() {
    let length = 16 * PAGE;
    let mut memory = vec![1; length as usize + 0x400];
    memory[length as usize..].fill(0);
    let (_, mut arguments) = well_formed_get();
    arguments[0] = CoreValue::I32(0);
    arguments[1] = CoreValue::I32(length);
    arguments[2] = CoreValue::I32(0);
    arguments[4] = CoreValue::I32(0);
    arguments[8] = CoreValue::I32(length);
    let host = Arc::new(TestHost::new());
    let size = memory.len() as u64;
    memory.reserve(PAGE as usize);
    let mut guest = TestGuest::new(memory, grow);
    let (answer, held) =
        heap::most_held(|| call_import(host_function("/state-interface.get"), &host, &mut guest, &arguments));
    assert_eq!(answer, Ok(None));
    assert!(held <= size + OVERHEAD, "{held} bytes");
}

/// All 4 GiB that a guest can have, every byte zero, at the cost of none.
struct WholeAddressSpace;

impl GuestMemory for WholeAddressSpace {
    fn size(&self) -> u64 {
        1 << 32
    }

    fn read(&self, address: GuestPtr, into: &mut [u8]) -> Result<(), OutOfBounds> {
        if u64::from(address.0) + into.len() as u64 > self.size() {
            return Err(OutOfBounds);
        }
        into.fill(0);
        Ok(())
    }

    fn write(&mut self, _: GuestPtr, _: &[u8]) -> Result<(), OutOfBounds> {
        unreachable!("lifting does not write")
    }
}

#[test]
fn metadata_of_a_transaction_is_not_repeated_at_any_length() {
    let operations = vec![Operation::Delete(DeleteRequest::default()); 10_000];
    let metadata = Some(vec![("name".to_owned(), "long".repeat(25_000))]);
    let transaction = Transaction { operations, metadata };
    let (refused, held) = heap::most_held(|| transaction.into_operations());
    let expected =
        "invalid-argument: metadata of 100052 bytes for each of 10000 operations is more than 16777216 bytes";
    assert_eq!(refused.unwrap_err().to_string(), expected);
    assert!(held <= OVERHEAD, "{held} bytes");
}

#[test]
fn nothing_overflows_at_the_end_of_four_gibibytes() {
    fn lift<T: Lift>(address: u32, length: u32) -> Result<T, Fault> {
        let values = [CoreValue::I32(address), CoreValue::I32(length)];
        T::lift(&mut Source::new(&WholeAddressSpace), &mut FlatValues::new(&values)).map_err(|error| error.fault)
    }
    let past_the_end = |address, bytes| Fault::OutOfBounds { address: GuestPtr(address), bytes, memory: 1 << 32 };
    assert_eq!(lift::<Headers>(0xffff_ffe0, 2), Ok(vec![(String::new(), String::new()); 2]));
    assert_eq!(lift::<Headers>(0xffff_ffe0, 3), Err(past_the_end(0xffff_ffe0, 48)));
    assert_eq!(lift::<Headers>(0, u32::MAX), Err(past_the_end(0, 16 * u64::from(u32::MAX))));
    // 2^28 pairs fill the guest's memory; the host would need three times as much.
    assert_eq!(lift::<Headers>(0, 1 << 28), Err(Fault::Overlapping { memory: 1 << 32 }));
    // In 32 bits these lengths come to no bytes at all.
    assert_eq!(lift::<Headers>(16, 1 << 28), Err(past_the_end(16, 1 << 32)));
    assert_eq!(lift::<Vec<u64>>(0xffff_fff8, 1), Ok(vec![0]));
    assert_eq!(lift::<Vec<u64>>(0xffff_fff8, 1 << 29), Err(past_the_end(0xffff_fff8, 1 << 32)));
    assert_eq!(lift::<String>(u32::MAX, 1), Ok("\0".to_owned()));
    assert_eq!(lift::<Bytes>(u32::MAX, u32::MAX), Err(past_the_end(u32::MAX, u64::from(u32::MAX))));
    let address = GuestPtr(0xffff_fffc);
    assert_eq!(Source::new(&WholeAddressSpace).check(address, 28, 4), Err(past_the_end(address.0, 28)));
}

#[test]
fn an_empty_list_has_an_aligned_address_in_memory_too() {
    let memory = vec![0; 64];
    let lift = |address| {
        let values = [CoreValue::I32(address), CoreValue::I32(0)];
        Headers::lift(&mut Source::new(&memory), &mut FlatValues::new(&values)).map_err(|error| error.fault)
    };
    assert_eq!(lift(64), Ok(Vec::new()));
    assert_eq!(lift(2), Err(Fault::Misaligned { address: GuestPtr(2), align: 4 }));
    assert_eq!(lift(68), Err(Fault::OutOfBounds { address: GuestPtr(68), bytes: 0, memory: 64 }));
}

fn call_import(
    function: &HostFunction,
    host: &Arc<TestHost>,
    guest: &mut TestGuest,
    arguments: &[CoreValue],
) -> Result<Option<CoreValue>, AbiError> {
    finish(function.call(context(host), guest, arguments))
}

/// A page of memory and the arguments of a `get` in it that is answered: store `state` at 0x100, key at 0x110,
/// two pairs of metadata at 0x200, space for the result at 0x400. At 0x8 a byte that is not UTF-8; at 0x304 and
/// 0x324 two pairs with a fault.
fn well_formed_get() -> (Vec<u8>, Vec<CoreValue>) {
    let mut memory = vec![0; PAGE as usize];
    let mut put = |at: usize, words: &[u32]| {
        for (at, word) in (at..).step_by(4).zip(words) {
            memory[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
    };
    put(0x8, &[0xff]);
    put(0x200, &[0x110, 3, 0x110, 3, 0x110, 3, 0x110, 3]);
    put(0x304, &[0x110, 3, 0x110, 3, 0x8, 1, 0x110, 3]);
    put(0x324, &[0x110, 3, u32::MAX, 3]);
    memory[0x100..0x105].copy_from_slice(b"state");
    memory[0x110..0x113].copy_from_slice(b"key");
    let arguments = [0x100, 5, 0x110, 3, 1, 0x200, 2, 0, 0x400];
    (memory, arguments.map(CoreValue::I32).to_vec())
}

fn stored() -> GetResponse {
    GetResponse {
        data: "data".into(),
        etag: Some("etag".to_owned()),
        metadata: Some(pairs(2)),
        content_type: Some("text/plain".to_owned()),
    }
}

fn pairs(count: usize) -> Headers {
    vec![("name".to_owned(), "value".to_owned()); count]
}

/// What is likely to mean something: discriminants and lengths, addresses with and without alignment, the ends.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..4_u32,
        4 => (0..PAGE / 4).prop_map(|word| word * 4),
        2 => 0..PAGE,
        1 => PAGE - 64..PAGE + 64,
        1 => any::<u32>(),
        1 => u32::MAX - 16..=u32::MAX,
    ]
}

/// A size of at most a page, and the words that it is full of, over and over.
fn memory() -> impl Strategy<Value = (usize, Vec<u32>)> {
    (prop_oneof![4 => Just(PAGE as usize), 1 => 0..256_usize], vec(word(), 1..32))
}

/// What `cabi_realloc` answers in turn: an address, or that of new memory.
fn allocations() -> impl Strategy<Value = Vec<Option<u32>>> {
    vec(proptest::option::weighted(0.7, word()), 1..4)
}

fn hostile_guest((size, words): (usize, Vec<u32>), allocations: Vec<Option<u32>>) -> TestGuest {
    let pattern: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut memory = pattern.repeat(size.div_ceil(pattern.len()));
    memory.truncate(size);
    // What the guest grows by is not the host's: there is room for it from the start.
    memory.reserve(PAGE as usize);
    let mut answers = allocations.into_iter().cycle();
    TestGuest::new(memory, move |memory, align, size| {
        let room = memory.capacity() - memory.len();
        match answers.next().flatten() {
            None if (align + size) as usize <= room => grow(memory, align, size),
            answer => answer.unwrap_or(0),
        }
    })
}

fn any_core_value() -> impl Strategy<Value = CoreValue> {
    prop_oneof![4 => word().prop_map(CoreValue::I32), 1 => any::<u64>().prop_map(CoreValue::I64)]
}

fn core_values(types: &[CoreType], words: &[u32]) -> Vec<CoreValue> {
    assert!(types.len() <= words.len());
    let value = |(core, word): (&CoreType, &u32)| CoreValue::I32(*word).widen(*core);
    types.iter().zip(words).map(value).collect()
}

/// Counts what each thread holds of the heap.
mod heap {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static HELD: Cell<i64> = const { Cell::new(0) };
        static MOST_HELD: Cell<i64> = const { Cell::new(0) };
    }

    struct Counting;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    // SAFETY: every call goes to the system's allocator unchanged.
    #[expect(unsafe_code, reason = "a global allocator cannot be written without")]
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size() as i64);
            // SAFETY: the caller's promises are passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            count(layout.size() as i64);
            // SAFETY: as above.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            count(-(layout.size() as i64));
            // SAFETY: as above.
            unsafe { System.dealloc(block, layout) }
        }
    }

    fn count(bytes: i64) {
        let held = HELD.get() + bytes;
        HELD.set(held);
        MOST_HELD.set(MOST_HELD.get().max(held));
    }

    /// The most bytes that this thread held at once during `work`, beyond what it held before.
    pub(crate) fn most_held<T>(work: impl FnOnce() -> T) -> (T, u64) {
        let before = HELD.get();
        MOST_HELD.set(before);
        let result = work();
        (result, u64::try_from(MOST_HELD.get() - before).unwrap_or(0))
    }
}
