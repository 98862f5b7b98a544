//! What containerd tells of the tasks of a node, in the order in which it was told.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Node;

/// `ctr events`, from a moment at which it has subscribed.
pub struct Events {
    ctr: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Events {
    pub fn of(node: &Node) -> Self {
        let mut ctr = node.containerd.ctr_command(&["events"]).stdout(Stdio::piped()).spawn().expect("ctr events");
        let stdout = BufReader::new(ctr.stdout.take().expect("a pipe"));
        let mut lines = Box::new(stdout.lines().map(|line| line.expect("text")));
        let subscribed = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // A label that was set before the subscription is not seen.
                for marker in (0..).take_while(|_| !subscribed.load(Ordering::Relaxed)) {
                    node.ctr(&["namespaces", "label", node.containerd.namespace(), &format!("marker={marker}")]);
                }
            });
            lines.find(|line| line.contains("/namespaces/update")).expect("a marker");
            subscribed.store(true, Ordering::Relaxed);
        });
        Self { ctr, lines }
    }

    /// The next topics of a task's life, up to this one: `create`, `exit`; that of an exec's end is `exit of ID`.
    pub fn topics_until(&mut self, last: &str) -> Vec<String> {
        let mut topics = Vec::new();
        for line in &mut self.lines {
            let Some(topic) = line.split_whitespace().find_map(|word| word.strip_prefix("/tasks/")) else { continue };
            let field =
                |name: &str| line.split(&format!("\"{name}\":\"")).nth(1).and_then(|rest| rest.split('"').next());
            topics.push(match (field("container_id"), field("id")) {
                (Some(container), Some(id)) if topic == "exit" && container != id => format!("exit of {id}"),
                _ => topic.to_owned(),
            });
            if topics.last().is_some_and(|topic| topic == last) {
                break;
            }
        }
        topics
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.ctr.kill();
        let _ = self.ctr.wait();
    }
}
