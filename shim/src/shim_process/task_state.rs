//! The states of a task, and what may happen in each. Pure: no process is touched here.

use time::OffsetDateTime;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// The code, or 128 and the number of the signal.
    pub(super) status: u32,
    pub(super) at: OffsetDateTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskState {
    Created,
    Running,
    Stopped(Exit),
}

/// What a client asks of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Start,
    /// One more process for the container that this is the first process of.
    Exec,
    Kill,
    Delete,
}

/// A request that the task's state does not allow, in the words of runc's shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("cannot start a {0} process")]
    Start(&'static str),
    #[error("cannot exec in a {0} state")]
    Exec(&'static str),
    #[error("process already finished")]
    AlreadyFinished,
    #[error("cannot delete a {0} process")]
    Delete(&'static str),
}

impl TaskState {
    pub(super) fn allows(self, request: Request) -> Result<(), Refused> {
        match (request, self) {
            (Request::Start, Self::Created)
            | (Request::Exec | Request::Kill, Self::Created | Self::Running)
            | (Request::Delete, Self::Created | Self::Stopped(_)) => Ok(()),
            (Request::Start, state) => Err(Refused::Start(state.name())),
            (Request::Exec, state) => Err(Refused::Exec(state.name())),
            (Request::Kill, Self::Stopped(_)) => Err(Refused::AlreadyFinished),
            (Request::Delete, state) => Err(Refused::Delete(state.name())),
        }
    }

    pub(super) fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped(exit) => Some(exit),
            Self::Created | Self::Running => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped(_) => "stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOPPED: TaskState = TaskState::Stopped(Exit { status: 0, at: OffsetDateTime::UNIX_EPOCH });

    #[test]
    fn every_request_in_every_state_is_allowed_or_refused_as_runc_does() {
        let (created, running) = (TaskState::Created, TaskState::Running);
        let table = [
            (Request::Start, created, Ok(())),
            (Request::Start, running, Err(Refused::Start("running"))),
            (Request::Start, STOPPED, Err(Refused::Start("stopped"))),
            (Request::Exec, created, Ok(())),
            (Request::Exec, running, Ok(())),
            (Request::Exec, STOPPED, Err(Refused::Exec("stopped"))),
            (Request::Kill, created, Ok(())),
            (Request::Kill, running, Ok(())),
            (Request::Kill, STOPPED, Err(Refused::AlreadyFinished)),
            (Request::Delete, created, Ok(())),
            (Request::Delete, running, Err(Refused::Delete("running"))),
            (Request::Delete, STOPPED, Ok(())),
        ];
        for (request, state, expected) in table {
            assert_eq!(state.allows(request), expected, "{request:?} of a task that is {state:?}");
        }
    }
}
