//! The images of the pods.

use std::fs;

use images::Image;

use crate::support::wasm_image;

pub(crate) const HELLO: &str = "localhost/dapr-wasm/hello:dev";
pub(crate) const HTTP: &str = "localhost/dapr-wasm/http:dev";
pub(crate) const STATE: &str = "localhost/dapr-wasm/state:dev";
/// Those that `make images` packs.
pub(crate) const GUESTS: [&str; 3] = ["hello", "http", "state"];
/// Ordinary Linux programs.
pub(crate) const BUSYBOX: &str = "localhost/test/busybox:1";
/// A guest that takes memory until there is no more.
pub(crate) const GREEDY: &str = "localhost/test/greedy:1";

const APPLETS: [&str; 10] = ["cat", "echo", "grep", "mkfifo", "nc", "ps", "sh", "sleep", "stat", "stty"];

pub(crate) fn busybox() -> Image {
    let program = fs::read("/bin/busybox").expect("busybox, from the Debian package busybox-static");
    let image = Image::new(BUSYBOX).file("/bin/busybox", program).directory("/tmp");
    let image = APPLETS.iter().fold(image, |image, applet| image.link(format!("/bin/{applet}"), "busybox"));
    image.environment_variable("PATH", "/bin")
}

pub(crate) fn greedy() -> Image {
    let module = r#"(module
        (memory (export "memory") 0)
        (func (export "_start") (local $end i32)
          (loop $again
            (local.set $end (i32.mul (memory.grow (i32.const 16)) (i32.const 65536)))
            (memory.fill (local.get $end) (i32.const 1) (i32.const 1048576))
            (br $again))))"#;
    wasm_image(GREEDY, wat::parse_str(module).expect("a valid module"))
}

/// What makes a container of [`BUSYBOX`] run this script.
pub(crate) fn shell(script: &str) -> String {
    format!("image: {BUSYBOX}, command: [sh, -c, {}]", serde_json::json!(script))
}

/// A script that asks a server until it answers, and prints the answer. `nc` keeps its input open until then: a client
/// that closes it is taken for gone.
pub(crate) fn get(host: &str, port: u16) -> String {
    format!(
        r"mkfifo /tmp/request; exec 3<>/tmp/request; printf 'GET / HTTP/1.0\r\n\r\n' >&3
          until nc {host} {port} <&3; do sleep 0.1; done; echo"
    )
}
