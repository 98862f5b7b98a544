//! Functions of wasmer-wasix that do not do what WASI says: each is put right before it is called.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasmer::{AsStoreMut, Extern, Function, FunctionEnvMut, Imports, TypedFunction, WasmTypeList};
use wasmer_wasix::{WasiEnv, WasiFunctionEnv};

use crate::wasi_preview1::{MODULE, errno};

/// What a guest can wait for at the same time. For each, the host keeps a little.
const MOST_SUBSCRIPTIONS: u32 = 1 << 16;

pub(super) fn link(store: &mut impl AsStoreMut, imports: &mut Imports, wasi: &WasiFunctionEnv) {
    poll_oneoff(store, imports, wasi);
    path_link(store, imports);
    path_remove_directory(store, imports, wasi);
}

/// A function as wasmer-wasix has it; it answers an error number.
pub(super) fn original<Params: WasmTypeList>(
    store: &impl AsStoreMut,
    imports: &Imports,
    name: &str,
) -> TypedFunction<Params, i32> {
    match imports.get_export(MODULE, name) {
        Some(Extern::Function(function)) => match function.typed(store) {
            Ok(function) => function,
            Err(error) => unreachable!("the types of {name} are WASI's: {error}"),
        },
        _ => unreachable!("wasmer-wasix has all of WASI preview 1"),
    }
}

/// It makes links that only the guest itself sees, and only until it ends. None at all is less of a surprise.
fn path_link(store: &mut impl AsStoreMut, imports: &mut Imports) {
    let refuse = |_: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32| errno::NOTSUP;
    imports.define(MODULE, "path_link", Function::new_typed(store, refuse));
}

/// Parameters of `path_filestat_set_times`.
type SetTimes = (u32, u32, u32, u32, u64, u64, u32);

/// It removes only directories that the guest named before. Setting none of a path's times names it.
fn path_remove_directory(store: &mut impl AsStoreMut, imports: &mut Imports, wasi: &WasiFunctionEnv) {
    let name = "path_remove_directory";
    let remove: TypedFunction<(u32, u32, u32), i32> = original(store, imports, name);
    let set_times = original::<SetTimes>(store, imports, "path_filestat_set_times");
    let mended = move |mut guest: FunctionEnvMut<'_, WasiEnv>, fd: u32, path: u32, length: u32| {
        set_times.call(&mut guest, fd, 0, path, length, 0, 0, 0)?;
        remove.call(&mut guest, fd, path, length)
    };
    imports.define(MODULE, name, Function::new_typed_with_env(store, &wasi.env, mended));
}

/// It waits for ever for a clock that is due at once (a timeout of 0), and measures absolute wall clock times on the
/// monotonic clock.
fn poll_oneoff(store: &mut impl AsStoreMut, imports: &mut Imports, wasi: &WasiFunctionEnv) {
    let name = "poll_oneoff";
    let poll: TypedFunction<(u32, u32, u32, u32), i32> = original(store, imports, name);
    let mended = move |mut guest: FunctionEnvMut<'_, WasiEnv>, wanted: u32, events: u32, count: u32, seen: u32| {
        if count > MOST_SUBSCRIPTIONS {
            return Ok(errno::INVAL);
        }
        let unmended = mend_clocks(&guest, wanted, count);
        let polled = poll.call(&mut guest, wanted, events, count, seen);
        restore(&guest, &unmended, events, count);
        polled
    };
    imports.define(MODULE, name, Function::new_typed_with_env(store, &wasi.env, mended));
}

/// `subscription` of `wasi_snapshot_preview1.witx`, and where its parts are.
type Subscription = [u8; 48];
const TAG: usize = 8;
const CLOCK_ID: usize = 16;
const TIMEOUT: usize = 24;
const FLAGS: usize = 40;
/// Bytes of an `event`.
const EVENT: u64 = 32;

const TAG_CLOCK: u8 = 0;
const CLOCK_REALTIME: u8 = 0;
const ABSOLUTE: u8 = 1;

/// Answers what was there before, by its address. What cannot be read is for `poll_oneoff` to refuse.
fn mend_clocks(guest: &FunctionEnvMut<'_, WasiEnv>, wanted: u32, count: u32) -> Vec<(u64, Subscription)> {
    let mut unmended = Vec::new();
    let Some(memory) = guest.data().try_memory_view(guest) else { return unmended };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for index in 0..u64::from(count) {
        let address = u64::from(wanted) + index * size_of::<Subscription>() as u64;
        let mut subscription = [0; size_of::<Subscription>()];
        if memory.read(address, &mut subscription).is_err() {
            break;
        }
        if subscription[TAG] == TAG_CLOCK {
            let before = subscription;
            mend_clock(&mut subscription, now);
            if subscription != before && memory.write(address, &subscription).is_ok() {
                unmended.push((address, before));
            }
        }
    }
    unmended
}

/// The subscriptions are the guest's, which may use them again; where its events lie now, they are gone.
fn restore(guest: &FunctionEnvMut<'_, WasiEnv>, unmended: &[(u64, Subscription)], events: u32, count: u32) {
    let Some(memory) = guest.data().try_memory_view(guest) else { return };
    let events = u64::from(events)..u64::from(events) + u64::from(count) * EVENT;
    for (address, subscription) in unmended {
        if address + size_of::<Subscription>() as u64 <= events.start || events.end <= *address {
            let _ = memory.write(*address, subscription);
        }
    }
}

fn mend_clock(clock: &mut Subscription, now: Duration) {
    let mut timeout = u64::from_le_bytes(*field(clock, TIMEOUT));
    if clock[CLOCK_ID] == CLOCK_REALTIME && clock[FLAGS] & ABSOLUTE != 0 {
        timeout = timeout.saturating_sub(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        clock[FLAGS] &= !ABSOLUTE;
    }
    *field(clock, TIMEOUT) = timeout.max(1).to_le_bytes();
}

fn field<const N: usize>(clock: &mut Subscription, at: usize) -> &mut [u8; N] {
    match clock[at..].first_chunk_mut() {
        Some(field) => field,
        None => unreachable!("the fields lie in the subscription"),
    }
}
