//! A release aborts on a panic, so nothing ever walks the stack: the tables for it, an eighth of the binary, are left
//! out when it is linked (rustc has no flag that reaches those of the standard library).
use std::{env, fs, path::PathBuf};

/// The C compiler's first and last object keep theirs, four bytes in all: the first one's code names it, and GNU's linker, which
/// the containers of `cross` and a board's own Debian use, does not link what names something discarded.
const DISCARD: &str = "SECTIONS { /DISCARD/ : { *(EXCLUDE_FILE(*crtbegin*.o *crtend.o) .eh_frame) *(.eh_frame_hdr) } } \
    INSERT AFTER .text;\n";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // CARGO_CFG_PANIC says what the target does by itself; it is the release profile that aborts.
    let (aborts, linux) = (is("PROFILE", "release"), is("CARGO_CFG_TARGET_OS", "linux"));
    let static_libc = env::var("CARGO_CFG_TARGET_FEATURE").is_ok_and(|f| f.split(',').any(|f| f == "crt-static"));
    let Some(out) = env::var_os("OUT_DIR").filter(|_| aborts && linux && static_libc) else { return };
    let script = PathBuf::from(out).join("discard.ld");
    if fs::write(&script, DISCARD).is_ok() {
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
}
