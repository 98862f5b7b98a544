//! The artifact cache: it saves compiling, and never gets in the way.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use engines::artifact_cache::{Artifact, ArtifactCache, ArtifactKey};
use engines::engine::{CompileError, Engine, LoadError, Module};
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
    unsafe fn load(&self, _: &Artifact, _: u32) -> Result<Arc<dyn Module>, LoadError> {
        unreachable!("nothing is loaded")
    }
}

fn key(module: &str) -> ArtifactKey {
    ArtifactKey::new(&Named { name: "engine", fingerprint: "1" }, module.as_bytes())
}

const LARGE: u64 = 1 << 20;

fn cache(folder: &TempDir, max_bytes: u64) -> ArtifactCache {
    ArtifactCache::open(folder.path().join("cache"), max_bytes).unwrap()
}

/// What the cache answers, and whether it had to compile for that.
fn get(cache: &ArtifactCache, module: &str, compiled: &[u8]) -> (Vec<u8>, bool) {
    let mut had_to_compile = false;
    let artifact = cache.get_or_compile(&key(module), || {
        had_to_compile = true;
        Ok::<_, std::io::Error>(compiled.to_vec())
    });
    (artifact.unwrap().map().unwrap().to_vec(), had_to_compile)
}

fn files(folder: &TempDir) -> Vec<PathBuf> {
    fs::read_dir(folder.path().join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn only_file(folder: &TempDir) -> PathBuf {
    let files = files(folder);
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
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
                let artifact = cache.get_or_compile(&key("module"), || {
                    compilations.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(50));
                    Ok::<_, std::io::Error>(b"compiled".to_vec())
                });
                assert_eq!(&artifact.unwrap().map().unwrap()[..], b"compiled");
            });
        }
    });
    assert_eq!(compilations.into_inner(), 1);
    assert_eq!(only_file(&folder).extension().unwrap(), "artifact");
}

#[test]
fn a_failed_compilation_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, LARGE);
    let failed = cache.get_or_compile(&key("module"), || Err(std::io::Error::other("invalid module")));
    assert_eq!(failed.err().unwrap().to_string(), "invalid module");
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
    assert_eq!(get(&cache, "module", b"compiled"), (b"compiled".to_vec(), true));
}

#[test]
fn a_damaged_artifact_is_compiled_again() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 5] = [
        ("truncated", |file| {
            let content = fs::read(file).unwrap();
            fs::write(file, &content[..content.len() - 1]).unwrap();
        }),
        ("emptied", |file| fs::write(file, b"").unwrap()),
        ("altered", |file| {
            let mut content = fs::read(file).unwrap();
            content[3] ^= 1;
            fs::write(file, content).unwrap();
        }),
        ("altered at its end", |file| {
            let mut content = fs::read(file).unwrap();
            *content.last_mut().unwrap() ^= 1;
            fs::write(file, content).unwrap();
        }),
        ("someone else's", |file| fs::write(file, "#!/bin/sh\n".repeat(100)).unwrap()),
    ];
    for (damage, inflict) in damages {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder, LARGE);
        get(&cache, "module", b"compiled");
        inflict(&only_file(&folder));
        assert_eq!(get(&cache, "module", b"compiled again"), (b"compiled again".to_vec(), true), "{damage}");
        assert_eq!(get(&cache, "module", b"and again"), (b"compiled again".to_vec(), false), "{damage}");
    }
}

#[test]
fn an_artifact_in_use_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, LARGE);
    let artifact = cache.get_or_compile(&key("module"), || Ok::<_, std::io::Error>(b"compiled".to_vec())).unwrap();
    let map = artifact.map().unwrap();
    fs::remove_file(only_file(&folder)).unwrap();
    get(&cache, "module", b"compiled again");
    assert_eq!(&map[..], b"compiled");
    assert_eq!(&artifact.map().unwrap()[..], b"compiled");
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder, 350);
    let artifact = [0; 64];
    for (age, module) in [(30, "oldest"), (20, "older"), (10, "old")] {
        let before = files(&folder);
        get(&cache, module, &artifact);
        let file = files(&folder).into_iter().find(|file| !before.contains(file)).unwrap();
        let used = SystemTime::now() - Duration::from_secs(age);
        fs::File::options().append(true).open(file).unwrap().set_modified(used).unwrap();
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
    assert_eq!(files(&folder).len(), 1, "only the newest stays");
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
    assert_eq!(fs::metadata(only_file(&folder)).unwrap().permissions().mode() & 0o777, 0o600);
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
