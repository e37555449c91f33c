//! `mote`: a whole Kubernetes node in one process. This crate alone knows all the others: it reads the command line and
//! the configuration, starts the parts in order and stops them. What the parts do is not here.
//!
//! The same file is also the CNI plugin: the runtime runs it under the name `mote-cni` (or `loopback`).
mod backup;
#[cfg(lean_libc)]
mod c_library;
mod command;
mod config;
mod data_dir;
mod election;
mod logging;
mod machine;
mod manifests;
mod node;
mod notify;
mod parts;
mod preflight;
mod signals;
mod status;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    if mote_cni::is_plugin(&program) {
        return mote_cni::plugin_main();
    }
    command::run(args)
}
