//! The artifact cache: it saves compiling, and never gets in the way.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use engines::artifact_cache::{Artifact, ArtifactCache, ArtifactKey, Description, ModuleFile, Pruned};
use engines::engine::{CompileError, Engine, LoadError, Module};
use engines::module_info::ModuleInfo;
use tempfile::TempDir;

/// An engine as far as a key needs one.
struct Named {
    name: &'static str,
    fingerprint: &'static str,
}

impl Engine for Named {
    fn name(&self) -> &'static str {
        self.name
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.to_owned()
    }

    fn compile(&self, _: &[u8]) -> Result<Vec<u8>, CompileError> {
        unreachable!("the tests compile by themselves")
    }

    #[expect(unsafe_code, reason = "the trait has it so")]
    unsafe fn load(&self, _: &Artifact) -> Result<Arc<dyn Module>, LoadError> {
        unreachable!("nothing is loaded")
    }
}

const ENGINE: Named = Named { name: "engine", fingerprint: "1" };

fn key(module: &str) -> ArtifactKey {
    ArtifactKey::new(&ENGINE, module.as_bytes())
}

fn description(name: &str) -> Description {
    Description { name: name.to_owned(), info: ModuleInfo::read(b"\0asm\x01\0\0\0").unwrap() }
}

const LARGE: u64 = 1 << 20;

fn cache(folder: &TempDir, max_bytes: u64) -> ArtifactCache {
    ArtifactCache::open(folder.path().join("cache"), max_bytes).unwrap()
}

/// What the cache answers, and whether it had to compile for that.
fn get(cache: &ArtifactCache, module: &str, compiled: &[u8]) -> (Vec<u8>, bool) {
    let mut had_to_compile = false;
    let entry = cache.get_or_compile(&key(module), description(module), || {
        had_to_compile = true;
        Artifact::in_memory(compiled)
    });
    let entry = entry.unwrap();
    assert_eq!(entry.description, description(module));
    (entry.artifact.map().unwrap().to_vec(), had_to_compile)
}

fn files(folder: &TempDir) -> Vec<PathBuf> {
    fs::read_dir(folder.path().join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn artifacts(folder: &TempDir) -> Vec<PathBuf> {
    files(folder).into_iter().filter(|file| file.extension().unwrap() == "artifact").collect()
}

fn only_artifact(folder: &TempDir) -> PathBuf {
    let artifacts = artifacts(folder);
    assert_eq!(artifacts.len(), 1, "{artifacts:?}");
    artifacts[0].clone()
}

/// Says when an artifact was used last.
fn set_last_use(artifact: &Path, age: Duration) {
    let record = fs::File::options().append(true).open(artifact.with_extension("checked")).unwrap();
    record.set_modified(SystemTime::now() - age).unwrap();
}

/// Writes until the file's time of change is another one: a file system's clock may stand for some milliseconds.
fn overwrite(file: &Path, content: impl AsRef<[u8]>) {
    let changed = || fs::metadata(file).map(|metadata| (metadata.ctime(), metadata.ctime_nsec())).unwrap();
    let before = changed();
    while changed() == before {
        fs::write(file, &content).unwrap();
    }
}

/// A file of a module, as it is now.
fn module_file(path: &Path) -> ModuleFile {
    ModuleFile::new("layer", &fs::metadata(path).unwrap())
}

#[test]
fn an_artifact_is_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(get(&cache(&folder, LARGE), "module", b"compiled"), (b"compiled".to_vec(), true));
    assert_eq!(get(&cache(&folder, LARGE), "module", b"again"), (b"compiled".to_vec(), false));
    assert_eq!(get(&cache(&folder, LARGE), "other", b"other"), (b"other".to_vec(), true));
}

#[test]
fn many_who_want_an_artifact_at_once_wait_for_one_compilation() {
    let folder = tempfile::tempdir().unwrap();
    let (all_here, compilations) = (Barrier::new(16), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                // As in processes of their own: each has the cache to itself.
                let cache = cache(&folder, LARGE);
                all_here.wait();
                let entry = cache.get_or_compile(&key("module"), description("module"), || {
                    compilations.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(50));
                    Artifact::in_memory(b"compiled")
                });
                assert_eq!(&entry.unwrap().artifact.map().unwrap()[..], b"compiled");
            });
        }
    });
    assert_eq!(compilations.into_inner(), 1);
    only_artifact(&folder);
    assert_eq!(files(&folder).len(), 2, "the artifact and its record");
}

#[test]
fn a_failed_compilation_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, LARGE);
    let failure = || Err(std::io::Error::other("invalid module"));
    let failed = cache.get_or_compile(&key("module"), description("module"), failure);
    assert_eq!(failed.err().unwrap().to_string(), "invalid module");
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
    assert_eq!(get(&cache, "module", b"compiled"), (b"compiled".to_vec(), true));
}

/// Whoever waits for a compilation that fails compiles next, and nobody else meanwhile.
#[test]
fn compilations_that_fail_follow_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let is_compiling = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let cache = cache(&folder, LARGE);
                for _ in 0..25 {
                    let failed = cache.get_or_compile(&key("module"), description("module"), || {
                        assert!(!is_compiling.swap(true, Ordering::SeqCst), "two compile at the same time");
                        thread::sleep(Duration::from_millis(1));
                        is_compiling.store(false, Ordering::SeqCst);
                        Err(std::io::Error::other("invalid module"))
                    });
                    assert!(failed.is_err());
                }
            });
        }
    });
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
}

#[test]
fn a_damaged_artifact_is_compiled_again() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 5] = [
        ("truncated", |file| {
            let content = fs::read(file).unwrap();
            overwrite(file, &content[..content.len() - 1]);
        }),
        ("emptied", |file| overwrite(file, b"")),
        ("altered", |file| {
            let mut content = fs::read(file).unwrap();
            content[3] ^= 1;
            overwrite(file, content);
        }),
        ("altered at its end", |file| {
            let mut content = fs::read(file).unwrap();
            *content.last_mut().unwrap() ^= 1;
            overwrite(file, content);
        }),
        ("someone else's", |file| overwrite(file, "#!/bin/sh\n".repeat(100))),
    ];
    for (damage, inflict) in damages {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder, LARGE);
        get(&cache, "module", b"compiled");
        inflict(&only_artifact(&folder));
        assert_eq!(get(&cache, "module", b"compiled again"), (b"compiled again".to_vec(), true), "{damage}");
        assert_eq!(get(&cache, "module", b"and again"), (b"compiled again".to_vec(), false), "{damage}");
    }
}

#[test]
fn an_artifact_in_use_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, LARGE);
    let compile = || Artifact::in_memory(b"compiled");
    let artifact = cache.get_or_compile(&key("module"), description("module"), compile).unwrap().artifact;
    let map = artifact.map().unwrap();
    fs::remove_file(only_artifact(&folder)).unwrap();
    get(&cache, "module", b"compiled again");
    assert_eq!(&map[..], b"compiled");
    assert_eq!(&artifact.map().unwrap()[..], b"compiled");
}

#[test]
fn an_artifact_stays_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, LARGE);
    let artifact = || {
        let compile = || Artifact::in_memory(b"compiled");
        cache.get_or_compile(&key("module"), description("module"), compile).unwrap().artifact
    };
    let same = artifact().with_file(fs::File::open(only_artifact(&folder)).unwrap()).unwrap();
    assert_eq!(&same.map().unwrap()[..], b"compiled");
    let copy = folder.path().join("copy");
    fs::copy(only_artifact(&folder), &copy).unwrap();
    assert!(artifact().with_file(fs::File::open(copy).unwrap()).is_err());
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let artifact = [0; 64];
    get(&cache(&folder, LARGE), "one", &artifact);
    let length = fs::metadata(only_artifact(&folder)).unwrap().len();
    fs::remove_file(only_artifact(&folder)).unwrap();
    let cache = cache(&folder, 3 * length + 20);
    for (age, module) in [(30, "oldest"), (20, "older"), (10, "old")] {
        let before = artifacts(&folder);
        get(&cache, module, &artifact);
        let file = artifacts(&folder).into_iter().find(|file| !before.contains(file)).unwrap();
        set_last_use(&file, Duration::from_secs(age));
    }
    // Used again, and so the youngest.
    assert!(!get(&cache, "oldest", &artifact).1);
    get(&cache, "new", &artifact);
    let had_to_compile = |module| get(&cache, module, &artifact).1;
    assert!(!had_to_compile("oldest"));
    assert!(!had_to_compile("old"));
    assert!(!had_to_compile("new"));
    assert!(had_to_compile("older"), "it had to make room");
}

#[test]
fn an_artifact_larger_than_the_whole_cache_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, 10);
    assert_eq!(get(&cache, "module", &[7; 1000]).0, [7; 1000]);
    assert_eq!(get(&cache, "other", &[8; 1000]).0, [8; 1000]);
    only_artifact(&folder);
}

#[test]
fn a_folder_that_is_gone_costs_a_compilation_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, LARGE);
    fs::remove_dir(folder.path().join("cache")).unwrap();
    assert_eq!(get(&cache, "module", b"compiled"), (b"compiled".to_vec(), true));
    assert_eq!(get(&cache, "module", b"again"), (b"again".to_vec(), true));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    assert!(ArtifactCache::open(folder.path().join("file/cache"), LARGE).is_err());
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    for mode in [0o720, 0o702, 0o777] {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let error = ArtifactCache::open(folder.path(), LARGE).err().expect("others may write");
        assert!(error.to_string().contains("not private"), "{error}");
    }
}

#[test]
fn a_new_folder_is_the_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    ArtifactCache::open(&cache, LARGE).unwrap();
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    get(&ArtifactCache::open(&cache, LARGE).unwrap(), "module", b"compiled");
    assert_eq!(fs::metadata(only_artifact(&folder)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_key_depends_on_engine_build_and_module() {
    let key = |name, fingerprint, module: &[u8]| ArtifactKey::new(&Named { name, fingerprint }, module);
    let this = key("engine", "1", b"module");
    assert_eq!(this, key("engine", "1", b"module"));
    assert_ne!(this, key("other", "1", b"module"));
    assert_ne!(this, key("engine", "2", b"module"));
    assert_ne!(this, key("engine", "1", b"module "));
}

#[test]
fn a_known_file_s_artifact_is_found_without_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.wasm");
    fs::write(&file, "module").unwrap();
    let cache = cache(&folder, LARGE);
    let known = module_file(&file);
    assert!(cache.find(&ENGINE, &known).is_none());
    get(&cache, "module", b"compiled");
    assert!(cache.find(&ENGINE, &known).is_none());

    cache.remember(&ENGINE, &known, &key("module"));
    let found = cache.find(&ENGINE, &known).unwrap();
    assert_eq!(&found.artifact.map().unwrap()[..], b"compiled");
    assert_eq!(found.description, description("module"));
    assert!(cache.find(&Named { name: "other", ..ENGINE }, &known).is_none());
    assert!(cache.find(&Named { fingerprint: "2", ..ENGINE }, &known).is_none());
    assert!(cache.find(&ENGINE, &ModuleFile::new("other layer", &fs::metadata(&file).unwrap())).is_none());
}

#[test]
fn a_file_that_changed_is_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.wasm");
    fs::write(&file, "module").unwrap();
    let before = fs::metadata(&file).unwrap();
    let known = module_file(&file);
    // As long as before, and as old to whoever believes what a file says of itself.
    overwrite(&file, "MODULE");
    fs::File::options().append(true).open(&file).unwrap().set_modified(before.modified().unwrap()).unwrap();
    assert_ne!(module_file(&file), known);
    let now = fs::metadata(&file).unwrap();
    assert_eq!((now.len(), now.modified().unwrap()), (before.len(), before.modified().unwrap()));
}

#[test]
fn an_artifact_that_changed_behind_a_known_file_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.wasm");
    fs::write(&file, "module").unwrap();
    let cache = cache(&folder, LARGE);
    get(&cache, "module", b"compiled");
    cache.remember(&ENGINE, &module_file(&file), &key("module"));
    let artifact = only_artifact(&folder);
    let mut content = fs::read(&artifact).unwrap();
    content[3] ^= 1;
    overwrite(&artifact, content);
    assert!(cache.find(&ENGINE, &module_file(&file)).is_none());
    assert_eq!(get(&cache, "module", b"compiled again"), (b"compiled again".to_vec(), true));
    assert!(cache.find(&ENGINE, &module_file(&file)).is_some());
}

#[test]
fn an_artifact_is_checked_in_full_after_each_start_of_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, LARGE);
    get(&cache, "module", b"compiled");
    let record = only_artifact(&folder).with_extension("checked");
    let state = fs::read_to_string(&record).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(state.ends_with(&boot), "{state}");
    fs::write(&record, state.replace(&boot, "another\n")).unwrap();
    assert!(!get(&cache, "module", b"compiled again").1);
    assert_eq!(fs::read_to_string(&record).unwrap(), state);
}

#[test]
fn the_list_says_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, LARGE);
    for (age, module) in [(20, "/old.wasm"), (10, "/new.wasm")] {
        let before = artifacts(&folder);
        get(&cache, module, b"compiled");
        let file = artifacts(&folder).into_iter().find(|file| !before.contains(file)).unwrap();
        set_last_use(&file, Duration::from_secs(age));
    }
    let list = cache.list().unwrap();
    let names: Vec<_> = list.iter().map(|artifact| artifact.description().unwrap().name).collect();
    assert_eq!(names, ["/new.wasm", "/old.wasm"]);
    // As `sha256sum` has it.
    assert_eq!(list[1].module, "c7621800a2d20456a13a4be619db8fd858e2e0f6b103c1667631c2e5af1a951a");
    assert!(list.iter().all(|artifact| artifact.engine == "engine"));
    assert!(list.iter().all(|artifact| artifact.length == fs::metadata(&artifact.path).unwrap().len()));
}

#[test]
fn a_pruned_cache_has_what_fits_and_nothing_besides() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.wasm");
    fs::write(&file, "module").unwrap();
    let cache = cache(&folder, LARGE);
    get(&cache, "module", b"compiled");
    cache.remember(&ENGINE, &module_file(&file), &key("module"));
    set_last_use(&only_artifact(&folder), Duration::from_secs(60));
    get(&cache, "second", b"compiled");
    let length = cache.list().unwrap()[0].length;
    let old = SystemTime::now() - Duration::from_secs(7200);
    let [_partial, _abandoned, held] = ["a.1.partial", "b.lock", "c.lock"].map(|name| {
        let file = fs::File::create(folder.path().join("cache").join(name)).unwrap();
        file.set_modified(old).unwrap();
        file
    });
    // A compilation may take as long as the operator likes.
    held.lock().unwrap();

    assert_eq!(cache.prune(2 * length).unwrap(), Pruned::default());
    assert_eq!(files(&folder).len(), 6, "two artifacts, their records, a link, and the lock that is held");
    let pruned = cache.prune(length).unwrap();
    assert_eq!((pruned.artifacts, cache.list().unwrap()[0].description().unwrap().name), (1, "second".to_owned()));
    assert_eq!(files(&folder).len(), 3, "no link to what is gone");
    cache.prune(0).unwrap();
    assert_eq!(files(&folder), [folder.path().join("cache/c.lock")]);
    drop(held);
    cache.prune(0).unwrap();
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
}

#[test]
fn a_check_of_all_finds_the_damaged_ones_and_removes_them() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, LARGE);
    get(&cache, "whole", b"compiled");
    let whole = only_artifact(&folder);
    get(&cache, "damaged", b"compiled");
    let damaged = artifacts(&folder).into_iter().find(|file| *file != whole).unwrap();
    let mut content = fs::read(&damaged).unwrap();
    content[3] ^= 1;
    overwrite(&damaged, content);
    let verified = cache.verify().unwrap();
    assert_eq!((verified.whole, verified.damaged.len()), (1, 1));
    assert_eq!(verified.damaged[0].path, damaged);
    assert_eq!(only_artifact(&folder), whole);
    assert_eq!(cache.verify().unwrap().damaged.len(), 0);
}

#[test]
fn an_artifact_that_goes_while_all_are_checked_is_not_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, LARGE);
    // As of a file that is listed and gone when it is opened.
    symlink("gone", folder.path().join("cache/engine-0-0.artifact")).unwrap();
    assert_eq!(cache.list().unwrap().len(), 1);
    let verified = cache.verify().unwrap();
    assert_eq!((verified.whole, verified.damaged.len()), (0, 0));
}
