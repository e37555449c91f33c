//! Work inside another network namespace: on a thread of its own, which enters it and ends with the work, so that
//! the caller never leaves its own.
use crate::error::{Error, Result, code};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const OWN: &str = "/proc/thread-self/ns/net";

pub struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// Opens a namespace by path. The host's own is refused: a pod's address must never land there.
    pub fn open(path: &str) -> Result<Namespace> {
        let fail = |what: String| Error::new(code::INVALID_ENVIRONMENT, format!("network namespace {path:?}: {what}"));
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| fail(errno.to_string()))?;
        let (stat, own) = (rustix::fs::fstat(&fd), rustix::fs::stat(OWN));
        let (stat, own) = (stat.map_err(|e| fail(e.to_string()))?, own.map_err(|e| Error::io(OWN, e))?);
        if stat.st_dev != own.st_dev {
            return Err(fail("is not a network namespace".to_owned()));
        }
        if stat.st_ino == own.st_ino {
            return Err(fail("is the host's own".to_owned()));
        }
        Ok(Namespace { fd })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Runs `work` inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| Error::io("entering the network namespace", errno))?;
            work()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, inside);
            let thread = thread.map_err(|e| Error::io("starting a thread for the network namespace", e))?;
            thread.join().unwrap_or_else(|_| Err(Error::io("inside the network namespace", "the work panicked")))
        })
    }
}
