//! Puts symbols on crates, modules and functions, and generic code on the function it was made of. Knows Rust's two ways to
//! mangle a name: the older one, in which all instances of a generic function have one name, and v0, in which each tells
//! its types. A name that is mangled in neither way is C or assembler: ring's, or the C library's.
//!
//! Drop glue belongs to the crate of the type that is dropped, and a method of an impl to the crate of the type it is for.
use crate::elf::Symbol;
use std::collections::BTreeMap;

pub const RING: &str = "ring (C and assembler)";
pub const LIBC: &str = "the C library";

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Share {
    pub code_bytes: u64,
    pub data_bytes: u64,
}

impl Share {
    pub fn add(&mut self, symbol: &Symbol) {
        *(if symbol.code { &mut self.code_bytes } else { &mut self.data_bytes }) += symbol.bytes;
    }

    pub fn bytes(&self) -> u64 {
        self.code_bytes + self.data_bytes
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Function,
    /// Closures and the bodies of async functions.
    Closure,
    DropGlue,
    /// What a trait object's table points to because the method itself does not fit.
    Shim,
    Foreign,
    Data,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Function => "functions",
            Kind::Closure => "closures and async bodies",
            Kind::DropGlue => "drop glue",
            Kind::Shim => "shims of trait objects",
            Kind::Foreign => "C and assembler",
            Kind::Data => "named data",
        }
    }
}

#[derive(Debug, PartialEq)]
pub struct Origin {
    pub crate_name: String,
    /// Within the crate, as `rest::patch`; empty at its root.
    pub module: String,
    /// Within the module.
    pub function: String,
    pub kind: Kind,
    /// With its path, and without the types it was made for: one for all instances.
    pub generic: String,
}

impl Origin {
    pub fn of(symbol: &Symbol) -> Origin {
        let readable = readable(&symbol.name);
        if readable == symbol.name {
            return foreign(symbol);
        }
        let generic = without_arguments(&readable);
        // Rust 1.97 has given it the second name.
        let rest =
            ["core::ptr::drop_in_place", "core::ptr::drop_glue"].iter().find_map(|name| readable.strip_prefix(name));
        let glue = rest.map(|rest| {
            rest.trim_start_matches("::").strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(rest)
        });
        let path = owner(glue.unwrap_or(&readable));
        let mut names = path.split("::");
        // `<[u8]>::to_vec` has no path before its name: what is written for Rust's own types is core's.
        let crate_name = names.next().filter(|name| !name.is_empty()).unwrap_or("core").to_owned();
        let lower = |name: &&str| name.starts_with(|c: char| c.is_lowercase() || c == '_');
        let modules: Vec<&str> = names.collect();
        // The last name of a path is the function or type itself.
        let modules = modules[..modules.len().saturating_sub(1)].iter().copied().take_while(lower).collect::<Vec<_>>();
        let module = modules.join("::");
        let prefix = if module.is_empty() { format!("{crate_name}::") } else { format!("{crate_name}::{module}::") };
        let kind = match () {
            _ if !symbol.code => Kind::Data,
            _ if glue.is_some() => Kind::DropGlue,
            _ if generic.contains("vtable.shim") || generic.contains("{shim:vtable") => Kind::Shim,
            _ if generic.ends_with("{{closure}}") || generic.contains("{closure#") => Kind::Closure,
            _ => Kind::Function,
        };
        let function = match glue {
            Some(of) => format!("drop of {}", without_arguments(of).replacen(&prefix, "", 1)),
            None => generic.replacen(&prefix, "", 1),
        };
        Origin { crate_name, module, function, kind, generic }
    }
}

fn foreign(symbol: &Symbol) -> Origin {
    // ring prefixes what its files export; its tables of points have the curve's name.
    let ring = symbol.name.starts_with("ring_core_")
        || symbol.name.starts_with("ecp_nistz256")
        || symbol.name.starts_with("ChaCha20_");
    let source = symbol.source.clone();
    let crate_name = if ring || source.is_some() { RING } else { LIBC };
    Origin {
        crate_name: crate_name.to_owned(),
        module: source.unwrap_or_default(),
        function: symbol.name.clone(),
        kind: if symbol.code { Kind::Foreign } else { Kind::Data },
        generic: symbol.name.clone(),
    }
}

pub fn by_crate(symbols: &[Symbol]) -> BTreeMap<String, Share> {
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    for symbol in symbols {
        shares.entry(Origin::of(symbol).crate_name).or_default().add(symbol);
    }
    shares
}

/// As a person reads it, without hashes.
pub fn readable(name: &str) -> String {
    // The linker and LLVM append to names: `.llvm.123`, `.cold`.
    let rust = name.split(".llvm.").next().unwrap_or(name);
    format!("{:#}", rustc_demangle::demangle(rust))
}

/// The first path of a name: that of `<&mut T as core::fmt::Debug>::fmt` is the crate of T, or of the trait where T has none.
fn owner(text: &str) -> &str {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$' || c == '.';
    text.split(move |c| !word(c))
        .map(|path| path.trim_end_matches("::"))
        .find(|path| path.split_once("::").is_some_and(|(first, _)| !first.is_empty()))
        .unwrap_or_default()
}

/// Without the generic arguments of its paths: `a::B<u8>::c::<T>` is `a::B::c`, while `<a::B as c::D>::e` stays.
fn without_arguments(name: &str) -> String {
    let mut kept = String::with_capacity(name.len());
    // How deep inside of arguments, and inside of brackets that stay.
    let (mut dropped, mut stay) = (0_usize, 0_usize);
    let mut last = ' ';
    for (at, c) in name.char_indices() {
        match c {
            '<' if dropped > 0 => dropped += 1,
            '<' => {
                let path = last.is_alphanumeric() || last == '_' || last == ':' || last == '}';
                if path && !name[at..].starts_with("<impl ") {
                    dropped = 1;
                    if kept.ends_with("::") {
                        kept.truncate(kept.len() - 2);
                    }
                } else {
                    stay += 1;
                    kept.push(c);
                }
            }
            '>' if last == '-' && dropped == 0 => kept.push(c),
            '>' if last == '-' => {}
            '>' if dropped > 0 => dropped -= 1,
            '>' => {
                stay = stay.saturating_sub(1);
                kept.push(c);
            }
            _ if dropped == 0 => kept.push(c),
            _ => {}
        }
        last = c;
    }
    kept
}

/// A generic function, with what all its instances take.
#[derive(Debug, PartialEq)]
pub struct Generic {
    pub name: String,
    pub instances: usize,
    pub bytes: u64,
    /// Of its largest instance: what one alone would take.
    pub largest_bytes: u64,
    /// That instance with its types, as far as the name tells them.
    pub largest: String,
}

/// Code that is there more than once, most bytes first. Closures of one function count as instances of each other where
/// names do not tell them apart.
pub fn generics(symbols: &[Symbol]) -> Vec<Generic> {
    let mut found: BTreeMap<String, Generic> = BTreeMap::new();
    for symbol in symbols.iter().filter(|symbol| symbol.code) {
        let name = Origin::of(symbol).generic;
        let entry = found.entry(name.clone());
        let generic =
            entry.or_insert(Generic { name, instances: 0, bytes: 0, largest_bytes: 0, largest: String::new() });
        generic.instances += 1;
        generic.bytes += symbol.bytes;
        if symbol.bytes > generic.largest_bytes {
            (generic.largest_bytes, generic.largest) = (symbol.bytes, readable(&symbol.name));
        }
    }
    let mut found: Vec<_> = found.into_values().filter(|generic| generic.instances > 1).collect();
    found.sort_by_key(|generic| std::cmp::Reverse(generic.bytes - generic.largest_bytes));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, bytes: u64) -> Symbol {
        Symbol { name: name.to_owned(), bytes, code: true, source: None, address: 0 }
    }

    #[test]
    fn names_tell_where_they_are_from() {
        #[track_caller]
        fn check(name: &str, crate_name: &str, module: &str, function: &str, kind: Kind) {
            let origin = Origin::of(&symbol(name, 1));
            let found = (&*origin.crate_name, &*origin.module, &*origin.function, origin.kind);
            assert_eq!(found, (crate_name, module, function, kind));
        }
        check("_ZN8mote_api4http5serve17h0123456789abcdefE", "mote_api", "http", "serve", Kind::Function);
        check(
            "_ZN8mote_api4rest4Rest5plain28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE",
            "mote_api",
            "rest",
            "Rest::plain::{{closure}}",
            Kind::Closure,
        );
        check(
            "_ZN56_$LT$mote_store..Error$u20$as$u20$core..fmt..Display$GT$3fmt17h0123456789abcdefE",
            "mote_store",
            "",
            "<Error as core::fmt::Display>::fmt",
            Kind::Function,
        );
        check(
            "_ZN42_$LT$$RF$T$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE",
            "core",
            "fmt",
            "<&T as Debug>::fmt",
            Kind::Function,
        );
        check(
            "_ZN4core3ptr47drop_in_place$LT$mote_store..watch..Watcher$GT$17h0123456789abcdefE",
            "mote_store",
            "watch",
            "drop of Watcher",
            Kind::DropGlue,
        );
        // core::ptr::drop_glue::<mycrate::foo::Bar>
        check(
            "_RINvNtCs5678_4core3ptr9drop_glueNtNtCs1234_7mycrate3foo3BarEBL_",
            "mycrate",
            "foo",
            "drop of Bar",
            Kind::DropGlue,
        );
        check("_RNvCskwGfYPst2Cb_7mycrate7example", "mycrate", "", "example", Kind::Function);
        check("_RNvNtCs1234_7mycrate3foo3bar", "mycrate", "foo", "bar", Kind::Function);
        check("_RNCNvCs1234_7mycrate4main0B3_", "mycrate", "", "main::{closure#0}", Kind::Closure);
        check("ring_core_0_17_14__aes_hw_encrypt", RING, "", "ring_core_0_17_14__aes_hw_encrypt", Kind::Foreign);
        check("memcpy", LIBC, "", "memcpy", Kind::Foreign);
    }

    #[test]
    fn arguments_are_left_out() {
        #[track_caller]
        fn check(name: &str, expected: &str) {
            assert_eq!(without_arguments(name), expected);
        }
        check("a::b::<u8, a::C<d::E>>::{closure#0}", "a::b::{closure#0}");
        check("<a::B<T> as c::D<U>>::e", "<a::B as c::D>::e");
        check("<<a::B<T> as c::D>::F as e::G>::h::<I>", "<<a::B as c::D>::F as e::G>::h");
        check("a::b::<fn(u8) -> u8>::c", "a::b::c");
        check("a::<impl b::C for d::E<F>>::g", "a::<impl b::C for d::E>::g");
        check("core::ptr::drop_in_place<a::B<dyn c::D>>", "core::ptr::drop_in_place");
    }

    #[test]
    fn instances_are_counted_by_the_function_they_are_of() {
        let symbols = [
            // mycrate::example::<i32> and ::<u64>
            symbol("_RINvCs1234_7mycrate7examplelEB2_", 100),
            symbol("_RINvCs1234_7mycrate7exampleyEB2_", 60),
            symbol("_RNvCs1234_7mycrate4main", 1000),
        ];
        let expected = Generic {
            name: "mycrate::example".to_owned(),
            instances: 2,
            bytes: 160,
            largest_bytes: 100,
            largest: "mycrate::example::<i32>".to_owned(),
        };
        assert_eq!(generics(&symbols), [expected]);
    }
}
