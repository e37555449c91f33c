//! The scheduler: which node a pod goes to.
//!
//! Pure core: `resources`, `cluster`, `filter`, `relations`, `volumes`, `score` and `preempt` decide from their input alone. Around
//! it: `queue` holds the pods that wait and knows which change may help which of them, `schedule` drives both and writes.
//! Nothing ticks: a pod that fits nowhere is looked at again when something changed that it was rejected for.

mod cluster;
mod filter;
mod preempt;
mod queue;
mod relations;
mod resources;
mod schedule;
mod score;
mod volumes;

pub use schedule::start;
