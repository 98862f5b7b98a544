//! WASI preview 1: files of a preopened directory, and none beside.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use engines::engine::{Engine, Stop};
use tempfile::TempDir;

use crate::support::{Ended, Guest};

for_every_engine! {
    a_file_of_the_host_can_be_read,
    a_file_can_be_written,
    a_read_only_file_can_be_read,
    a_folder_can_be_listed,
    files_can_be_renamed_and_removed,
    a_read_only_file_system_says_so,
    a_full_file_system_says_so,
    a_hard_link_is_kept_or_refused,
    links_inside_are_followed,
    the_working_directory_is_found_by_its_name,
    a_guest_without_folders_has_none,
    parent_folders_do_not_lead_outside,
    links_do_not_lead_outside,
    links_made_by_the_guest_do_not_lead_outside,
    files_of_processes_cannot_be_opened,
}

const READ: u32 = 1 << 1;
const WRITE: u32 = 1 << 6;
const READDIR: u32 = 1 << 14;
const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const NO_ACCESS: u32 = 2;
const NOT_SUPPORTED: u32 = 58;
const READ_ONLY: u32 = 69;
const FULL: u32 = 51;

/// A folder for the guest, `inside`, and beside it `secret`, which is none of its business.
fn folders() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("inside")).unwrap();
    fs::write(folder.path().join("secret"), "the secret").unwrap();
    fs::write(folder.path().join("inside/file"), "the content").unwrap();
    folder
}

/// The parameters of a path that the guest has at an address.
fn at(address: usize, path: &str) -> (String, String) {
    let data = format!(r#"(data (i32.const {address}) "{path}")"#);
    (data, format!("(i32.const {address}) (i32.const {})", path.len()))
}

/// Runs instructions that find two paths in their parameters.
async fn run(
    engine: &dyn Engine,
    root: &Path,
    [one, two]: [&str; 2],
    instructions: impl Fn(&str, &str) -> String,
) -> Ended {
    let ((one_data, one), (two_data, two)) = (at(4096, one), at(6144, two));
    let start = format!(r#"{one_data} {two_data} (func (export "_start") {})"#, instructions(&one, &two));
    Guest::with_wasi(engine, start).preopen(root, "/").run().await
}

fn print_file(path: &str, _: &str) -> String {
    format!("(call $ok (call $open (call $root) {path} (i32.const 0) (i64.const {READ}))) (call $cat (call $opened))")
}

async fn a_file_of_the_host_can_be_read(engine: &dyn Engine) {
    let folder = folders();
    let ended = run(engine, &folder.path().join("inside"), ["file", ""], print_file).await;
    ended.result.unwrap();
    assert_eq!(ended.stdout, "the content");
}

async fn a_file_can_be_written(engine: &dyn Engine) {
    let folder = folders();
    let inside = folder.path().join("inside");
    let write = |path: &str, text: &str| {
        format!(
            "(call $ok (call $open (call $root) {path} (i32.const {CREATE}) (i64.const {WRITE})))
             (call $write (call $opened) {text})
             (call $write (call $opened) {text})
             (call $ok (call $fd_close (call $opened)))"
        )
    };
    run(engine, &inside, ["new", "text"], write).await.result.unwrap();
    assert_eq!(fs::read_to_string(inside.join("new")).unwrap(), "texttext");
}

async fn a_read_only_file_can_be_read(engine: &dyn Engine) {
    // A running program cannot be written to, whoever asks.
    let program = std::env::current_exe().unwrap();
    let name = program.file_name().unwrap().to_str().unwrap().to_owned();
    let read = |path: &str, _: &str| {
        format!(
            "(call $ok (call $open (call $root) {path} (i32.const 0) (i64.const {READ})))
             (call $print (i32.const 8192) (call $read (call $opened)))"
        )
    };
    let ended = run(engine, program.parent().unwrap(), [&name, ""], read).await;
    ended.result.unwrap();
    assert!(ended.stdout.starts_with("\x7fELF"));
}

async fn a_folder_can_be_listed(engine: &dyn Engine) {
    let folder = folders();
    let inside = folder.path().join("inside");
    fs::create_dir(inside.join("folder")).unwrap();
    symlink("file", inside.join("link")).unwrap();
    let list = |path: &str, _: &str| {
        format!(
            "(call $ok (call $open (call $root) {path} (i32.const {DIRECTORY}) (i64.const {})))
             (call $ok (call $fd_readdir (call $opened) (i32.const 8192) (i32.const 4096) (i64.const 0) (i32.const 8)))
             (call $print (i32.const 8192) (i32.load (i32.const 8)))",
            READ | READDIR
        )
    };
    let ended = run(engine, &inside, [".", ""], list).await;
    ended.result.unwrap();
    for name in ["file", "folder", "link"] {
        assert!(ended.stdout.contains(name), "{name}: {:?}", ended.stdout);
    }
    assert!(!ended.stdout.contains("secret"));
}

async fn files_can_be_renamed_and_removed(engine: &dyn Engine) {
    let folder = folders();
    let inside = folder.path().join("inside");
    let make_folder = |path: &str, _: &str| format!("(call $ok (call $path_create_directory (call $root) {path}))");
    let rename = |from: &str, to: &str| format!("(call $ok (call $path_rename (call $root) {from} (call $root) {to}))");
    let remove = |path: &str, _: &str| format!("(call $ok (call $path_unlink_file (call $root) {path}))");
    let remove_folder = |path: &str, _: &str| format!("(call $ok (call $path_remove_directory (call $root) {path}))");

    run(engine, &inside, ["folder", ""], make_folder).await.result.unwrap();
    run(engine, &inside, ["file", "folder/moved"], rename).await.result.unwrap();
    assert_eq!(fs::read_to_string(inside.join("folder/moved")).unwrap(), "the content");
    assert!(run(engine, &inside, ["folder", ""], remove_folder).await.result.is_err(), "it is not empty");
    run(engine, &inside, ["folder/moved", ""], remove).await.result.unwrap();
    run(engine, &inside, ["folder", ""], remove_folder).await.result.unwrap();
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
}

/// A mount that goes with its test.
struct Mounted(TempDir);

impl Mounted {
    fn small() -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        mount.mount(&["-t", "tmpfs", "-o", "size=16k", "tmpfs"]);
        mount
    }

    fn read_only() -> Self {
        let mount = Self::small();
        fs::create_dir(mount.0.path().join("folder")).unwrap();
        fs::write(mount.0.path().join("file"), "the content").unwrap();
        mount.mount(&["-o", "remount,ro"]);
        mount
    }

    fn mount(&self, options: &[&str]) {
        let mounted = Command::new("mount").args(options).arg(self.0.path()).status();
        assert!(mounted.unwrap().success(), "{options:?}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // wasmtime's WASI closes files in the background: one can still be open for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

async fn a_read_only_file_system_says_so(engine: &dyn Engine) {
    type Attempt = (&'static str, &'static str, fn(&str, &str) -> String);
    let attempts: [Attempt; 8] = [
        ("file", "", |file, _| format!("(call $open (call $root) {file} (i32.const 0) (i64.const {WRITE}))")),
        ("new", "", |new, _| format!("(call $open (call $root) {new} (i32.const {CREATE}) (i64.const {WRITE}))")),
        ("folder/new", "", |new, _| {
            format!("(call $open (call $root) {new} (i32.const {CREATE}) (i64.const {WRITE}))")
        }),
        ("new", "", |new, _| format!("(call $path_create_directory (call $root) {new})")),
        ("folder", "", |folder, _| format!("(call $path_remove_directory (call $root) {folder})")),
        ("file", "", |file, _| format!("(call $path_unlink_file (call $root) {file})")),
        ("file", "new", |file, new| format!("(call $path_rename (call $root) {file} (call $root) {new})")),
        ("file", "new", |file, new| format!("(call $path_symlink {file} (call $root) {new})")),
    ];
    let mount = Mounted::read_only();
    for (one, two, instructions) in attempts {
        let ended =
            run(engine, mount.0.path(), [one, two], |one, two| format!("(call $ok {})", instructions(one, two)));
        let ended = ended.await;
        assert!(matches!(ended.result, Err(Stop::Exit(READ_ONLY))), "{}: {ended:?}", instructions(one, two));
    }
    assert_eq!(run(engine, mount.0.path(), ["file", ""], print_file).await.stdout, "the content");
}

async fn a_full_file_system_says_so(engine: &dyn Engine) {
    let write = |path: &str, _: &str| {
        let text = "(i32.const 4096) (i32.const 60000)";
        format!(
            "(call $ok (call $open (call $root) {path} (i32.const {CREATE}) (i64.const {WRITE})))
             (call $write (call $opened) {text})
             (call $write (call $opened) {text})"
        )
    };
    let mount = Mounted::small();
    let ended = run(engine, mount.0.path(), ["new", ""], write).await;
    assert!(matches!(ended.result, Err(Stop::Exit(FULL))), "{ended:?}");
}

async fn a_hard_link_is_kept_or_refused(engine: &dyn Engine) {
    let folder = folders();
    let inside = folder.path().join("inside");
    let link = |from: &str, to: &str| {
        format!("(call $ok (call $path_link (call $root) (i32.const 0) {from} (call $root) {to}))")
    };
    match run(engine, &inside, ["file", "link"], link).await.result {
        Ok(()) => assert_eq!(fs::read_to_string(inside.join("link")).unwrap(), "the content"),
        Err(refused) => assert!(matches!(refused, Stop::Exit(NOT_SUPPORTED)), "{refused}"),
    }
}

async fn links_inside_are_followed(engine: &dyn Engine) {
    let folder = folders();
    let inside = folder.path().join("inside");
    fs::create_dir(inside.join("folder")).unwrap();
    symlink("../file", inside.join("folder/link")).unwrap();
    symlink("folder", inside.join("folder-link")).unwrap();
    let ended = run(engine, &inside, ["folder-link/link", ""], print_file).await;
    ended.result.unwrap();
    assert_eq!(ended.stdout, "the content");
}

async fn the_working_directory_is_found_by_its_name(engine: &dyn Engine) {
    let folder = folders();
    let print_file_in_dot = format!(
        r#"(data (i32.const 4096) "file")
           (func (export "_start")
             (call $ok (call $open (call $directory (i32.const 0x2e)) (i32.const 4096) (i32.const 4) (i32.const 0) (i64.const {READ})))
             (call $cat (call $opened)))"#
    );
    let guest = Guest::with_wasi(engine, print_file_in_dot);
    let ended = guest.preopen(folder.path(), "/").preopen(&folder.path().join("inside"), ".").run().await;
    ended.result.unwrap();
    assert_eq!(ended.stdout, "the content");
}

async fn a_guest_without_folders_has_none(engine: &dyn Engine) {
    for path in ["secret", "/etc/passwd", "/", "."] {
        let (data, path) = at(4096, path);
        let open = format!(
            r#"{data} (func (export "_start")
                 (call $ok (call $open (i32.const 3) {path} (i32.const 0) (i64.const {READ})))
                 (drop (call $read (call $opened))))"#
        );
        let ended = Guest::with_wasi(engine, open).run().await;
        assert!(matches!(ended.result, Err(Stop::Exit(1..))), "{ended:?}");
    }
}

/// Tries everything that takes a path: none of it may succeed, and nothing outside may change.
async fn stays_inside(engine: &dyn Engine, folder: &Path, outside: &str) {
    type Attempt = (&'static str, fn(&str, &str) -> String);
    let attempts: [Attempt; 9] = [
        ("open", |out, _| format!("(call $open (call $root) {out} (i32.const 0) (i64.const {READ}))")),
        ("write", |out, _| format!("(call $open (call $root) {out} (i32.const 0) (i64.const {WRITE}))")),
        ("create", |out, _| format!("(call $open (call $root) {out} (i32.const {CREATE}) (i64.const {WRITE}))")),
        ("unlink", |out, _| format!("(call $path_unlink_file (call $root) {out})")),
        ("rename in", |out, new| format!("(call $path_rename (call $root) {out} (call $root) {new})")),
        ("link in", |out, new| format!("(call $path_link (call $root) (i32.const 1) {out} (call $root) {new})")),
        ("make folder", |out, _| format!("(call $path_create_directory (call $root) {out})")),
        ("remove folder", |out, _| format!("(call $path_remove_directory (call $root) {out})")),
        ("list", |out, _| format!("(call $open (call $root) {out} (i32.const {DIRECTORY}) (i64.const {READDIR}))")),
    ];
    for (attempt, instructions) in attempts {
        let exit = |one: &str, two: &str| format!("(call $ok {}) (call $cat (call $opened))", instructions(one, two));
        let ended = run(engine, &folder.join("inside"), [outside, "new"], exit).await;
        assert!(!ended.stdout.contains("secret"), "{attempt} {outside}: {ended:?}");
        assert_eq!(fs::read_to_string(folder.join("secret")).unwrap(), "the secret", "{attempt} {outside}");
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["inside", "secret"], "{attempt} {outside}");
        let leaked = fs::read_to_string(folder.join("inside/new")).is_ok_and(|content| content == "the secret");
        assert!(!leaked, "{attempt} {outside}");
    }
}

async fn parent_folders_do_not_lead_outside(engine: &dyn Engine) {
    let folder = folders();
    fs::create_dir(folder.path().join("inside/folder")).unwrap();
    for path in ["../secret", "folder/../../secret", "./.././secret", "/../secret", "../created"] {
        stays_inside(engine, folder.path(), path).await;
    }
}

async fn links_do_not_lead_outside(engine: &dyn Engine) {
    let absolute = |folder: &Path| folder.join("secret").display().to_string();
    for target in [|_: &Path| "../secret".to_owned(), |_: &Path| "../created".to_owned(), absolute] {
        let folder = folders();
        symlink(target(folder.path()), folder.path().join("inside/link")).unwrap();
        stays_inside(engine, folder.path(), "link").await;
    }
    let folder = folders();
    symlink("..", folder.path().join("inside/up")).unwrap();
    symlink(folder.path(), folder.path().join("inside/root")).unwrap();
    for path in ["up/secret", "root/secret", "up/created", "root/created"] {
        stays_inside(engine, folder.path(), path).await;
    }
}

async fn links_made_by_the_guest_do_not_lead_outside(engine: &dyn Engine) {
    let folder = folders();
    let secret = folder.path().join("secret").display().to_string();
    for target in ["../secret", &secret] {
        let through_link = |target: &str, link: &str| {
            format!(
                "(drop (call $path_symlink {target} (call $root) {link}))
                 (call $ok (call $open (call $root) {link} (i32.const 0) (i64.const {READ})))
                 (call $cat (call $opened))"
            )
        };
        let ended = run(engine, &folder.path().join("inside"), [target, "link"], through_link).await;
        assert!(matches!(ended.result, Err(Stop::Exit(1..))), "{ended:?}");
        stays_inside(engine, folder.path(), "link").await;
    }
}

/// Such as the memory of the process that runs the guest.
async fn files_of_processes_cannot_be_opened(engine: &dyn Engine) {
    let own = std::process::id();
    for file in ["self/mem", &format!("{own}/mem"), &format!("{own}/task/{own}/mem"), "self/environ", "version"] {
        for rights in [READ, WRITE, READ | WRITE] {
            let then_go_on = |file: &str, text: &str| {
                format!(
                    "(call $ok (i32.ne (call $open (call $root) {file} (i32.const 0) (i64.const {rights})) (i32.const {NO_ACCESS})))
                     (call $print {text})"
                )
            };
            // What nobody may write to, the system refuses.
            if rights == READ || file.ends_with("mem") {
                let ended = run(engine, Path::new("/proc"), [file, "still here"], then_go_on).await;
                ended.result.as_ref().unwrap_or_else(|error| panic!("{file} {rights}: {error}"));
                assert_eq!(ended.stdout, "still here");
            }
        }
    }
}
