//! The states of a task, and what may happen in each. Pure: no process is touched here.

use time::OffsetDateTime;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// The code, or 128 and the number of the signal.
    pub(super) status: u32,
    pub(super) at: OffsetDateTime,
}

impl Exit {
    /// Of a process that never ran and will not: as if it had been killed just now.
    pub(super) fn killed() -> Self {
        Self { status: 128 + 9, at: OffsetDateTime::now_utc() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskState {
    Created,
    Running,
    /// Everything in the container stands still.
    Paused,
    Stopped(Exit),
}

/// What a client asks of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Start,
    /// One more process for the container that this is the first process of.
    Exec,
    Pause,
    Resume,
    Update,
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
    #[error("cannot pause a {0} container")]
    Pause(&'static str),
    #[error("cannot resume a {0} container")]
    Resume(&'static str),
    #[error("cannot update a {0} container")]
    Update(&'static str),
    #[error("process already finished")]
    AlreadyFinished,
    #[error("cannot delete a {0} process")]
    Delete(&'static str),
}

impl TaskState {
    pub(super) fn allows(self, request: Request) -> Result<(), Refused> {
        match (request, self) {
            (Request::Start, Self::Created)
            | (Request::Exec, Self::Created | Self::Running)
            | (Request::Pause, Self::Running)
            | (Request::Resume, Self::Paused)
            | (Request::Update | Request::Kill, Self::Created | Self::Running | Self::Paused)
            | (Request::Delete, Self::Created | Self::Stopped(_)) => Ok(()),
            (Request::Start, state) => Err(Refused::Start(state.name())),
            (Request::Exec, state) => Err(Refused::Exec(state.name())),
            (Request::Pause, state) => Err(Refused::Pause(state.name())),
            (Request::Resume, state) => Err(Refused::Resume(state.name())),
            (Request::Update, state) => Err(Refused::Update(state.name())),
            (Request::Kill, Self::Stopped(_)) => Err(Refused::AlreadyFinished),
            (Request::Delete, state) => Err(Refused::Delete(state.name())),
        }
    }

    pub(super) fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped(exit) => Some(exit),
            Self::Created | Self::Running | Self::Paused => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
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
        let (created, running, paused) = (TaskState::Created, TaskState::Running, TaskState::Paused);
        let table = [
            (Request::Start, created, Ok(())),
            (Request::Start, running, Err(Refused::Start("running"))),
            (Request::Start, paused, Err(Refused::Start("paused"))),
            (Request::Start, STOPPED, Err(Refused::Start("stopped"))),
            (Request::Exec, created, Ok(())),
            (Request::Exec, running, Ok(())),
            (Request::Exec, paused, Err(Refused::Exec("paused"))),
            (Request::Exec, STOPPED, Err(Refused::Exec("stopped"))),
            (Request::Pause, created, Err(Refused::Pause("created"))),
            (Request::Pause, running, Ok(())),
            (Request::Pause, paused, Err(Refused::Pause("paused"))),
            (Request::Pause, STOPPED, Err(Refused::Pause("stopped"))),
            (Request::Resume, created, Err(Refused::Resume("created"))),
            (Request::Resume, running, Err(Refused::Resume("running"))),
            (Request::Resume, paused, Ok(())),
            (Request::Resume, STOPPED, Err(Refused::Resume("stopped"))),
            (Request::Update, created, Ok(())),
            (Request::Update, running, Ok(())),
            (Request::Update, paused, Ok(())),
            (Request::Update, STOPPED, Err(Refused::Update("stopped"))),
            (Request::Kill, created, Ok(())),
            (Request::Kill, running, Ok(())),
            (Request::Kill, paused, Ok(())),
            (Request::Kill, STOPPED, Err(Refused::AlreadyFinished)),
            (Request::Delete, created, Ok(())),
            (Request::Delete, running, Err(Refused::Delete("running"))),
            (Request::Delete, paused, Err(Refused::Delete("paused"))),
            (Request::Delete, STOPPED, Ok(())),
        ];
        for (request, state, expected) in table {
            assert_eq!(state.allows(request), expected, "{request:?} of a task that is {state:?}");
        }
    }
}
