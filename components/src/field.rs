//! What the metadata of a component may hold. One description serves the code that reads a value, the warning about a
//! name that nobody reads, and docs/components.md.

use std::time::Duration;

use crate::duration::GoDuration;

/// One name in a component's `spec.metadata`.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// As Dapr writes it; the case does not matter.
    pub name: &'static str,
    /// What else Dapr calls it. The first of all names that has a value counts.
    pub aliases: &'static [&'static str],
    pub kind: Kind,
    /// What counts where nothing is written.
    pub default: Option<&'static str>,
    pub is_required: bool,
    /// For users, in Markdown.
    pub meaning: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A text that no message repeats.
    Secret,
    Flag,
    Integer,
    /// A duration, in which an integer without a unit counts seconds.
    Seconds,
    /// The same with milliseconds.
    Milliseconds,
    /// Dapr's, and not here: a component that asks for it cannot be made.
    Refused,
}

impl Kind {
    /// What an integer without a unit counts.
    pub(crate) fn unit(self) -> Duration {
        if self == Self::Milliseconds { Duration::from_millis(1) } else { Duration::from_secs(1) }
    }
}

impl Field {
    pub const fn text(name: &'static str, meaning: &'static str) -> Self {
        Self::new(name, Kind::Text, meaning)
    }

    pub const fn secret(name: &'static str, meaning: &'static str) -> Self {
        Self::new(name, Kind::Secret, meaning)
    }

    pub const fn flag(name: &'static str, meaning: &'static str) -> Self {
        Self::new(name, Kind::Flag, meaning).or("false")
    }

    pub const fn integer(name: &'static str, meaning: &'static str) -> Self {
        Self::new(name, Kind::Integer, meaning)
    }

    pub const fn seconds(name: &'static str, meaning: &'static str) -> Self {
        Self::new(name, Kind::Seconds, meaning)
    }

    pub const fn milliseconds(name: &'static str, meaning: &'static str) -> Self {
        Self::new(name, Kind::Milliseconds, meaning)
    }

    pub const fn refused(name: &'static str, meaning: &'static str) -> Self {
        Self::new(name, Kind::Refused, meaning)
    }

    const fn new(name: &'static str, kind: Kind, meaning: &'static str) -> Self {
        Self { name, aliases: &[], kind, default: None, is_required: false, meaning }
    }

    #[must_use]
    pub const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    #[must_use]
    pub const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    #[must_use]
    pub const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    /// The default of a field for a duration, if it is above zero.
    pub fn default_duration(&self) -> Option<Duration> {
        GoDuration::parse(self.default?, self.kind.unit())?.positive()
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.name].into_iter().chain(self.aliases.iter().copied())
    }
}

/// Constants for fields, and `FIELDS`, which has all of them: none is read that is not described.
macro_rules! fields {
    ($visibility:vis $all:ident { $($name:ident = $field:expr;)* }) => {
        $($visibility const $name: $crate::field::Field = $field;)*
        $visibility const $all: &[$crate::field::Field] = &[$($name),*];
    };
}
pub(crate) use fields;

/// A component type, for users.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// In Markdown, whole sentences.
    pub about: &'static str,
    pub fields: &'static [Field],
    /// Names that Dapr has and that mean nothing here, and are no mistake.
    pub without_effect: &'static [&'static str],
}

impl Description {
    /// Every name that somebody may write, for a list.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().flat_map(Field::names).chain(self.without_effect.iter().copied())
    }
}
