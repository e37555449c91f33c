//! SIGTERM and SIGINT as a future. They are blocked for the whole process and read from a signalfd(2), so that no code
//! runs in a signal handler and the executor learns of them as of any other readable descriptor.
use async_io::Async;
use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

pub struct Termination(Async<OwnedFd>);

impl Termination {
    /// Call before any thread is started: threads inherit the mask.
    pub fn block() -> io::Result<Termination> {
        // SAFETY: the set is initialised by sigemptyset before it is read, and outlives the calls; the descriptor is
        // checked and owned by nobody else.
        let fd = unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            if libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        Ok(Termination(Async::new_nonblocking(fd)?))
    }

    /// Resolves when one has arrived; it stays pending, so it resolves again.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.readable().await
    }
}
