//! `poll_oneoff`, mended: wasmer-wasix waits for ever for a clock that is due at once (a timeout of 0), and measures
//! absolute wall clock times on the monotonic clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasmer::{AsStoreMut, Extern, Function, FunctionEnvMut, Imports, RuntimeError, TypedFunction};
use wasmer_wasix::{WasiEnv, WasiFunctionEnv};

const INTERFACE: &str = "wasi_snapshot_preview1";
const NAME: &str = "poll_oneoff";

/// `subscription` of `wasi_snapshot_preview1.witx`, and where its parts are.
type Subscription = [u8; 48];
const TAG: usize = 8;
const CLOCK_ID: usize = 16;
const TIMEOUT: usize = 24;
const FLAGS: usize = 40;

const TAG_CLOCK: u8 = 0;
const CLOCK_REALTIME: u8 = 0;
const ABSOLUTE: u8 = 1;

/// Puts itself before wasmer-wasix's own.
pub(super) fn link(store: &mut impl AsStoreMut, imports: &mut Imports, wasi: &WasiFunctionEnv) {
    let Some(Extern::Function(original)) = imports.get_export(INTERFACE, NAME) else {
        unreachable!("wasmer-wasix has all of WASI preview 1");
    };
    let original: TypedFunction<(u32, u32, u32, u32), i32> = match original.typed(store) {
        Ok(original) => original,
        Err(error) => unreachable!("its types are WASI's: {error}"),
    };
    let poll = move |mut guest: FunctionEnvMut<'_, WasiEnv>, wanted: u32, events: u32, count: u32, seen: u32| {
        mend_all(&guest, wanted, count);
        original.call(&mut guest, wanted, events, count, seen) as Result<i32, RuntimeError>
    };
    imports.define(INTERFACE, NAME, Function::new_typed_with_env(store, &wasi.env, poll));
}

/// What cannot be read is the original's to refuse.
fn mend_all(guest: &FunctionEnvMut<'_, WasiEnv>, wanted: u32, count: u32) {
    let Some(memory) = guest.data().try_memory_view(guest) else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for index in 0..u64::from(count) {
        let address = u64::from(wanted) + index * size_of::<Subscription>() as u64;
        let mut subscription = [0; size_of::<Subscription>()];
        if memory.read(address, &mut subscription).is_err() {
            return;
        }
        if subscription[TAG] == TAG_CLOCK {
            mend(&mut subscription, now);
            let _ = memory.write(address, &subscription);
        }
    }
}

fn mend(clock: &mut Subscription, now: Duration) {
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
