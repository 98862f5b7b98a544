//! The Rust declarations say what the WIT files say, as `wit-parser` reads them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use host_abi::canonical::{AbiType, CoreType, Signature};
use host_abi::host_functions::host_functions;
use host_abi::http::{HANDLE_HTTP_REQUEST, Headers, HttpError, Method, Request, Response};
use host_abi::secrets::{self, Redacted, SecretError};
use host_abi::state::{
    BulkError, Concurrency, Consistency, DeleteRequest, GetOptions, GetRequest, GetResponse, ItemError, Metadata,
    Operation, SetRequest, StoreError, Transaction, WriteOptions,
};
use wit_parser::abi::{AbiVariant, FlatTypes, WasmType};
use wit_parser::{
    Function, InterfaceId, LiftLowerAbi, ManglingAndAbi, Resolve, SizeAlign, Type, TypeDefKind, WasmExport,
    WasmExportKind, WasmImport, World, WorldItem, WorldKey,
};

const STATE_INTERFACE: &str = "dapr:state/state-interface";
const CORE_MODULE: ManglingAndAbi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);

#[test]
fn the_table_is_what_both_worlds_import() {
    let wit = Wit::of_the_crate();
    let table: BTreeMap<_, _> = host_functions()
        .iter()
        .map(|function| {
            let import = (function.interface.to_owned(), function.name.to_owned());
            (import, (function.param_names.join(" "), function.signature.clone()))
        })
        .collect();
    for world in ["command-guest", "http-guest"] {
        assert_eq!(table, wit.imports(world), "imports of world {world}");
    }
}

#[test]
fn the_handler_is_what_the_http_world_exports() {
    let wit = Wit::of_the_crate();
    // The result is more than one core value: its address.
    let signature = Signature { params: <(Request,)>::flat(), results: vec![CoreType::I32] };
    let handler = BTreeMap::from([(HANDLE_HTTP_REQUEST.to_owned(), signature)]);
    assert_eq!(wit.exports("http-guest", || WasmExportKind::Normal), handler);
    assert_eq!(wit.exports("command-guest", || WasmExportKind::Normal), BTreeMap::new());
}

#[test]
fn a_guest_frees_a_response_under_the_name_the_wit_gives_it() {
    let post_returns = Wit::of_the_crate().exports("http-guest", || WasmExportKind::PostReturn);
    let names: Vec<_> = post_returns.into_keys().collect();
    assert_eq!(names, ["cabi_post_dapr:http/http-handler#handle-http-request"]);
}

#[test]
fn the_original_signatures_never_change() {
    use CoreType::I32;
    let signature = |name: &str| {
        let mut original = host_functions().iter().filter(|function| function.interface == STATE_INTERFACE);
        let function = original.find(|function| function.name == name).unwrap();
        (function.signature.params.clone(), function.signature.results.clone())
    };
    assert_eq!(signature("get"), (vec![I32; 9], vec![]));
    assert_eq!(signature("set"), (vec![I32; 2], vec![]));
    assert_eq!(signature("delete"), (vec![I32; 13], vec![]));
    assert_eq!(<Result<GetResponse, String>>::SIZE, 48);
    assert_eq!(<Result<u32, String>>::SIZE, 12);
}

#[test]
fn every_type_lies_in_memory_as_the_wit_says() {
    let declared = BTreeMap::from([
        ("dapr:http/types.headers", Layout::of::<Headers>()),
        ("dapr:http/types.http-error", Layout::of::<HttpError>()),
        ("dapr:http/types.method", Layout::of::<Method>()),
        ("dapr:http/types.request", Layout::of::<Request>()),
        ("dapr:http/types.response", Layout::of::<Response>()),
        ("dapr:secrets/secret-store.error", Layout::of::<SecretError>()),
        ("dapr:secrets/secret-store.get-request", Layout::of::<secrets::GetRequest>()),
        ("dapr:secrets/secret-store.metadata", Layout::of::<Metadata>()),
        ("dapr:secrets/secret-store.secret", Layout::of::<Vec<(String, Redacted)>>()),
        ("dapr:state/state-interface.concurrency", Layout::of::<Concurrency>()),
        ("dapr:state/state-interface.consistency", Layout::of::<Consistency>()),
        ("dapr:state/state-interface.delete-request", Layout::of::<DeleteRequest>()),
        ("dapr:state/state-interface.get-options", Layout::of::<GetOptions>()),
        ("dapr:state/state-interface.get-request", Layout::of::<GetRequest>()),
        ("dapr:state/state-interface.get-response", Layout::of::<GetResponse>()),
        ("dapr:state/state-interface.metadata", Layout::of::<Metadata>()),
        ("dapr:state/state-interface.set-request", Layout::of::<SetRequest>()),
        ("dapr:state/state-interface.write-options", Layout::of::<WriteOptions>()),
        ("dapr:state/state-store.bulk-error", Layout::of::<BulkError>()),
        ("dapr:state/state-store.error", Layout::of::<StoreError>()),
        ("dapr:state/state-store.item-error", Layout::of::<ItemError>()),
        ("dapr:state/state-store.operation", Layout::of::<Operation>()),
        ("dapr:state/state-store.transaction", Layout::of::<Transaction>()),
    ]);
    let wit = Wit::of_the_crate();
    let types = wit.types();
    let parsed = types.iter().map(|(name, ty)| (name.as_str(), wit.layout(ty))).collect();
    assert_eq!(declared, parsed);
}

#[test]
fn parameters_and_results_lie_in_memory_as_the_wit_says() {
    type Secret = Vec<(String, Redacted)>;
    type Secrets = Result<Vec<(String, Secret)>, SecretError>;
    type BulkRead = Result<Vec<Result<GetResponse, StoreError>>, StoreError>;
    type BulkWrite = Result<(), BulkError>;
    type Write = Result<(), StoreError>;
    let declared = BTreeMap::from([
        ("http-client.send", Layout::of_function::<(Request,), Result<Response, HttpError>>()),
        ("http-handler.handle-http-request", Layout::of_function::<(Request,), Response>()),
        ("secret-store.bulk-get", Layout::of_function::<(String, Option<Metadata>), Secrets>()),
        ("secret-store.get", Layout::of_function::<(String, secrets::GetRequest), Result<Secret, SecretError>>()),
        ("state-interface.delete", Layout::of_function::<(String, DeleteRequest), Result<u32, String>>()),
        ("state-interface.get", Layout::of_function::<(String, GetRequest), Result<GetResponse, String>>()),
        ("state-interface.set", Layout::of_function::<(String, SetRequest), Result<u32, String>>()),
        ("state-store.bulk-delete", Layout::of_function::<(String, Vec<DeleteRequest>), BulkWrite>()),
        ("state-store.bulk-get", Layout::of_function::<(String, Vec<GetRequest>), BulkRead>()),
        ("state-store.bulk-set", Layout::of_function::<(String, Vec<SetRequest>), BulkWrite>()),
        ("state-store.delete", Layout::of_function::<(String, DeleteRequest), Write>()),
        ("state-store.get", Layout::of_function::<(String, GetRequest), Result<GetResponse, StoreError>>()),
        ("state-store.set", Layout::of_function::<(String, SetRequest), Write>()),
        ("state-store.transact", Layout::of_function::<(String, Transaction), Write>()),
    ]);
    let wit = Wit::of_the_crate();
    let parsed = wit
        .functions()
        .map(|(interface, function)| {
            let params: Vec<Type> = function.params.iter().map(|param| param.ty).collect();
            let result = wit.layout(&function.result.expect("every function has a result"));
            (format!("{interface}.{}", function.name), (wit.tuple_layout(&params), result))
        })
        .collect::<BTreeMap<_, _>>();
    let parsed = parsed.iter().map(|(name, layouts)| (name.as_str(), layouts)).collect::<BTreeMap<_, _>>();
    assert_eq!(declared.iter().map(|(name, layouts)| (*name, layouts)).collect::<BTreeMap<_, _>>(), parsed);
}

/// Sizes do not tell two fields of one type apart, nor the cases of an enum.
#[test]
fn fields_and_cases_stand_in_the_order_of_the_wit() {
    let error = || StoreError::EtagMismatch(String::new());
    let every_error = [
        StoreError::EtagMismatch,
        StoreError::EtagInvalid,
        StoreError::NotFound,
        StoreError::InvalidArgument,
        StoreError::Unavailable,
        StoreError::PermissionDenied,
        StoreError::Internal,
    ]
    .map(|case| case(String::new()));
    let every_secret_error = [
        SecretError::NotFound,
        SecretError::InvalidArgument,
        SecretError::Unavailable,
        SecretError::PermissionDenied,
        SecretError::Internal,
    ]
    .map(|case| case(String::new()));
    let declared = BTreeMap::from([
        ("dapr:http/types.http-error", cases(HttpError::CASES)),
        ("dapr:http/types.method", cases(Method::CASES)),
        ("dapr:http/types.request", fields(&Request::default())),
        ("dapr:http/types.response", fields(&Response::default())),
        ("dapr:secrets/secret-store.error", cases(&every_secret_error)),
        ("dapr:secrets/secret-store.get-request", fields(&secrets::GetRequest::default())),
        ("dapr:state/state-interface.concurrency", cases(Concurrency::CASES)),
        ("dapr:state/state-interface.consistency", cases(Consistency::CASES)),
        ("dapr:state/state-interface.delete-request", fields(&DeleteRequest::default())),
        ("dapr:state/state-interface.get-options", fields(&GetOptions::default())),
        ("dapr:state/state-interface.get-request", fields(&GetRequest::default())),
        ("dapr:state/state-interface.get-response", fields(&GetResponse::default())),
        ("dapr:state/state-interface.set-request", fields(&SetRequest::default())),
        ("dapr:state/state-interface.write-options", fields(&WriteOptions::default())),
        ("dapr:state/state-store.bulk-error", cases(&[BulkError::Store(error()), BulkError::Items(Vec::new())])),
        ("dapr:state/state-store.error", cases(&every_error)),
        ("dapr:state/state-store.item-error", fields(&ItemError { key: String::new(), error: error() })),
        (
            "dapr:state/state-store.operation",
            cases(&[Operation::Upsert(SetRequest::default()), Operation::Delete(DeleteRequest::default())]),
        ),
        ("dapr:state/state-store.transaction", fields(&Transaction::default())),
    ]);
    let wit = Wit::of_the_crate();
    let types = wit.types();
    let parsed = types.iter().filter_map(|(name, ty)| Some((name.as_str(), wit.parts(ty)?))).collect();
    assert_eq!(declared, parsed);
}

/// No interface has a `u64` or a nested variant yet; the canonical ABI under them does.
#[test]
fn types_that_no_interface_uses_yet_follow_the_canonical_abi_too() {
    let wit = Wit::new(|resolve| {
        let text = "package test:types;
            interface types {
                type a = result<u64, u32>;
                type b = result<string, u64>;
                type c = option<tuple<u8, u64>>;
                type d = result<result<u64, u32>, string>;
                type e = result<u8, result<u16, tuple<u32, u64>>>;
                type f = tuple<u8, tuple<u16, u8>>;
                type g = option<option<u16>>;
                type h = list<option<u64>>;
            }";
        resolve.push_str("types.wit", text).unwrap();
    });
    let declared = BTreeMap::from([
        ("test:types/types.a", Layout::of::<Result<u64, u32>>()),
        ("test:types/types.b", Layout::of::<Result<String, u64>>()),
        ("test:types/types.c", Layout::of::<Option<(u8, u64)>>()),
        ("test:types/types.d", Layout::of::<Result<Result<u64, u32>, String>>()),
        ("test:types/types.e", Layout::of::<Result<u8, Result<u16, (u32, u64)>>>()),
        ("test:types/types.f", Layout::of::<(u8, (u16, u8))>()),
        ("test:types/types.g", Layout::of::<Option<Option<u16>>>()),
        ("test:types/types.h", Layout::of::<Vec<Option<u64>>>()),
    ]);
    let types = wit.types();
    let parsed = types.iter().map(|(name, ty)| (name.as_str(), wit.layout(ty))).collect();
    assert_eq!(declared, parsed);
}

/// How a type lies in memory and in core values.
#[derive(Debug, PartialEq)]
struct Layout {
    size: usize,
    align: usize,
    flat: Vec<CoreType>,
}

impl Layout {
    fn of<T: AbiType>() -> Self {
        assert_eq!(T::FLAT_LEN, T::flat().len());
        Self { size: T::SIZE as usize, align: T::ALIGN as usize, flat: T::flat() }
    }

    /// Of all parameters, and of the result.
    fn of_function<P: AbiType, R: AbiType>() -> (Self, Self) {
        (Self::of::<P>(), Self::of::<R>())
    }
}

/// The names of a record's fields, from its pretty-printed form: one line each, indented once.
fn fields(record: &impl Debug) -> Vec<String> {
    let text = format!("{record:#?}");
    let indented_once = text.lines().filter_map(|line| line.strip_prefix("    "));
    let fields = indented_once.filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()));
    fields.filter_map(|line| Some(line.split_once(':')?.0.replace('_', "-"))).collect()
}

/// The names of the cases of an enum or a variant, in kebab case.
fn cases(cases: &[impl Debug]) -> Vec<String> {
    let kebab = |case| {
        let mut name = String::new();
        for letter in format!("{case:?}").chars().take_while(|letter| *letter != '(') {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    };
    cases.iter().map(kebab).collect()
}

struct Wit {
    resolve: Resolve,
    sizes: SizeAlign,
}

impl Wit {
    fn new(push: impl FnOnce(&mut Resolve)) -> Self {
        let mut resolve = Resolve::default();
        push(&mut resolve);
        let mut sizes = SizeAlign::default();
        sizes.fill(&resolve);
        Self { resolve, sizes }
    }

    fn of_the_crate() -> Self {
        Self::new(|resolve| {
            resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("wit")).unwrap();
        })
    }

    fn world(&self, name: &str) -> &World {
        self.resolve.worlds.iter().map(|(_, world)| world).find(|world| world.name == name).unwrap()
    }

    /// The functions of a world's imported or exported interfaces.
    fn interface_functions<'a>(
        &'a self,
        items: impl IntoIterator<Item = (&'a WorldKey, &'a WorldItem)>,
    ) -> impl Iterator<Item = (&'a WorldKey, &'a Function)> {
        items.into_iter().flat_map(|(key, item)| {
            let WorldItem::Interface { id, .. } = item else { panic!("the worlds have interfaces only") };
            self.resolve.interfaces[*id].functions.values().map(move |function| (key, function))
        })
    }

    /// By module and name: the names of the parameters, and the core type.
    fn imports(&self, world: &str) -> BTreeMap<(String, String), (String, Signature)> {
        let functions = self.interface_functions(&self.world(world).imports);
        let described = functions.map(|(key, func)| {
            let import = WasmImport::Func { interface: Some(key), func };
            let names: Vec<&str> = func.params.iter().map(|param| param.name.as_str()).collect();
            let signature = self.signature(AbiVariant::GuestImport, func);
            (self.resolve.wasm_import_name(CORE_MODULE, import), (names.join(" "), signature))
        });
        described.collect()
    }

    fn exports(&self, world: &str, kind: fn() -> WasmExportKind) -> BTreeMap<String, Signature> {
        let functions = self.interface_functions(&self.world(world).exports);
        let described = functions.map(|(key, func)| {
            let export = WasmExport::Func { interface: Some(key), func, kind: kind() };
            (self.resolve.wasm_export_name(CORE_MODULE, export), self.signature(AbiVariant::GuestExport, func))
        });
        described.collect()
    }

    /// With the names of their interfaces.
    fn functions(&self) -> impl Iterator<Item = (&str, &Function)> {
        self.resolve.interfaces.iter().flat_map(|(_, interface)| {
            let name = interface.name.as_deref().expect("every interface has a name");
            interface.functions.values().map(move |function| (name, function))
        })
    }

    fn signature(&self, variant: AbiVariant, function: &Function) -> Signature {
        let signature = self.resolve.wasm_signature(variant, function);
        Signature { params: core_types(&signature.params), results: core_types(&signature.results) }
    }

    /// The types that interfaces declare, by `interface.type`; a `use` of another interface's is not one.
    fn types(&self) -> BTreeMap<String, Type> {
        let declared = |id: InterfaceId| {
            let types = self.resolve.interfaces[id].types.iter();
            types.filter(|(_, ty)| !matches!(self.resolve.types[**ty].kind, TypeDefKind::Type(Type::Id(_))))
        };
        let named = |id| {
            let interface = self.resolve.id_of(id).expect("every interface has a name");
            declared(id).map(move |(name, ty)| (format!("{interface}.{name}"), Type::Id(*ty)))
        };
        self.resolve.interfaces.iter().flat_map(|(id, _)| named(id)).collect()
    }

    /// The names of a record's fields or of the cases of an enum or a variant.
    fn parts(&self, ty: &Type) -> Option<Vec<String>> {
        let Type::Id(id) = ty else { return None };
        match &self.resolve.types[*id].kind {
            TypeDefKind::Record(record) => Some(record.fields.iter().map(|field| field.name.clone()).collect()),
            TypeDefKind::Variant(cases) => Some(cases.cases.iter().map(|case| case.name.clone()).collect()),
            TypeDefKind::Enum(cases) => Some(cases.cases.iter().map(|case| case.name.clone()).collect()),
            _ => None,
        }
    }

    fn layout(&self, ty: &Type) -> Layout {
        Layout {
            size: self.sizes.size(ty).size_wasm32(),
            align: self.sizes.align(ty).align_wasm32(),
            flat: self.flat(&[*ty]),
        }
    }

    fn tuple_layout(&self, types: &[Type]) -> Layout {
        let info = self.sizes.record(types);
        Layout { size: info.size.size_wasm32(), align: info.align.align_wasm32(), flat: self.flat(types) }
    }

    fn flat(&self, types: &[Type]) -> Vec<CoreType> {
        let mut space = [WasmType::I32; 64];
        let mut flat = FlatTypes::new(&mut space);
        assert!(types.iter().all(|ty| self.resolve.push_flat(ty, &mut flat)), "more than 64 core values");
        core_types(&flat.to_vec())
    }
}

fn core_types(types: &[WasmType]) -> Vec<CoreType> {
    let core = |ty: &WasmType| match ty {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => CoreType::I32,
        WasmType::I64 | WasmType::PointerOrI64 => CoreType::I64,
        WasmType::F32 | WasmType::F64 => panic!("no interface has floats"),
    };
    types.iter().map(core).collect()
}
