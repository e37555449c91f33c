//! Being told of memory running short, instead of looking more often: the kernel's pressure stall information (v2's
//! cgroups and most kernels since 4.20), or a threshold on v1's memory controller. Where neither is, the usual look remains.
use super::threshold::Observation;
use async_io::{Async, Timer};
use futures_lite::future;
use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    fs::{Mode, OFlags, open},
    io::Errno,
};
use std::{
    fs::File,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// Some task stood still for want of memory for a tenth of two seconds. Windows of whole two seconds need no privilege.
const TRIGGER: &[u8] = b"some 200000 2000000\0";
/// The node's own group where it is in one, else the whole machine.
const PRESSURE: [&str; 2] = ["/sys/fs/cgroup/memory.pressure", "/proc/pressure/memory"];
const V1: &str = "/sys/fs/cgroup/memory";
/// It rings no more often than this.
const MINIMUM: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Alarm {
    kind: Option<Kind>,
    rang: Option<Instant>,
}

enum Kind {
    /// The epoll, and the trigger in it: its event is exceptional, for which a reactor does not wait.
    Pressure(Async<OwnedFd>, #[expect(dead_code, reason = "the trigger is there as long as its file is open")] OwnedFd),
    /// Set anew at each look: the level is one of usage, which what can be dropped is part of.
    Threshold(Option<Async<OwnedFd>>),
}

impl Alarm {
    pub fn new() -> Alarm {
        let kind = pressure().map(|(epoll, file)| Kind::Pressure(epoll, file));
        Alarm { kind: Some(kind.unwrap_or(Kind::Threshold(None))), rang: None }
    }

    /// To ring when so many bytes more are in use.
    pub fn set(&mut self, seen: Option<Observation>, threshold: i64) {
        if let Some(Kind::Threshold(eventfd)) = &mut self.kind {
            let left = seen.map_or(0, |seen| seen.available - threshold);
            *eventfd = (left > 0).then(|| level(left).ok()).flatten();
        }
    }

    /// Waits for one or the other; true if it rang.
    pub async fn rings_before(&mut self, end: Instant) -> bool {
        let fd = match &self.kind {
            Some(Kind::Pressure(fd, _) | Kind::Threshold(Some(fd))) => fd,
            _ => {
                Timer::at(end).await;
                return false;
            }
        };
        let rings = async {
            if let Some(rang) = self.rang {
                Timer::at(rang + MINIMUM).await;
            }
            match fd.readable().await {
                Ok(()) => true,
                Err(_) => future::pending().await,
            }
        };
        let silent = async {
            Timer::at(end).await;
            false
        };
        let rang = future::or(rings, silent).await;
        if rang {
            self.rang = Some(Instant::now());
            match &self.kind {
                Some(Kind::Pressure(fd, _)) => {
                    let mut events = Vec::with_capacity(1);
                    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
                    let _ = epoll::wait(fd, rustix::buffer::spare_capacity(&mut events), Some(&none));
                }
                Some(Kind::Threshold(_)) => self.kind = Some(Kind::Threshold(None)),
                None => {}
            }
        }
        rang
    }
}

fn pressure() -> Option<(Async<OwnedFd>, OwnedFd)> {
    PRESSURE.into_iter().find_map(|path| {
        let file = open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
        rustix::io::write(&file, TRIGGER).ok()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).ok()?;
        epoll::add(&epoll, &file, epoll::EventData::new_u64(0), epoll::EventFlags::PRI).ok()?;
        Some((Async::new_nonblocking(epoll).ok()?, file))
    })
}

/// Documentation/admin-guide/cgroup-v1/memory.rst, 9. Memory thresholds.
fn level(left: i64) -> Result<Async<OwnedFd>, Errno> {
    let usage = File::open(format!("{V1}/memory.usage_in_bytes")).map_err(|_| Errno::NOENT)?;
    let text = std::fs::read_to_string(format!("{V1}/memory.usage_in_bytes")).map_err(|_| Errno::NOENT)?;
    let now: i64 = text.trim().parse().map_err(|_| Errno::INVAL)?;
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let number = |fd: &dyn std::os::fd::AsRawFd| fd.as_raw_fd();
    let line = format!("{} {} {}", number(&fd), number(&usage), now.saturating_add(left));
    std::fs::write(format!("{V1}/cgroup.event_control"), line).map_err(|_| Errno::NOTSUP)?;
    Async::new_nonblocking(fd).map_err(|_| Errno::MFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_in_time() {
        let mut alarm = Alarm::new();
        alarm.set(Some(Observation { available: 2 << 40, capacity: 4 << 40 }), 1 << 40);
        let end = Instant::now() + Duration::from_millis(20);
        // Pressure on the machine that tests may ring it; it waits no longer than it should.
        assert!(future::block_on(alarm.rings_before(end)) || Instant::now() >= end);
    }
}
