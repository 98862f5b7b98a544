//! A containerd of one's own, tried with runc: what it starts it also takes away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use images::Image;
use testbed::containerd::Containerd;

const SLEEP: &str = "localhost/testbed/sleep:dev";

/// `/bin/sleep` of this machine, with the libraries it needs.
fn import_sleep(containerd: &Containerd) {
    let linked = Command::new("ldd").arg("/bin/sleep").output().unwrap();
    let words = String::from_utf8(linked.stdout).unwrap();
    let files = words.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/sleep"]);
    let image = files.fold(Image::new(SLEEP), |image, file| image.file(file, fs::read(file).unwrap()));
    let archive = containerd.folder().join("sleep.tar");
    image.write_archive(fs::File::create(&archive).unwrap()).unwrap();
    containerd.import(&archive);
}

/// runc keeps its state outside the folder unless told.
fn run(containerd: &Containerd, arguments: &[&str]) {
    let runc_root = containerd.folder().join("runc").display().to_string();
    let runtime = ["run", "--runtime", "io.containerd.runc.v2", "--runc-root", &runc_root, "--null-io"];
    let output = containerd.ctr(&[&runtime, arguments].concat());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_imported_image_is_complete_and_unpacked() {
    let containerd = Containerd::start(&[]);
    import_sleep(&containerd);
    let pulled = String::from_utf8(containerd.ctr(&["images", "check"]).stdout).unwrap();
    assert!(pulled.lines().any(|line| line.starts_with(SLEEP) && line.trim_end().ends_with("true")), "{pulled}");
}

#[test]
fn a_container_that_ended_leaves_nothing_behind() {
    let containerd = Containerd::start(&[]);
    import_sleep(&containerd);
    run(&containerd, &["--rm", SLEEP, "a", "/bin/sleep", "0"]);
    assert_eq!(containerd.leftovers(), [""; 0]);
}

#[test]
fn what_a_running_container_has_is_listed_and_goes_with_its_containerd() {
    let containerd = Containerd::start(&[]);
    import_sleep(&containerd);
    run(&containerd, &["--detach", SLEEP, "a", "/bin/sleep", "1000"]);

    let found = containerd.present();
    let rootfs = format!("mount {}", containerd.bundle("a").join("rootfs").display());
    for expected in ["containerd-shim-runc-v2", "/bin/sleep 1000", &rootfs, "cgroup /sys/fs/cgroup", "folder /"] {
        assert!(found.iter().any(|item| item.contains(expected)), "no {expected} in {found:#?}");
    }

    let processes = containerd.processes();
    let cgroups: Vec<PathBuf> =
        found.iter().filter_map(|item| item.strip_prefix("cgroup ")).map(PathBuf::from).collect();
    let folder = containerd.folder().to_owned();
    drop(containerd);
    assert!(!folder.exists());
    for pid in processes {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} runs");
    }
    for cgroup in cgroups {
        assert!(!cgroup.exists(), "{} exists", cgroup.display());
    }
}
