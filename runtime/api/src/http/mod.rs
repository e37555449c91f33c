//! The HTTP front: connections, limits and timeouts, authentication; everything before a handler sees a `Request`.
pub mod request;

pub use request::{Body, BoxStream, Handler, Query, Request, RequestInfo, Response, User};
