//! CRI v1 over gRPC on a unix socket: what the kubelet says to CRI-O or containerd.
//!
//! `Runtime` has one async method per call, all rows of one table. Nothing here knows of Kubernetes objects.
mod channel;
mod error;
#[cfg(not(fuzzing))]
mod frame;
#[cfg(fuzzing)]
pub mod frame;
mod health;
mod runtime;
pub mod v1;

pub use channel::Streaming;
pub use error::{Code, Error};
pub use health::{Serving, check_health};
pub use runtime::Runtime;
