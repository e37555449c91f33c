//! What nothing here needs of the static C library, and what would come with it: 0.3 MB of printf, locales, character sets and
//! dynamic loading, linked in because functions that are never called, or never with effect, lead there. The linker takes
//! these in their place. (`-Wl,--why-extract=FILE` of lld shows the ways.)
//!
//! Whatever the library would say through them is lost: it has nothing to say that Rust's own checks do not say first. Only
//! builds with `--cfg lean_libc` have this, since another version of the library may be cut up differently.
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;

/// Messages of errors are in English without a catalog.
#[unsafe(no_mangle)]
extern "C" fn __dcgettext(_domain: *const c_char, text: *const c_char, _category: c_int) -> *const c_char {
    text
}

/// The library found itself broken.
#[unsafe(no_mangle)]
extern "C" fn __assert_fail(_text: *const c_char, _file: *const c_char, _line: c_uint, _function: *const c_char) -> ! {
    std::process::abort()
}

/// Asked for the main thread's stack, to word its overflow; without an answer the overflow ends the process all the same.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_thread: usize, _attributes: *mut c_void) -> c_int {
    rustix::io::Errno::NOSYS.raw_os_error()
}

/// There are no symbols to be found in a static program; who asks has another way.
#[unsafe(no_mangle)]
extern "C" fn dlsym(_library: *mut c_void, _name: *const c_char) -> *mut c_void {
    ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn __vfprintf_internal() -> c_int {
    -1
}

#[unsafe(no_mangle)]
extern "C" fn __vfwprintf_internal() -> c_int {
    -1
}

/// Conversions between character sets: these three load modules and transliterate. 6 is __GCONV_ILLEGAL_INPUT.
#[unsafe(no_mangle)]
extern "C" fn __gconv_transliterate() -> c_int {
    6
}

#[unsafe(no_mangle)]
extern "C" fn __gconv_find_shlib() -> *mut c_void {
    ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn __gconv_release_shlib() -> c_int {
    0
}
