//! The image of the container that holds a pod's namespaces.

use std::fs;
use std::path::Path;
use std::process::Command;

use images::Image;

pub const PAUSE_IMAGE: &str = "localhost/testbed/pause:1";

/// Sleeps until it is told to end, and buries what the pod leaves to it where the pod shares its processes.
const PROGRAM: &str = r"
#include <signal.h>
#include <unistd.h>

static void end(int signal) { _exit(0); }

int main(void) {
  signal(SIGCHLD, SIG_IGN);
  signal(SIGINT, end);
  signal(SIGTERM, end);
  for (;;)
    pause();
}
";

/// Compiles and packs it.
pub(crate) fn pause_image(folder: &Path) -> Image {
    let (source, program) = (folder.join("pause.c"), folder.join("pause"));
    fs::write(&source, PROGRAM).expect("a file for a program");
    let compiled = Command::new("gcc").args(["-static", "-O", "-s", "-o"]).args([&program, &source]).output();
    let compiled = compiled.expect("gcc, from the Debian package of this name");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let program = fs::read(&program).expect("the compiled program");
    Image::new(PAUSE_IMAGE).file("/pause", program).entrypoint(["/pause"])
}
