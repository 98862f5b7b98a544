//! What a capability answers when it cannot do what a guest asked.

use std::fmt;

/// The classes of Dapr's component errors, in their spelling towards a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The item was changed by someone else since the etag was read.
    EtagMismatch,
    /// The store cannot have issued this etag.
    EtagInvalid,
    /// No component of that name, or nothing of that name in it.
    NotFound,
    InvalidArgument,
    /// The store is unreachable or did not answer in time; trying again may help.
    Unavailable,
    PermissionDenied,
    Internal,
}

impl ErrorClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EtagMismatch => "etag-mismatch",
            Self::EtagInvalid => "etag-invalid",
            Self::NotFound => "not-found",
            Self::InvalidArgument => "invalid-argument",
            Self::Unavailable => "unavailable",
            Self::PermissionDenied => "permission-denied",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A class for programs and a message for people. Its display form, `class: message`, is what a guest of the
/// original interfaces gets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {message}")]
pub struct Error {
    pub class: ErrorClass,
    pub message: String,
    without_effect: bool,
}

impl Error {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), without_effect: false }
    }

    /// The same error, with the promise that nothing was done and nothing will be: any operation may be repeated after
    /// it. Without this promise, a write that failed as [`ErrorClass::Unavailable`] may have been done, or may still be.
    #[must_use]
    pub fn without_effect(self) -> Self {
        Self { without_effect: true, ..self }
    }

    pub fn is_without_effect(&self) -> bool {
        self.without_effect
    }
}

impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.to_string()
    }
}
