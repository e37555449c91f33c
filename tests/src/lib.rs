//! What the black-box suites in `suites/` stand on: the real binary, a machine of its own for a whole node, real
//! kubectl, and a plain HTTPS client for what kubectl would not send. Knows nothing of Mote's inside.
//!
//! `./dev test` (or `./dev suite`) sets MOTE_BINARY and MOTE_KUBECTL; the suites need root for whole nodes.
pub mod corpus;
pub mod cost;
pub mod differential;
pub mod disk;
pub mod etcd;
pub mod guest;
pub mod hostile;
pub mod http;
pub mod kubectl;
pub mod machine;
pub mod server;
pub mod trace;
pub mod usage;
pub mod webhook;

pub use etcd::Etcd;
pub use kubectl::Kubectl;
pub use machine::{Machine, Node};
pub use server::Server;

use std::{
    path::PathBuf,
    sync::{Mutex, Once},
    thread,
    time::{Duration, Instant},
};

/// The binary under test.
pub fn binary() -> PathBuf {
    let path = PathBuf::from(std::env::var_os("MOTE_BINARY").expect("MOTE_BINARY is set; run ./dev suite"));
    assert!(path.is_absolute() && path.exists(), "MOTE_BINARY {} is not there", path.display());
    path
}

/// The checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the checkout").to_owned()
}

/// Tries until it works, for things that take their time; panics with the last error.
#[track_caller]
pub fn eventually<T>(what: &str, seconds: u64, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > end => panic!("{what}: not within {seconds} s: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

type Cleanup = Box<dyn FnOnce() + Send>;

static CLEANUPS: Mutex<Vec<Cleanup>> = Mutex::new(Vec::new());
static REGISTER: Once = Once::new();

/// Runs when the test process ends: what tests share lives in statics, which are never dropped.
pub fn on_exit(cleanup: impl FnOnce() + Send + 'static) {
    extern "C" fn run() {
        let cleanups = CLEANUPS.lock().map(|mut list| std::mem::take(&mut *list)).unwrap_or_default();
        for cleanup in cleanups.into_iter().rev() {
            cleanup();
        }
    }
    // SAFETY: `run` is a plain function that lives as long as the program and does not unwind into C.
    REGISTER.call_once(|| assert_eq!(unsafe { libc::atexit(run) }, 0));
    CLEANUPS.lock().expect("no clean-up panicked").push(Box::new(cleanup));
}
