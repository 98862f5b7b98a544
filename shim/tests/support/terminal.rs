//! A user at a terminal.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A program that has a terminal of 33 rows and 77 columns.
pub struct Terminal {
    script: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Terminal {
    /// Starts the program of a command. Beyond its arguments and environment nothing of the command counts.
    pub fn start(command: &Command) -> Self {
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let line = words.iter().map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ");
        let mut script = Command::new("script");
        for (name, value) in command.get_envs() {
            script.env(name, value.expect("a variable that is set"));
        }
        script.args(["--quiet", "--return", "--command", &format!("stty rows 33 cols 77; exec {line}"), "/dev/null"]);
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
        let stdin = script.stdin.take().expect("a pipe");
        let lines = BufReader::new(script.stdout.take().expect("a pipe")).lines();
        Self { script, stdin, lines }
    }

    /// The next line that it shows, without its end.
    pub fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text").trim_end().to_owned()
    }

    pub fn type_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("script reads");
    }

    /// Waits for the program's end and answers its exit code.
    pub fn exit_code(mut self) -> i32 {
        drop(self.stdin);
        self.lines.for_each(drop);
        self.script.wait().expect("script ends").code().expect("an exit code")
    }
}
