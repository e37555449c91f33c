//! Files that are there whole or not at all, whatever happens to the power.
use crate::error::Error;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The directory of certificates: read once, written once. A new directory appears whole or not at all.
pub struct Files {
    dir: PathBuf,
    is_new: bool,
    pending: Vec<(String, String, u32)>,
}

impl Files {
    pub fn read(dir: PathBuf) -> Result<Files, Error> {
        let is_new = match fs::metadata(&dir) {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(Error::file("reading", dir)(error)),
        };
        Ok(Files { dir, is_new, pending: Vec::new() })
    }

    pub fn text(&self, name: &str) -> Option<String> {
        if let Some((_, text, _)) = self.pending.iter().find(|(pending, _, _)| pending == name) {
            return Some(text.clone());
        }
        fs::read_to_string(self.dir.join(name)).ok()
    }

    pub fn put(&mut self, name: &str, text: &str, mode: u32) {
        self.pending.push((name.into(), text.into(), mode));
    }

    /// Keeps what is damaged for whoever wants to look.
    pub fn put_aside(&self, name: &str) {
        let path = self.dir.join(name);
        if let Err(error) = fs::rename(&path, self.dir.join(format!("{name}.damaged"))) {
            tracing::warn!(%error, path = %path.display(), "cannot put aside");
        }
    }

    pub fn write(self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if !self.is_new {
            for (name, text, mode) in &self.pending {
                let path = self.dir.join(name);
                write_atomic(&path, text.as_bytes(), *mode).map_err(Error::file("writing", path))?;
            }
            return Ok(());
        }
        let fresh = self.dir.with_extension("new");
        let file = |doing| Error::file(doing, &fresh);
        if fs::exists(&fresh).unwrap_or(false) {
            fs::remove_dir_all(&fresh).map_err(file("removing"))?;
        }
        fs::create_dir_all(&fresh).map_err(file("making"))?;
        // All are on their way before the first is waited for: one flush of the file system's journal, not nine.
        let mut written = Vec::new();
        for (name, text, mode) in &self.pending {
            let new = write_new(&fresh.join(name), text.as_bytes(), *mode).map_err(file("writing into"))?;
            rustix::fs::fadvise(&new, 0, None, rustix::fs::Advice::DontNeed).unwrap_or(());
            written.push(new);
        }
        for new in written {
            new.sync_all().map_err(file("flushing into"))?;
        }
        sync(&fresh).map_err(file("flushing"))?;
        fs::rename(&fresh, &self.dir).map_err(file("renaming"))?;
        sync(self.dir.parent().unwrap_or(Path::new("."))).map_err(Error::file("flushing", &self.dir))
    }
}

/// The old content or the new one, whatever happens to the power.
fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    write_new(&fresh, bytes, mode)?.sync_all()?;
    fs::rename(&fresh, path)?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<fs::File> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    // One left by a power cut may have another mode.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}
