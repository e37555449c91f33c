//! The program that holds a pod's sandbox open: it waits, reaps what is left to it, and leaves on SIGTERM or SIGINT.
//! Built by `tests/images/build` with rustc alone (no std, no libc), so the sandbox image is a few kilobytes and one
//! page of memory a pod.
#![no_std]
#![no_main]
use core::arch::{asm, global_asm};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(255)
}

// The ABI wants the stack aligned before the first call; nothing is read from it.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "and rsp, -16", "call {}", sym run);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "bl {}", sym run);
#[cfg(target_arch = "riscv64")]
global_asm!(".globl _start", "_start:", "call {}", sym run);

/// Numbers of exit, rt_sigaction, rt_sigprocmask and rt_sigtimedwait.
#[cfg(target_arch = "x86_64")]
const CALLS: [usize; 4] = [60, 13, 14, 128];
#[cfg(not(target_arch = "x86_64"))]
const CALLS: [usize; 4] = [93, 134, 135, 137];

const SIGNAL_SET_BYTES: usize = 8;
const SIGINT: u32 = 2;
const SIGTERM: u32 = 15;
const SIGCHLD: usize = 17;
const SIG_IGN: usize = 1;
const SIG_BLOCK: usize = 0;

extern "C" fn run() -> ! {
    // struct sigaction of the kernel: handler, flags, restorer (where there is one), mask. An ignored SIGCHLD makes
    // the kernel reap children by itself.
    let ignore: [usize; 4] = [SIG_IGN, 0, 0, 0];
    let leave: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1);
    call(CALLS[1], [SIGCHLD, ignore.as_ptr() as usize, 0, SIGNAL_SET_BYTES]);
    // The first process of a PID namespace gets no signal it has no handler for, so they are blocked and waited for.
    call(CALLS[2], [SIG_BLOCK, &raw const leave as usize, 0, SIGNAL_SET_BYTES]);
    while call(CALLS[3], [&raw const leave as usize, 0, 0, SIGNAL_SET_BYTES]) < 0 {}
    exit(0)
}

fn exit(code: usize) -> ! {
    loop {
        call(CALLS[0], [code, 0, 0, 0]);
    }
}

fn call(number: usize, args: [usize; 4]) -> isize {
    let result: isize;
    // SAFETY: the pointers passed above outlive the call and have the layout the kernel asks for.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], lateout("rcx") _, lateout("r11") _);
        #[cfg(target_arch = "aarch64")]
        asm!("svc 0", in("x8") number, inlateout("x0") args[0] as isize => result, in("x1") args[1],
            in("x2") args[2], in("x3") args[3]);
        #[cfg(target_arch = "riscv64")]
        asm!("ecall", in("a7") number, inlateout("a0") args[0] as isize => result, in("a1") args[1],
            in("a2") args[2], in("a3") args[3]);
    }
    result
}
