//! The machine as preflight reads it: files below a root, which is another one in tests, and what is known of board and
//! configuration. Files are read when a check asks for them, large ones once.
use super::kernel::Kernel;
use crate::config::Config;
use mote_boards::Profile;
use std::{
    cell::OnceCell,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Lists of modules are half a megabyte.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

pub struct Host<'h> {
    root: &'h Path,
    pub board: &'static Profile,
    pub config: &'h Config,
    pub data_dir: &'h Path,
    kernel: OnceCell<Kernel>,
}

impl<'h> Host<'h> {
    pub fn new(root: &'h Path, board: &'static Profile, config: &'h Config, data_dir: &'h Path) -> Host<'h> {
        Host { root, board, config, data_dir, kernel: OnceCell::new() }
    }

    /// An absolute path of the machine, where this process finds it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn has(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// A file's text; "" when there is none. What is no UTF-8 is nothing that checks look for.
    pub fn read(&self, path: &str) -> String {
        String::from_utf8_lossy(&self.bytes(path)).into_owned()
    }

    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Ok(file) = fs::File::open(self.at(path)) {
            // Half a file is as good as none: checks then say what they did not find.
            let _ = file.take(FILE_LIMIT_BYTES).read_to_end(&mut bytes);
        }
        bytes
    }

    /// The first line, without what surrounds it.
    pub fn line(&self, path: &str) -> String {
        self.read(path).lines().next().unwrap_or_default().trim().to_owned()
    }

    pub fn kernel(&self) -> &Kernel {
        self.kernel.get_or_init(|| Kernel::read(self))
    }

    /// How the board's kernel is told these words at its next start.
    pub fn cmdline_fix(&self, words: &str) -> String {
        let boot = &self.board.boot;
        match boot.cmdline_line {
            "" => format!("add to the one line of {}: {words}; then: {}", boot.cmdline_file, boot.cmdline_then),
            line => {
                format!("in {}: {}; then: {}", boot.cmdline_file, line.replace("{}", words), boot.cmdline_then)
            }
        }
    }

    /// Type and options of the file system that holds the path, as `/proc/mounts` says.
    pub fn mount_of(&self, path: &Path) -> Option<(String, String)> {
        let mounts = self.read("/proc/mounts");
        let fields = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (place, kind, options) = (words.nth(1)?, words.next()?, words.next()?);
            path.starts_with(place).then_some((place.len(), kind, options))
        });
        // Of mounts on the same place, the last is on top.
        let (_, kind, options) = fields.max_by_key(|(length, ..)| *length)?;
        Some((kind.to_owned(), options.to_owned()))
    }
}
