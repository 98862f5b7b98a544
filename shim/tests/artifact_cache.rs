//! What a node's cache of artifacts does for its containers and for its operator.

mod support;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use images::Image;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use support::{ENGINES, HELLO, Node, engine, guest, operator_config, programs, wasm_image};

/// A node with a cache of its own, and the operator's configuration for it.
struct CachingNode {
    node: Node,
    cache: PathBuf,
    config: String,
}

impl CachingNode {
    fn start() -> Self {
        let node = Node::start();
        let cache = node.containerd.folder().join("cache");
        let config = operator_config(&node, &format!("artifactCache: {{folder: {}}}\n", cache.display()));
        Self { node, cache, config }
    }

    /// A configuration by which nothing can be compiled.
    fn config_without_compiler(&self) -> String {
        let text = format!("artifactCache: {{folder: {}}}\ncompiler: {{maxSeconds: 0}}\n", self.cache.display());
        operator_config(&self.node, &text)
    }

    fn run(&self, config: &str, engine_name: &str, image: &str, name: &str, arguments: &[&str]) -> support::Run {
        self.node.run(&[config, &engine(engine_name)], image, name, arguments)
    }

    /// The files of a kind, in the order of their names.
    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.cache).expect("a cache").map(|entry| entry.expect("an entry").path());
        let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == extension)).collect();
        files.sort();
        files
    }

    /// Runs `dapr-wasm cache`.
    fn tool(&self, words: &[&str]) -> Output {
        let config = self.node.containerd.folder().join("operator.yaml");
        let mut command = Command::new(programs().join("dapr-wasm"));
        command.arg("cache").args(words).arg("--config").arg(config);
        // It looks for ctr where the node has it.
        let ctr = self.node.containerd.ctr_command(&[]);
        command.envs(ctr.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().expect("dapr-wasm")
    }

    fn warm(&self, words: &[&str]) -> Output {
        let address = self.node.containerd.address().display().to_string();
        let namespace = self.node.containerd.namespace().to_owned();
        let mut all = vec!["warm", "--address", &address, "--namespace", &namespace];
        all.extend(words);
        self.tool(&all)
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_module_is_compiled_once_and_then_known_by_its_file() {
    let node = CachingNode::start();
    for name in ENGINES {
        let run = node.run(&node.config, name, HELLO, name, &["/hello.wasm", "echo", "hi"]);
        assert_eq!(run.stdout(), "hi\n", "{}", run.stderr());
    }
    assert_eq!((node.files("artifact").len(), node.files("module").len()), (ENGINES.len(), ENGINES.len()));
    let config = node.config_without_compiler();
    for name in ENGINES {
        let run = node.run(&config, name, HELLO, name, &["/hello.wasm", "echo", "hi"]);
        assert_eq!(run.stdout(), "hi\n", "{}", run.stderr());
    }
    assert_eq!(node.files("module").len(), ENGINES.len(), "its file is the same in every container");

    // The same module in another image: it is read once more, and not compiled.
    node.node.import(&wasm_image("localhost/test/other:1", guest("hello")));
    for name in ENGINES {
        let run = node.run(&config, name, "localhost/test/other:1", name, &["/app.wasm", "echo", "hi"]);
        assert_eq!(run.stdout(), "hi\n", "{}", run.stderr());
    }
    assert_eq!((node.files("artifact").len(), node.files("module").len()), (ENGINES.len(), 2 * ENGINES.len()));
    node.node.assert_nothing_left();
}

/// Root in a container finds the artifact among the open files of the process that runs the guest, and other containers run
/// it.
#[test]
fn the_artifact_that_a_guest_runs_from_cannot_be_written_to() {
    let node = CachingNode::start();
    // From the compiler, and from the cache.
    for id in ["first", "second"] {
        node.node.start_detached(&[&node.config], HELLO, id, &["/hello.wasm", "daemon"]);
        let artifact = fs::metadata(&node.files("artifact")[0]).expect("an artifact");
        let open = fs::read_dir(format!("/proc/{}/fd", node.node.pid(id))).expect("its descriptors");
        let open = open.map(|entry| entry.expect("a descriptor").path());
        let is_artifact = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == (artifact.dev(), artifact.ino()))
        };
        let found: Vec<_> = open.filter(is_artifact).collect();
        assert_ne!(found.len(), 0, "{id}");
        for descriptor in found {
            let opened = fs::File::options().write(true).open(&descriptor);
            assert_eq!(opened.expect_err("no way to write").kind(), ErrorKind::ReadOnlyFilesystem, "{id}");
        }
        node.node.end(id, "SIGKILL");
    }
    node.node.assert_nothing_left();
}

#[test]
fn a_module_that_a_container_replaced_is_another_one() {
    let node = CachingNode::start();
    let image = "localhost/test/changing:1";
    node.node.import(&wasm_image(image, guest("hello")));
    for name in ENGINES {
        let run = node.run(&node.config, name, image, "fresh", &["/app.wasm", "echo", "hi"]);
        assert_eq!(run.stdout(), "hi\n", "{}", run.stderr());
        // Its task ends; its root stays, with what the guest did to its own module, for a second task.
        let engine = engine(name);
        let options = [node.config.as_str(), &engine];
        let run =
            node.node.run_command(&options, image, name, &["/app.wasm", "write", "/app.wasm", "changed"]).output();
        assert!(run.as_ref().is_ok_and(|run| run.status.success()), "{run:?}");
        node.node.ctr(&["task", "start", name]).assert_refused(&["/app.wasm", "is not WebAssembly"]);
        let deleted = node.node.ctr(&["container", "delete", name]);
        assert_eq!(deleted.status(), 0, "{}", deleted.stderr());
    }
    node.node.assert_nothing_left();
}

#[test]
fn a_damaged_artifact_is_compiled_again() {
    let node = CachingNode::start();
    for name in ENGINES {
        let run = || node.run(&node.config, name, HELLO, name, &["/hello.wasm", "echo", "hi"]).stdout();
        assert_eq!(run(), "hi\n");
        for artifact in node.files("artifact") {
            let mut content = fs::read(&artifact).expect("an artifact");
            content[100] ^= 1;
            fs::write(&artifact, content).expect("an artifact");
        }
        assert_eq!(run(), "hi\n", "{name}");
        let verified = node.tool(&["verify"]);
        assert!(text(&verified).contains("1 compiled modules are in order"), "{}", text(&verified));
        fs::remove_dir_all(&node.cache).expect("a cache");
    }
    node.node.assert_nothing_left();
}

/// A file system in memory that is full soon.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path) -> Self {
        fs::create_dir_all(path).expect("a folder");
        let options = Some("size=64k,mode=700");
        mount(Some("small"), path, Some("tmpfs"), MsFlags::empty(), options).expect("a file system");
        Self(path)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn on_a_full_disk_guests_run_without_cache() {
    let node = CachingNode::start();
    {
        let _disk = SmallDisk::mount(&node.cache);
        for (index, name) in ENGINES.iter().cycle().take(2 * ENGINES.len()).enumerate() {
            let run = node.run(&node.config, name, HELLO, &format!("c{index}"), &["/hello.wasm", "echo", "hi"]);
            assert_eq!(run.stdout(), "hi\n", "{name}: {}", run.stderr());
        }
        let warning = node.node.containerd.wait_for_log("cannot keep the compiled module in the artifact cache");
        assert!(warning.contains("No space left on device"), "{warning}");
        assert_eq!(fs::read_dir(&node.cache).expect("a cache").count(), 0, "nothing half written stays");
    }
    node.node.assert_nothing_left();
}

#[test]
fn an_image_that_was_warmed_needs_no_compiler() {
    let node = CachingNode::start();
    let broken = wat::parse_str(r#"(module (import "env" "launch" (func)))"#).expect("a module");
    let image = Image::new("localhost/test/warm:1")
        .file("/app.wasm", guest("hello"))
        .file("/lib/broken.wasm", broken)
        .link("/lib/link.wasm", "/app.wasm")
        .entrypoint(["/app.wasm"]);
    node.node.import(&image);
    let warmed = node.warm(&["localhost/test/warm:1"]);
    assert!(warmed.status.success(), "{}", text(&warmed));
    for name in ENGINES {
        assert!(text(&warmed).contains(&format!("/app.wasm {name}: ")), "{}", text(&warmed));
    }
    assert!(text(&warmed).contains("left out: the module /lib/broken.wasm cannot run"), "{}", text(&warmed));
    assert!(!text(&warmed).contains("link.wasm"), "{}", text(&warmed));
    let known = node.files("module");
    assert_eq!(known.len(), ENGINES.len());

    let config = node.config_without_compiler();
    for name in ENGINES {
        let run = node.run(&config, name, "localhost/test/warm:1", name, &["/app.wasm", "echo", "hi"]);
        assert_eq!(run.stdout(), "hi\n", "{}", run.stderr());
    }
    assert_eq!(node.files("module"), known, "containers have the very file that was warmed");
    node.node.assert_nothing_left();
    let snapshots = node.node.ctr(&["snapshots", "ls"]).stdout();
    assert!(!snapshots.contains("dapr-wasm-"), "{snapshots}");
}

#[test]
fn the_operator_s_configuration_can_be_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let check = |text: &str| {
        fs::write(&file, text).expect("a file");
        Command::new(programs().join("dapr-wasm")).arg("config").arg("--config").arg(&file).output().expect("dapr-wasm")
    };
    let whole = text(&check("defaultEngine: wasmer\nartifactCache: {maxBytes: 4Gi}\n"));
    assert!(whole.contains("defaultEngine: wasmer\n") && whole.contains("maxBytes: 4294967296\n"), "{whole}");
    assert!(whole.contains("maxSeconds: 600\n"), "{whole}");
    assert!(text(&check("")).contains("defaultEngine: wasmtime\n"));
    for (wrong, word) in [
        ("defaultEngin: wasmer\n", "defaultEngine"),
        ("defaultEngine: wasmtim\n", "this runtime knows wasmtime, wasmer"),
        ("guestHost: /nope\n", "cannot run /nope"),
        ("guestHost: dapr-guest-host\n", "guestHost: not an absolute path"),
        ("components: \"\"\n", "components: not an absolute path"),
        ("artifactCache: {maxBytes: 4GB}\n", "16Mi"),
        ("artifactCache: {folder: artifacts}\n", "artifactCache.folder: not an absolute path"),
        ("compiler: {maxMemoryBytes: 4Mi}\n", "64Mi"),
    ] {
        let refused = check(wrong);
        assert!(!refused.status.success() && text(&refused).contains(word), "{}", text(&refused));
    }
}

#[test]
fn warming_says_what_is_wrong() {
    let node = CachingNode::start();
    let missing = node.warm(&["localhost/test/missing:1"]);
    assert!(!missing.status.success() && text(&missing).contains("localhost/test/missing:1"), "{}", text(&missing));
    node.node.import(&Image::new("localhost/test/empty:1").file("/readme", "hi").entrypoint(["/readme"]));
    let empty = node.warm(&["localhost/test/empty:1"]);
    assert!(!empty.status.success() && text(&empty).contains("there is no Wasm module"), "{}", text(&empty));
    let unknown = node.warm(&["--engine", "quickjs", HELLO]);
    assert!(!unknown.status.success() && text(&unknown).contains("unknown engine \"quickjs\""), "{}", text(&unknown));
    node.node.assert_nothing_left();
}

#[test]
fn the_operator_lists_verifies_and_prunes_the_cache() {
    let node = CachingNode::start();
    let warmed = node.warm(&[HELLO]);
    assert!(warmed.status.success(), "{}", text(&warmed));
    let listed = text(&node.tool(&["list"]));
    for name in ENGINES {
        let line = listed.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{listed}"));
        assert!(line.ends_with(&format!("{HELLO} /hello.wasm")), "{listed}");
    }

    let whole = node.tool(&["verify"]);
    assert!(
        whole.status.success() && text(&whole).contains(&format!("{} compiled", ENGINES.len())),
        "{}",
        text(&whole)
    );
    let damaged = &node.files("artifact")[0];
    let mut content = fs::read(damaged).expect("an artifact");
    content[100] ^= 1;
    fs::write(damaged, content).expect("an artifact");
    let found = node.tool(&["verify"]);
    assert!(!found.status.success() && text(&found).contains("damaged and removed: "), "{}", text(&found));
    assert_eq!(node.files("artifact").len(), ENGINES.len() - 1);

    let pruned = node.tool(&["prune"]);
    assert!(text(&pruned).starts_with("removed 0 compiled modules"), "{}", text(&pruned));
    for name in ENGINES {
        let run = node.run(&node.config, name, HELLO, name, &["/hello.wasm", "echo", "hi"]);
        assert_eq!(run.stdout(), "hi\n", "{}", run.stderr());
    }
    let pruned = node.tool(&["prune", "--max-bytes", "1000"]);
    assert!(text(&pruned).starts_with(&format!("removed {} compiled", ENGINES.len())), "{}", text(&pruned));
    assert_eq!(fs::read_dir(&node.cache).expect("a cache").count(), 0);
    let both = node.tool(&["prune", "--all", "--max-bytes", "1"]);
    assert!(!both.status.success() && text(&both).contains("--all"), "{}", text(&both));
    node.node.assert_nothing_left();
}
