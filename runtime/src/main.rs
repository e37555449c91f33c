//! `mote`: a whole Kubernetes node in one process. This crate alone knows all the others: it reads the command line and
//! the configuration, starts the parts in order and stops them. What the parts do is not here.
//!
//! The same file is also the CNI plugin: the runtime runs it under the name `mote-cni`.
mod command;
mod config;
mod data_dir;
mod logging;
mod machine;
mod node;
mod notify;
mod parts;
mod signals;

use std::{ffi::OsStr, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    if Path::new(&program).file_name() == Some(OsStr::new("mote-cni")) {
        return mote_cni::plugin_main();
    }
    command::run(args)
}
