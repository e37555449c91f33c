//! Counts what a running process does from outside, by ptrace(2): its system calls, and the calls of functions whose
//! addresses are known. The binary that is counted is the one that ships; it only runs slower meanwhile.
//!
//! One thread traces, since the kernel ties a tracer to a thread; it waits for the threads it traces and for no other child.
use std::{
    collections::BTreeSet,
    fs, io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Every system call of a process in so many seconds.
pub fn system_calls(pid: u32, seconds: u64) -> u64 {
    let (calls, ()) = traced(pid, &[], true, || thread::sleep(Duration::from_secs(seconds)));
    calls
}

/// How often any of these functions is called while `act` is done. Counted on x86_64 alone, whose breakpoint is one byte.
pub fn calls<T: Send>(pid: u32, functions: &[u64], act: impl FnOnce() -> T + Send) -> (u64, T) {
    traced(pid, functions, false, act)
}

/// Addresses of what hands out memory, in a static binary with its symbols beside it.
pub fn allocators() -> Vec<u64> {
    let mut name = crate::binary().into_os_string();
    name.push(".symbols");
    let file = fs::read(&name).unwrap_or_else(|error| panic!("{}: {error}; run ./dev build", name.display()));
    let elf = mote_size_report::elf::parse(&file).expect("an ELF file");
    let names = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];
    let wanted = |name: &str| names.contains(&name.trim_start_matches("__libc_").trim_start_matches("__"));
    let found: Vec<u64> =
        elf.symbols.iter().filter(|symbol| symbol.code && wanted(&symbol.name)).map(|symbol| symbol.address).collect();
    assert!(found.len() >= 3, "malloc, calloc and realloc are not in {}", name.display());
    found
}

fn traced<T: Send>(pid: u32, functions: &[u64], system_calls: bool, act: impl FnOnce() -> T + Send) -> (u64, T) {
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let tracer = scope.spawn(|| {
            let mut tracer = Tracer::begin(pid, functions, system_calls);
            begun.store(true, Ordering::Release);
            while !done.load(Ordering::Acquire) {
                if !tracer.step() {
                    thread::sleep(Duration::from_micros(200));
                }
            }
            tracer.end()
        });
        while !begun.load(Ordering::Acquire) && !tracer.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        let result = act();
        done.store(true, Ordering::Release);
        (tracer.join().expect("the tracer works"), result)
    })
}

struct Tracer {
    memory: fs::File,
    threads: BTreeSet<i32>,
    /// Address, and the byte that a breakpoint stands in for.
    functions: Vec<(u64, u8)>,
    resume: libc::c_uint,
    count: u64,
    /// By thread: the next stop at a system call is its end.
    inside: BTreeSet<i32>,
}

const BREAKPOINT: u8 = 0xcc;

impl Tracer {
    fn begin(pid: u32, functions: &[u64], system_calls: bool) -> Tracer {
        let memory = fs::File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .expect("the process is ours to trace");
        let resume = if system_calls { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
        let mut tracer = Tracer {
            memory,
            threads: BTreeSet::new(),
            functions: Vec::new(),
            resume,
            count: 0,
            inside: BTreeSet::new(),
        };
        let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACESYSGOOD;
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").flatten();
        for thread in tasks.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            request(libc::PTRACE_SEIZE, thread, options as usize).expect("PTRACE_SEIZE");
            tracer.threads.insert(thread);
            if system_calls {
                // Only a stopped thread can be told to stop at its system calls.
                request(libc::PTRACE_INTERRUPT, thread, 0).expect("PTRACE_INTERRUPT");
            }
        }
        for address in functions {
            let byte = tracer.swap(*address, BREAKPOINT).expect("the process has this function");
            tracer.functions.push((*address, byte));
        }
        tracer
    }

    fn swap(&self, address: u64, byte: u8) -> io::Result<u8> {
        use std::os::unix::fs::FileExt;
        let mut before = [0];
        self.memory.read_exact_at(&mut before, address)?;
        self.memory.write_all_at(&[byte], address)?;
        Ok(before[0])
    }

    /// Whether a thread had stopped.
    fn step(&mut self) -> bool {
        let threads: Vec<i32> = self.threads.iter().copied().collect();
        threads.into_iter().fold(false, |any, thread| match wait(thread, libc::WNOHANG) {
            None => any,
            Some(status) => {
                self.stopped(thread, status);
                true
            }
        })
    }

    fn stopped(&mut self, thread: i32, status: i32) {
        if !libc::WIFSTOPPED(status) {
            self.threads.remove(&thread);
            return;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let mut deliver = 0;
        if signal == libc::SIGTRAP | 0x80 {
            if self.inside.remove(&thread) {
                // It was counted when it began.
            } else {
                self.inside.insert(thread);
                self.count += 1;
            }
        } else if event == libc::PTRACE_EVENT_CLONE {
            self.threads.extend(cloned(thread));
        } else if event == 0 && signal == libc::SIGTRAP && self.at_breakpoint(thread) {
            // Counted, and past it.
        } else if event == 0 {
            deliver = signal as usize;
        }
        // A thread that was killed meanwhile is gone at the next wait.
        let _ = request(self.resume, thread, deliver);
    }

    /// Counts, and takes the thread past it.
    fn at_breakpoint(&mut self, thread: i32) -> bool {
        let Some((address, byte)) = self.set_back(thread) else { return false };
        self.count += 1;
        let _ = self.swap(address, byte);
        let _ = request(libc::PTRACE_SINGLESTEP, thread, 0);
        let _ = wait(thread, 0);
        let _ = self.swap(address, BREAKPOINT);
        true
    }

    /// A thread that a breakpoint has stopped stands on it again.
    #[cfg(target_arch = "x86_64")]
    fn set_back(&self, thread: i32) -> Option<(u64, u8)> {
        // SAFETY: all zeroes are a value of this plain structure, and the kernel fills it.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        request(libc::PTRACE_GETREGS, thread, (&raw mut registers).expose_provenance()).ok()?;
        let found = *self.functions.iter().find(|(address, _)| *address + 1 == registers.rip)?;
        registers.rip = found.0;
        request(libc::PTRACE_SETREGS, thread, (&raw const registers).expose_provenance()).ok()?;
        Some(found)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn set_back(&self, _thread: i32) -> Option<(u64, u8)> {
        None
    }

    fn end(mut self) -> u64 {
        let mut stopped: Vec<(i32, usize)> = Vec::new();
        while let Some(thread) = self.threads.pop_first() {
            // Whatever stops it first will do: the kernel then forgets that it was to be interrupted.
            let _ = request(libc::PTRACE_INTERRUPT, thread, 0);
            let Some(status) = wait(thread, 0).filter(|status| libc::WIFSTOPPED(*status)) else { continue };
            let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
            if event == libc::PTRACE_EVENT_CLONE {
                self.threads.extend(cloned(thread));
            }
            let of_tracing = event != 0 || signal & !0x80 == libc::SIGTRAP;
            if event == 0 && signal == libc::SIGTRAP {
                self.set_back(thread);
            }
            stopped.push((thread, if of_tracing { 0 } else { signal as usize }));
        }
        for (address, byte) in &self.functions {
            let _ = self.swap(*address, *byte);
        }
        for (thread, signal) in stopped {
            let _ = request(libc::PTRACE_DETACH, thread, signal);
        }
        self.count
    }
}

/// The thread that this one has just made.
fn cloned(thread: i32) -> Option<i32> {
    let mut child: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, thread, (&raw mut child).expose_provenance()).ok()?;
    i32::try_from(child).ok()
}

fn request(what: libc::c_uint, thread: i32, data: usize) -> io::Result<()> {
    // SAFETY: `data` is a number, or the address of what the request fills or reads, which outlives this call.
    let result = unsafe { libc::ptrace(what, thread, 0_usize, data) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What has become of a thread; None when nothing has, or when it is gone.
fn wait(thread: i32, options: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes one number.
    let found = unsafe { libc::waitpid(thread, &mut status, options | libc::__WALL) };
    (found == thread).then_some(status)
}
