//! What someone with `ctr` sees of a container that runs to its end.

mod support;

use images::Image;
use support::{ENGINES, HELLO, Node, assert_echoes_until_its_input_ends, engine, wasm_image, wat_guest};

#[test]
fn a_guest_prints_on_either_engine() {
    let node = Node::start();
    for name in ENGINES {
        let run = node.run(&[&engine(name)], HELLO, name, &["/hello.wasm", "echo", "hi"]);
        assert_eq!((run.stdout().as_str(), run.status()), ("hi\n", 0), "{name}: {}", run.stderr());
    }
    node.assert_nothing_left();
}

#[test]
fn the_exit_code_of_a_guest_is_the_container_s() {
    let node = Node::start();
    for name in ENGINES {
        let run = node.run(&[&engine(name)], HELLO, name, &["/hello.wasm", "exit", "7"]);
        assert_eq!(run.status(), 7, "{name}: {}", run.stderr());
    }
}

#[test]
fn a_trap_ends_with_134_and_says_which() {
    let node = Node::start();
    for name in ENGINES {
        let run = node.run(&[&engine(name)], HELLO, name, &["/hello.wasm", "trap"]);
        assert_eq!(run.status(), 134, "{name}");
        let message = run.stderr();
        assert!(message.contains("trap: unreachable instruction executed"), "{name}: {message}");
        assert!(message.contains("wasm backtrace:\n  at "), "{name}: {message}");
    }
}

#[test]
fn a_guest_reads_its_input_to_the_end() {
    let node = Node::start();
    for name in ENGINES {
        let command = node.run_command(&["--rm", &engine(name)], HELLO, name, &["/hello.wasm", "stdin"]);
        assert_echoes_until_its_input_ends(command);
    }
}

#[test]
fn the_environment_of_a_guest_is_the_container_s() {
    let node = Node::start();
    for name in ENGINES {
        let options = ["--env", "GREETING=hello", "--env", "RUST_LOG=trace", &engine(name)];
        let run = node.run(&options, HELLO, name, &["/hello.wasm", "env"]);
        let printed = run.stdout();
        assert!(printed.contains("GREETING=hello\n") && printed.contains("RUST_LOG=trace\n"), "{name}: {printed}");
    }
}

#[test]
fn a_guest_built_for_the_original_abi_runs_as_it_is() {
    let node = Node::start();
    node.import(
        &wasm_image("localhost/test/original-state:1", wat_guest("original-abi-state"))
            .file("/config.yaml", "wasmPath: /app.wasm\ntrigger: state\ncomponentPath: /components/state.yaml\n")
            .file(
                "/components/state.yaml",
                "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: state}\n\
                 spec: {type: state.in-memory, version: v1}\n",
            ),
    );
    for name in ENGINES {
        let run = node.run(&[&engine(name)], "localhost/test/original-state:1", name, &[]);
        assert_eq!((run.stdout().trim_end(), run.status()), ("value", 0), "{name}: {}", run.stderr());
    }
}

#[test]
fn an_entry_point_may_name_another_function() {
    let node = Node::start();
    let module = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start"))
        (func (export "other") (call $exit (i32.const 9))))"#;
    node.import(&wasm_image("localhost/test/functions:1", wat::parse_str(module).expect("valid")));
    for name in ENGINES {
        let run = node.run(&[&engine(name)], "localhost/test/functions:1", name, &["/app.wasm#other"]);
        assert_eq!(run.status(), 9, "{name}: {}", run.stderr());
    }
}

#[test]
fn two_hundred_runs_leave_nothing_behind() {
    let node = Node::start();
    for round in 0..200 {
        let name = ENGINES[round % ENGINES.len()];
        let run = node.run(&[&engine(name)], HELLO, &format!("run-{round}"), &["/hello.wasm", "echo", "hi"]);
        assert_eq!((run.stdout().as_str(), run.status()), ("hi\n", 0), "run {round}: {}", run.stderr());
    }
    node.assert_nothing_left();
}

#[test]
fn a_guest_sees_and_changes_the_files_of_its_root() {
    let node = Node::start();
    node.import(
        &Image::new("localhost/test/files:1")
            .file("/hello.wasm", support::guest("hello"))
            .file("/data/greeting", "good day\n")
            .link("/data/out", "/../../../../etc/passwd")
            .entrypoint(["/hello.wasm"]),
    );
    for name in ENGINES {
        let run = |container: &str, words: &[&str]| {
            let mut arguments = vec!["/hello.wasm"];
            arguments.extend(words);
            node.run(&[&engine(name)], "localhost/test/files:1", &format!("{name}-{container}"), &arguments)
        };
        assert_eq!(run("cat", &["cat", "/data/greeting"]).stdout(), "good day\n", "{name}");
        assert_eq!(run("write", &["write", "/data/new", "text"]).status(), 0, "{name}");
        let outside = run("out", &["cat", "/data/out"]);
        assert!(outside.status() != 0 && !outside.stdout().contains("root:"), "{name}: {}", outside.stdout());
    }
}

/// Prints the file `greeting` of the directory that it was given as `.`.
const GREETS: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open"
      (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_dir_name"
      (func $fd_prestat_dir_name (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "greeting")
    (func $ok (param $errno i32) (if (local.get $errno) (then (call $proc_exit (local.get $errno)))))
    (func $directory (result i32) (local $fd i32)
      (local.set $fd (i32.const 3))
      (loop $next
        (call $ok (call $fd_prestat_get (local.get $fd) (i32.const 16)))
        (if (i32.eq (i32.load (i32.const 20)) (i32.const 1))
          (then
            (call $ok (call $fd_prestat_dir_name (local.get $fd) (i32.const 24) (i32.const 1)))
            (if (i32.eq (i32.load8_u (i32.const 24)) (i32.const 0x2e)) (then (return (local.get $fd))))))
        (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
        (br $next))
      (unreachable))
    (func (export "_start")
      (call $ok (call $path_open (call $directory) (i32.const 0) (i32.const 64) (i32.const 8) (i32.const 0)
        (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0)))
      (i32.store (i32.const 8) (i32.const 128))
      (i32.store (i32.const 12) (i32.const 100))
      (call $ok (call $fd_read (i32.load (i32.const 0)) (i32.const 8) (i32.const 1) (i32.const 12)))
      (call $ok (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 4)))))"#;

#[test]
fn a_guest_finds_its_working_directory() {
    let node = Node::start();
    node.import(
        &Image::new("localhost/test/folders:1")
            .file("/hello.wasm", support::guest("hello"))
            .file("/greets.wasm", wat::parse_str(GREETS).expect("a valid module"))
            .file("/data/greeting", "good day\n")
            .file("/other/greeting", "good night\n")
            .working_dir("/data")
            .entrypoint(["/greets.wasm"]),
    );
    for name in ENGINES {
        for (place, options, folder, greeting) in
            [("image", &[][..], "/data", "good day\n"), ("spec", &["--cwd=/other"], "/other", "good night\n")]
        {
            let engine = engine(name);
            let options = [options, &[&engine]].concat();
            let run = |kind: &str, words: &[&str]| {
                let run = node.run(&options, "localhost/test/folders:1", &format!("{name}-{place}-{kind}"), words);
                assert_eq!(run.status(), 0, "{name}: {}", run.stderr());
                run.stdout()
            };
            assert_eq!(run("dot", &["/greets.wasm"]), greeting, "{name}");
            assert!(run("pwd", &["/hello.wasm", "env"]).lines().any(|line| line == format!("PWD={folder}")), "{name}");
            // So does a module's path.
            assert_eq!(run("relative", &["../hello.wasm", "echo", "hi"]), "hi\n", "{name}");
            // Absolute paths start at the root all the same.
            assert_eq!(run("absolute", &["/hello.wasm", "cat", "/other/greeting"]), "good night\n", "{name}");
        }
    }
}
