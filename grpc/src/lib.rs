//! A gRPC client: unary calls and streams of answers over one HTTP/2 connection, dialled anew when it broke. Who is asked and
//! what for is its users' business, and so is how bytes get there (`Dial`).
mod channel;
mod error;
#[cfg(not(fuzzing))]
mod frame;
#[cfg(fuzzing)]
pub mod frame;

pub use channel::{Channel, Dial, Dialled, Method, Socket, Streaming};
pub use error::{Code, Error};
