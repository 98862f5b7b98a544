//! Calls into a guest.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use super::layout::{CoreValue, MAX_FLAT_RESULTS};
use super::lift::{FlatValues, Lift, Source};
use super::lower::{Lower, Lowered};
use super::memory::{AbiError, Fault, GuestLen, GuestMemory, GuestPtr};

/// A running guest, as a host function meets it. An engine may keep it on one thread: nothing here need be `Send`.
pub trait Guest: GuestMemory + Sized {
    /// Whatever ends the guest: a trap of its own, or an [`AbiError`].
    type Error: From<AbiError>;

    /// Calls `cabi_realloc(0, 0, align, size)`. The address comes from the guest: the caller checks it.
    fn allocate(&mut self, align: u32, size: GuestLen) -> impl Future<Output = Result<GuestPtr, Self::Error>>;
}

/// A guest that is not running, so that its exports can be called.
pub trait GuestExports: Guest {
    /// Whether there is an exported function of this name.
    fn has_function(&mut self, export: &str) -> bool;

    /// Calls an exported function of at most one result. One that does not exist, or has another type, is an error.
    fn call(
        &mut self,
        export: &str,
        params: &[CoreValue],
    ) -> impl Future<Output = Result<Option<CoreValue>, Self::Error>>;
}

/// A call of an exported function, its types hidden from the engine that makes it.
pub trait ExportCall: Send {
    /// The export's name, such as `dapr:http/http-handler#handle-http-request`.
    fn export(&self) -> &'static str;

    /// Takes the parameters; called once.
    fn lower(&mut self) -> Lowered;

    /// Takes the result out of the guest; called once, after the call returned.
    fn lift(&mut self, memory: &dyn GuestMemory, result: Option<CoreValue>) -> Result<(), AbiError>;

    /// This call for another thread, which lowers and lifts in its place. The result arrives here.
    fn detach(&mut self) -> Box<dyn ExportCall>;
}

/// Makes the call: lowers and places the parameters, calls, lifts the result, and lets the guest free it
/// through `cabi_post_…` where it exports that.
pub async fn call_export<G: GuestExports>(guest: &mut G, call: &mut dyn ExportCall) -> Result<(), G::Error> {
    let export = call.export();
    let params = call.lower().place(guest, None, export).await?;
    let result = guest.call(export, &params).await?;
    call.lift(guest, result).map_err(|error| error.inside("result").of_function(export))?;
    let post_return = format!("cabi_post_{export}");
    if guest.has_function(&post_return) {
        guest.call(&post_return, result.as_slice()).await?;
    }
    Ok(())
}

/// An [`ExportCall`] with parameters `P` (a tuple) and result `R`.
pub struct TypedCall<P, R> {
    export: &'static str,
    params: Option<P>,
    /// Shared with the detached call.
    result: Arc<Mutex<Option<R>>>,
}

impl<P: Lower, R: Lift> TypedCall<P, R> {
    pub fn new(export: &'static str, params: P) -> Self {
        Self { export, params: Some(params), result: Arc::default() }
    }

    /// The result, once the call was made.
    pub fn into_result(self) -> Option<R> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<P: Lower + Send + 'static, R: Lift + Send + 'static> ExportCall for TypedCall<P, R> {
    fn export(&self) -> &'static str {
        self.export
    }

    fn lower(&mut self) -> Lowered {
        match self.params.take() {
            Some(params) => Lowered::params(params),
            None => unreachable!("the parameters of a call are lowered once"),
        }
    }

    fn lift(&mut self, memory: &dyn GuestMemory, result: Option<CoreValue>) -> Result<(), AbiError> {
        let mut source = Source::new(memory);
        let mut flat = FlatValues::new(result.as_slice());
        let value = if R::FLAT_LEN <= MAX_FLAT_RESULTS {
            R::lift(&mut source, &mut flat)?
        } else {
            let Some(CoreValue::I32(address)) = result else {
                return Err(Fault::Signature.into());
            };
            source.check(GuestPtr(address), u64::from(R::SIZE), R::ALIGN)?;
            R::load(&mut source, GuestPtr(address))?
        };
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    fn detach(&mut self) -> Box<dyn ExportCall> {
        Box::new(Self { export: self.export, params: self.params.take(), result: Arc::clone(&self.result) })
    }
}
