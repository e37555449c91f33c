//! What can go wrong with a call, and which call it was.
use std::{fmt, time::Duration};

/// A gRPC status code (grpc/doc/statuscodes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub i32);

impl Code {
    pub const CANCELLED: Code = Code(1);
    pub const UNKNOWN: Code = Code(2);
    pub const INVALID_ARGUMENT: Code = Code(3);
    pub const DEADLINE_EXCEEDED: Code = Code(4);
    pub const NOT_FOUND: Code = Code(5);
    pub const ALREADY_EXISTS: Code = Code(6);
    pub const PERMISSION_DENIED: Code = Code(7);
    pub const RESOURCE_EXHAUSTED: Code = Code(8);
    pub const UNIMPLEMENTED: Code = Code(12);
    pub const INTERNAL: Code = Code(13);
    pub const UNAVAILABLE: Code = Code(14);
    pub const UNAUTHENTICATED: Code = Code(16);

    /// As grpc-go prints it, since these words reach events and conditions.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 17] = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        usize::try_from(self.0).ok().and_then(|i| NAMES.get(i).copied()).unwrap_or("Unknown")
    }
}

#[derive(Clone, Debug)]
pub enum Error {
    /// Who is dialled is absent, refuses, or the connection broke before an answer.
    Unavailable { doing: &'static str, message: String },
    /// No answer in time; the call may still take effect.
    Deadline { doing: &'static str, after: Duration },
    /// It answered with a gRPC status other than OK.
    Grpc { doing: &'static str, code: Code, message: String },
    /// The answer is no gRPC, or larger than we believe.
    Protocol { doing: &'static str, message: String },
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Error::Unavailable { .. } => Code::UNAVAILABLE,
            Error::Deadline { .. } => Code::DEADLINE_EXCEEDED,
            Error::Grpc { code, .. } => *code,
            Error::Protocol { .. } => Code::INTERNAL,
        }
    }
    /// The call as its protocol names it: "RunPodSandbox".
    pub fn doing(&self) -> &'static str {
        match self {
            Error::Unavailable { doing, .. }
            | Error::Deadline { doing, .. }
            | Error::Grpc { doing, .. }
            | Error::Protocol { doing, .. } => doing,
        }
    }
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NOT_FOUND
    }
    pub fn is_unimplemented(&self) -> bool {
        self.code() == Code::UNIMPLEMENTED
    }
    pub fn is_unavailable(&self) -> bool {
        self.code() == Code::UNAVAILABLE
    }
    /// The server's own words, without code.
    pub fn message(&self) -> &str {
        match self {
            Error::Unavailable { message, .. } | Error::Grpc { message, .. } | Error::Protocol { message, .. } => {
                message
            }
            Error::Deadline { .. } => "context deadline exceeded",
        }
    }
}

/// `rpc error: code = NotFound desc = ...`: the text users know from upstream's events.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {} desc = {}", self.code().name(), self.message())
    }
}

impl std::error::Error for Error {}
