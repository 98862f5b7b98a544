//! WASI preview 1, as programs use it: through the standard library of the language they are written in.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _, pipe};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use engines::engine::Stop;
use tempfile::TempDir;

use crate::guest::{Ended, Guest, Program, Subject, wat};
use crate::runner::{Case, cases};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases! {
        "wasi", Program::Rust("hello");
        arguments_reach_the_guest,
        a_guest_without_arguments_sees_none,
        the_environment_reaches_the_guest,
        the_hosts_environment_does_not_reach_the_guest,
        standard_input_is_read_to_its_end,
        standard_input_ends_when_its_writer_is_gone,
        standard_input_is_read_as_it_comes,
        standard_output_and_error_are_apart,
        output_of_ten_megabytes_goes_through_a_pipe,
        the_wall_clock_is_the_hosts,
        the_monotonic_clock_counts_a_sleep,
        random_numbers_differ,
        the_exit_code_is_the_guests,
        returning_from_main_is_code_0,
        a_file_is_read,
        a_file_is_written,
        a_file_is_shortened_when_it_is_written_again,
        a_folder_is_listed,
        a_file_in_a_folder_is_read,
        what_is_missing_is_an_error_of_the_guest,
        a_folder_is_no_file,
        relative_paths_start_in_the_root,
        a_folder_of_the_guest_may_be_anywhere_on_the_host,
        nothing_is_there_without_a_preopened_root,
        dots_stay_inside_the_root,
        dots_do_not_leave_the_root,
        links_stay_inside_the_root,
        links_do_not_leave_the_root,
    };
    cases.extend(cases! { "wasi", wat!("hostile-wasi"); an_address_outside_memory_harms_only_the_guest });
    cases
}

/// A guest that is given the words after its own name.
fn hello(subject: &Subject, words: &[&str]) -> anyhow::Result<Guest> {
    Ok(subject.guest()?.args(&[&["hello"], words].concat()))
}

/// What the guest printed, which ended well.
async fn printed(guest: Guest) -> anyhow::Result<String> {
    Ok(String::from_utf8(guest.start().await?.success()?)?)
}

async fn arguments_reach_the_guest(subject: Subject) -> anyhow::Result<()> {
    let words = ["echo", "one", "two words", "", "-x", "ünïcode 🦀", "$HOME"];
    ensure!(printed(hello(&subject, &words)?).await? == "one two words  -x ünïcode 🦀 $HOME\n");
    Ok(())
}

async fn a_guest_without_arguments_sees_none(subject: Subject) -> anyhow::Result<()> {
    ensure!(printed(subject.guest()?).await? == "Hello from WASM!\n");
    Ok(())
}

async fn the_environment_reaches_the_guest(subject: Subject) -> anyhow::Result<()> {
    let guest = hello(&subject, &["env"])?.env(&[("PATH", "/bin:/usr/bin"), ("EMPTY", ""), ("EQUATION", "a=b=ü")]);
    ensure!(printed(guest).await? == "EMPTY=\nEQUATION=a=b=ü\nPATH=/bin:/usr/bin\n");
    Ok(())
}

async fn the_hosts_environment_does_not_reach_the_guest(subject: Subject) -> anyhow::Result<()> {
    ensure!(printed(hello(&subject, &["env"])?).await? == "");
    Ok(())
}

/// A file to read from its start.
fn file(content: &[u8]) -> anyhow::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

async fn standard_input_is_read_to_its_end(subject: Subject) -> anyhow::Result<()> {
    for bytes in [0, 1, 100_000] {
        let input: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
        let ended = hello(&subject, &["stdin"])?.stdin(file(&input)?).start().await?;
        ensure!(ended.success()? == input, "{bytes} bytes do not come back");
    }
    Ok(())
}

async fn standard_input_ends_when_its_writer_is_gone(subject: Subject) -> anyhow::Result<()> {
    let (reader, mut writer) = pipe()?;
    let guest = tokio::spawn(hello(&subject, &["stdin"])?.stdin(reader).start());
    writer.write_all(b"through a pipe")?;
    drop(writer);
    ensure!(guest.await??.success()? == b"through a pipe");
    Ok(())
}

async fn standard_input_is_read_as_it_comes(subject: Subject) -> anyhow::Result<()> {
    let ((stdin, mut input), (mut output, stdout)) = (pipe()?, pipe()?);
    let guest = tokio::spawn(hello(&subject, &["stdin"])?.stdin(stdin).stdout(stdout).start());
    for line in ["one\n", "two\n"] {
        input.write_all(line.as_bytes())?;
        let mut echo = vec![0; line.len()];
        output.read_exact(&mut echo)?;
        ensure!(echo == line.as_bytes());
    }
    drop(input);
    guest.await??.success()?;
    Ok(())
}

async fn standard_output_and_error_are_apart(subject: Subject) -> anyhow::Result<()> {
    let ended = hello(&subject, &["stderr", "trouble"])?.start().await?;
    ensure!((ended.stdout(), ended.stderr()) == (String::new(), "trouble\n".to_owned()));
    let ended = hello(&subject, &["echo", "result"])?.start().await?;
    ensure!((ended.stdout(), ended.stderr()) == ("result\n".to_owned(), String::new()));
    Ok(())
}

async fn output_of_ten_megabytes_goes_through_a_pipe(subject: Subject) -> anyhow::Result<()> {
    let input = b"0123456789abcde\n".repeat(10_000_000 / 16);
    let (mut output, stdout) = pipe()?;
    let collect = thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).map(|_| bytes)
    });
    hello(&subject, &["stdin"])?.stdin(file(&input)?).stdout(stdout).start().await?.success()?;
    let Ok(bytes) = collect.join() else { bail!("the reader failed") };
    ensure!(bytes? == input);
    Ok(())
}

/// A number that `hello clock` prints behind a name.
fn clock(output: &str, name: &str) -> anyhow::Result<u64> {
    let value = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.with_context(|| format!("no {name} in {output:?}"))?.parse().context(name.to_owned())
}

async fn the_wall_clock_is_the_hosts(subject: Subject) -> anyhow::Result<()> {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|time| time.as_secs());
    let before = now()?;
    let guests = clock(&printed(hello(&subject, &["clock"])?).await?, "unix-seconds")?;
    let after = now()?;
    ensure!((before..=after).contains(&guests), "{guests}, between {before} and {after}");
    Ok(())
}

async fn the_monotonic_clock_counts_a_sleep(subject: Subject) -> anyhow::Result<()> {
    let started = Instant::now();
    let slept = clock(&printed(hello(&subject, &["clock"])?).await?, "slept-microseconds")?;
    let slept = Duration::from_micros(slept);
    let asked = Duration::from_millis(10);
    ensure!((asked..started.elapsed()).contains(&slept), "{slept:?} of {:?}", started.elapsed());
    Ok(())
}

async fn random_numbers_differ(subject: Subject) -> anyhow::Result<()> {
    let one = printed(hello(&subject, &["random"])?).await?;
    let another = printed(hello(&subject, &["random"])?).await?;
    let mut numbers: Vec<_> = one.split_whitespace().chain(another.split_whitespace()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    ensure!(numbers.len() == 4, "{one}{another}");
    Ok(())
}

async fn the_exit_code_is_the_guests(subject: Subject) -> anyhow::Result<()> {
    for code in [0, 1, 2, 7, 42, 125, 126, 127, 128, 137, 255] {
        ensure!(hello(&subject, &["exit", &code.to_string()])?.start().await?.exit_code()? == code);
    }
    Ok(())
}

async fn returning_from_main_is_code_0(subject: Subject) -> anyhow::Result<()> {
    ensure!(hello(&subject, &["echo"])?.start().await?.exit_code()? == 0);
    Ok(())
}

/// A root for a guest, and beside it what no guest may reach.
struct Root {
    folder: TempDir,
}

impl Root {
    fn new() -> anyhow::Result<Self> {
        let root = Self { folder: tempfile::tempdir()? };
        fs::create_dir_all(root.inside().join("folder/deeper"))?;
        fs::write(root.inside().join("file"), "inside\n")?;
        fs::write(root.inside().join("folder/file"), "deeper\n")?;
        fs::write(root.outside().join("secret"), "secret\n")?;
        Ok(root)
    }

    fn inside(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    fn outside(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a guest that has this root.
    async fn run(&self, subject: &Subject, words: &[&str]) -> anyhow::Result<Ended> {
        hello(subject, words)?.preopen(&self.inside(), "/").start().await
    }

    async fn printed(&self, subject: &Subject, words: &[&str]) -> anyhow::Result<String> {
        let printed = self.run(subject, words).await?.success();
        Ok(String::from_utf8(printed.with_context(|| words.join(" "))?)?)
    }

    /// The guest must end with an error of its own, which names the path.
    async fn refused(&self, subject: &Subject, words: &[&str]) -> anyhow::Result<()> {
        let ended = self.run(subject, words).await?;
        ensure!(ended.exit_code()? == 1, "{}: exited with {}", words.join(" "), ended.exit_code()?);
        ensure!(ended.stdout.is_empty(), "{}: printed {:?}", words.join(" "), ended.stdout());
        ensure!(ended.stderr().contains(words[1]), "{}: {:?}", words.join(" "), ended.stderr());
        Ok(())
    }
}

async fn a_file_is_read(subject: Subject) -> anyhow::Result<()> {
    ensure!(Root::new()?.printed(&subject, &["cat", "/file"]).await? == "inside\n");
    Ok(())
}

async fn a_file_is_written(subject: Subject) -> anyhow::Result<()> {
    let root = Root::new()?;
    root.printed(&subject, &["write", "/folder/new", "text"]).await?;
    ensure!(fs::read_to_string(root.inside().join("folder/new"))? == "text");
    Ok(())
}

async fn a_file_is_shortened_when_it_is_written_again(subject: Subject) -> anyhow::Result<()> {
    let root = Root::new()?;
    root.printed(&subject, &["write", "/file", "x"]).await?;
    ensure!(fs::read_to_string(root.inside().join("file"))? == "x");
    Ok(())
}

async fn a_folder_is_listed(subject: Subject) -> anyhow::Result<()> {
    let root = Root::new()?;
    ensure!(root.printed(&subject, &["ls", "/"]).await? == "file\nfolder\n");
    ensure!(root.printed(&subject, &["ls", "/folder"]).await? == "deeper\nfile\n");
    ensure!(root.printed(&subject, &["ls", "/folder/deeper"]).await? == "");
    // More than one call of the host can tell.
    for index in 0..300 {
        fs::write(root.inside().join(format!("folder/deeper/file-{index:04}")), "")?;
    }
    let names: String = (0..300).map(|index| format!("file-{index:04}\n")).collect();
    ensure!(root.printed(&subject, &["ls", "/folder/deeper"]).await? == names);
    Ok(())
}

async fn a_file_in_a_folder_is_read(subject: Subject) -> anyhow::Result<()> {
    ensure!(Root::new()?.printed(&subject, &["cat", "/folder/file", "/file"]).await? == "deeper\ninside\n");
    Ok(())
}

async fn what_is_missing_is_an_error_of_the_guest(subject: Subject) -> anyhow::Result<()> {
    let root = Root::new()?;
    for words in [["cat", "/missing"], ["cat", "/missing/file"], ["ls", "/missing"]] {
        root.refused(&subject, &words).await?;
        let stderr = root.run(&subject, &words).await?.stderr();
        ensure!(stderr.contains("No such file or directory"), "{}: {stderr:?}", words.join(" "));
    }
    root.refused(&subject, &["write", "/missing/file", "text"]).await
}

async fn a_folder_is_no_file(subject: Subject) -> anyhow::Result<()> {
    let root = Root::new()?;
    root.refused(&subject, &["cat", "/folder"]).await?;
    root.refused(&subject, &["write", "/folder", "text"]).await?;
    root.refused(&subject, &["ls", "/file"]).await?;
    root.refused(&subject, &["cat", "/file/file"]).await
}

async fn relative_paths_start_in_the_root(subject: Subject) -> anyhow::Result<()> {
    let root = Root::new()?;
    ensure!(root.printed(&subject, &["cat", "file", "./folder/file"]).await? == "inside\ndeeper\n");
    root.printed(&subject, &["write", "folder/new", "text"]).await?;
    ensure!(fs::read_to_string(root.inside().join("folder/new"))? == "text");
    ensure!(root.printed(&subject, &["ls", "."]).await? == "file\nfolder\n");
    Ok(())
}

async fn a_folder_of_the_guest_may_be_anywhere_on_the_host(subject: Subject) -> anyhow::Result<()> {
    let (root, other) = (Root::new()?, Root::new()?);
    fs::write(other.inside().join("folder/file"), "other\n")?;
    let guest = |words: &[&str]| {
        let guest = hello(&subject, words)?.preopen(&root.inside(), "/");
        anyhow::Ok(guest.preopen(&other.inside().join("folder"), "/mounted/here"))
    };
    ensure!(
        printed(guest(&["cat", "/file", "/folder/file", "/mounted/here/file"])?).await? == "inside\ndeeper\nother\n"
    );
    printed(guest(&["write", "/mounted/here/new", "text"])?).await?;
    ensure!(fs::read_to_string(other.inside().join("folder/new"))? == "text");
    let escaped = guest(&["cat", "/mounted/here/../file"])?.start().await?;
    ensure!(!escaped.stdout().contains("other"), "{escaped:?}");
    Ok(())
}

async fn nothing_is_there_without_a_preopened_root(subject: Subject) -> anyhow::Result<()> {
    for words in [["cat", "/etc/passwd"], ["ls", "/"], ["ls", "."]] {
        let ended = hello(&subject, &words)?.start().await?;
        ensure!((ended.exit_code()?, ended.stdout()) == (1, String::new()), "{}: {ended:?}", words.join(" "));
    }
    Ok(())
}

async fn dots_stay_inside_the_root(subject: Subject) -> anyhow::Result<()> {
    let root = Root::new()?;
    for path in ["/folder/../file", "/folder/deeper/../../file", "/./file"] {
        ensure!(root.printed(&subject, &["cat", path]).await? == "inside\n", "{path}");
    }
    Ok(())
}

async fn dots_do_not_leave_the_root(subject: Subject) -> anyhow::Result<()> {
    let root = Root::new()?;
    for path in ["/../secret", "/folder/../../secret", "/./../secret", "/folder/deeper/../../../secret"] {
        root.refused(&subject, &["cat", path]).await?;
    }
    let secret = root.outside().join("secret");
    root.refused(&subject, &["cat", &format!("/../../../../../..{}", secret.display())]).await?;
    root.refused(&subject, &["write", "/../secret", "overwritten"]).await?;
    root.refused(&subject, &["write", "/../new", "text"]).await?;
    ensure!(fs::read_to_string(secret)? == "secret\n");
    ensure!(!root.outside().join("new").exists());
    Ok(())
}

async fn links_stay_inside_the_root(subject: Subject) -> anyhow::Result<()> {
    let root = Root::new()?;
    symlink("file", root.inside().join("link"))?;
    symlink("../../file", root.inside().join("folder/deeper/up"))?;
    symlink("folder", root.inside().join("linked-folder"))?;
    for path in ["/link", "/folder/deeper/up", "/linked-folder/deeper/up"] {
        ensure!(root.printed(&subject, &["cat", path]).await? == "inside\n", "{path}");
    }
    ensure!(root.printed(&subject, &["ls", "/linked-folder"]).await? == "deeper\nfile\n");
    root.printed(&subject, &["write", "/link", "through a link"]).await?;
    ensure!(fs::read_to_string(root.inside().join("file"))? == "through a link");
    Ok(())
}

async fn links_do_not_leave_the_root(subject: Subject) -> anyhow::Result<()> {
    let root = Root::new()?;
    symlink("../secret", root.inside().join("relative"))?;
    symlink(root.outside().join("secret"), root.inside().join("absolute"))?;
    symlink("..", root.inside().join("parent"))?;
    symlink(root.outside(), root.inside().join("absolute-parent"))?;
    symlink("relative", root.inside().join("link-to-a-link"))?;
    symlink("../new", root.inside().join("dangling"))?;
    symlink("loop", root.inside().join("loop"))?;
    for path in ["/relative", "/absolute", "/parent/secret", "/absolute-parent/secret", "/link-to-a-link", "/loop"] {
        root.refused(&subject, &["cat", path]).await?;
        root.refused(&subject, &["write", path, "overwritten"]).await?;
    }
    for path in ["/parent", "/absolute-parent", "/parent/root"] {
        root.refused(&subject, &["ls", path]).await?;
    }
    for path in ["/dangling", "/parent/new", "/absolute-parent/new"] {
        root.refused(&subject, &["write", path, "text"]).await?;
    }
    ensure!(fs::read_to_string(root.outside().join("secret"))? == "secret\n");
    ensure!(!root.outside().join("new").exists());
    Ok(())
}

/// Engines may answer with an error number, or trap: no program relies on either.
async fn an_address_outside_memory_harms_only_the_guest(subject: Subject) -> anyhow::Result<()> {
    let exports = [
        "write-list-outside-memory",
        "write-list-longer-than-memory",
        "write-from-half-outside",
        "write-count-outside-memory",
        "read-into-outside-memory",
        "arguments-outside-memory",
        "time-half-outside",
        "random-numbers-outside-memory",
        "path-outside-memory",
        "subscriptions-longer-than-memory",
    ];
    let root = Root::new()?;
    for export in exports {
        let guest = subject.guest()?.stdin(file(b"input")?).preopen(&root.inside(), "/");
        let ended = guest.run(export).await?;
        ensure!(matches!(ended.stopped, Err(Stop::Trap(_) | Stop::Exit(1..))), "{export}: {ended:?}");
        ensure!((ended.stdout(), ended.stderr()) == Default::default(), "{export}: {ended:?}");
    }
    Ok(())
}
