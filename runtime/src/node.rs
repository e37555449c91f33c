//! The life of a node: what is started in which order, and how it stops.
use crate::config::Config;
use std::{path::Path, process::ExitCode};

pub fn run(_config: Config, _data_dir: &Path) -> ExitCode {
    ExitCode::FAILURE
}
