//! Cases that have a store each, on every kind of store.

use crate::guest::{Program, Subject};
use crate::runner::Case;
use crate::store::{Store, StoreKind};

/// Cases of one program on one kind of store.
pub(super) struct StoreGroup {
    pub(super) name: String,
    pub(super) program: Program,
    pub(super) kind: StoreKind,
    /// Makes the store of a case.
    pub(super) store: fn(StoreKind) -> anyhow::Result<Store>,
}

impl StoreGroup {
    pub(super) fn case<F>(&self, name: &str, body: impl Fn(Subject, Store) -> F + Send + Sync + Copy + 'static) -> Case
    where
        F: Future<Output = anyhow::Result<()>> + 'static,
    {
        let Self { name: group, program, kind, store } = self;
        let (kind, store) = (*kind, *store);
        let body = move |subject| async move { body(subject, store(kind)?).await };
        Case::new(group, name, *program, body).needs(kind.server())
    }
}

/// Cases with these bodies, each in each of the groups. A body gets its program and its store as a value of this type.
macro_rules! on_stores {
    ($groups:expr, $given:ident; $($body:ident),+ $(,)?) => {
        $groups.into_iter().flat_map(|group: $crate::cases::on_stores::StoreGroup| {
            [$(group.case(stringify!($body), |subject, store| $body($given { subject, store }))),+]
        })
    };
}
pub(super) use on_stores;
