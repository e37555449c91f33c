//! Reads profiles: the schema, which is a table of keys, and the part of TOML that they are written in: sections, strings, whole
//! numbers and one-line lists of strings. The build script reads them all with this, so the node carries neither
//! parser nor text; `mote-boards` does for whoever builds binaries and images.
//!
//! Invariant: what comes out has every key of the schema, with a value that fits it.
use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

pub enum Kind {
    Text,
    OneOf(&'static [&'static str]),
    Number(RangeInclusive<u64>),
    List,
}

pub struct Key {
    pub path: &'static str,
    pub kind: Kind,
    /// As docs/boards.md says it.
    pub what: &'static str,
}

const fn key(path: &'static str, kind: Kind, what: &'static str) -> Key {
    Key { path, kind, what }
}

const ARCHITECTURES: &[&str] = &["aarch64", "riscv64", "x86_64"];
const TARGETS: &[&str] = &["aarch64-unknown-linux-gnu", "riscv64gc-unknown-linux-gnu", "x86_64-unknown-linux-gnu"];
const BOOTLOADERS: &[&str] = &["raspberry-pi", "u-boot", "grub-efi"];

/// Sections `build` and `image` are for the tools; the others become the node's `Profile`.
#[rustfmt::skip]
pub const SCHEMA: &[Key] = &[
    key("description", Kind::Text, "the board, in words"),
    key("detect.architecture", Kind::OneOf(ARCHITECTURES), "as `uname -m` says it"),
    key("detect.models", Kind::List, "beginnings of `/proc/device-tree/model`; none fits every model"),
    key("build.target", Kind::OneOf(TARGETS), "Rust's target triple"),
    key("build.cpu", Kind::Text, "Rust's `target-cpu`"),
    key("build.target_features", Kind::Text, "Rust's `target-feature`: what this board's processor has more or less than `cpu` implies"),
    key("build.opt_level", Kind::OneOf(&["1", "2", "3", "s", "z"]), "optimisation"),
    key("build.features", Kind::List, "Cargo features compiled in beside the usual ones"),
    key("budget.ram_mb", Kind::Number(128..=1_048_576), "what the kernel leaves to programs"),
    key("budget.idle_pss_kb", Kind::Number(1024..=65_536), "what the idle node may take of it"),
    key("budget.binary_bytes", Kind::Number(1_000_000..=16_000_000), "the stripped binary"),
    key("budget.idle_writes_bytes_an_hour", Kind::Number(0..=1_000_000), "what the idle node writes"),
    key("budget.data_mb", Kind::Number(64..=1_048_576), "free space that the data directory wants: below it preflight warns"),
    key("limits.threads", Kind::Number(1..=16), "that run the node's tasks"),
    key("limits.pods", Kind::Number(1..=1000), "on the node"),
    key("limits.connections", Kind::Number(16..=65_536), "to the API server"),
    key("limits.requests_in_flight", Kind::Number(16..=10_000), "at once; half as many writes"),
    key("limits.store_cache_kb", Kind::Number(64..=1_048_576), "redb's page cache"),
    key("limits.watch_events", Kind::Number(100..=1_000_000), "in the ring from which watches are served and resumed"),
    key("limits.watch_kb", Kind::Number(64..=1_048_576), "the same, in memory"),
    key("limits.history_seconds", Kind::Number(10..=3600), "how long a continued LIST finds its state"),
    key("limits.lazy_delay_ms", Kind::Number(100..=60_000), "how long a status may wait for the disk"),
    key("limits.flash_mb_a_day", Kind::Number(0..=1_000_000), "what the store may write a day before status waits longer; 0: no bound"),
    key("limits.events", Kind::Number(50..=100_000), "Event objects kept in memory"),
    key("limits.unread_kb", Kind::Number(1024..=1_048_576), "answers that clients have not read yet, of all connections"),
    key("limits.dns_cache_kb", Kind::Number(16..=65_536), "answers of name servers outside the cluster"),
    key("boot.cmdline", Kind::List, "words that switch the memory controller on, on the kernel's command line"),
    key("boot.cmdline_file", Kind::Text, "the file in which they are set"),
    key("boot.cmdline_line", Kind::Text, "the line of that file, with `{}` in the words' place; empty where the file is one line that they are added to"),
    key("boot.cmdline_then", Kind::Text, "the command after which it holds at the next start"),
    key("boot.modules", Kind::List, "kernel modules that are loaded at start"),
    key("image.bootloader", Kind::OneOf(BOOTLOADERS), "who loads the kernel"),
    key("image.partition_table", Kind::OneOf(&["gpt", "mbr"]), "what the board's boot ROM reads"),
    key("image.kernel_package", Kind::Text, "Debian's"),
    key("image.packages", Kind::List, "firmware and boot loader, of Debian (non-free-firmware too)"),
    key("image.dtb", Kind::Text, "below the kernel package's device trees; empty where the firmware brings one"),
    key("image.console", Kind::List, "of the kernel; the last one is the main one"),
    key("image.initramfs_modules", Kind::List, "for the disk that the root is on"),
    key("image.boot_mb", Kind::Number(32..=1024), "boot partition, FAT"),
    key("image.root_mb", Kind::Number(128..=8192), "each of the two root slots"),
    key("image.data_mb", Kind::Number(64..=65_536), "data partition, before it grows to fill the disk"),
    key("image.zram_percent", Kind::Number(0..=200), "swap in compressed memory, of RAM"),
    key("image.watchdog_seconds", Kind::Number(0..=600), "until the hardware restarts a board that hangs; 0: it has none"),
    key("image.needs", Kind::Text, "what must be on the board already, since Debian does not have it"),
];

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Number(u64),
    List(Vec<String>),
}

/// Every key of the schema, by path.
pub type Fields = BTreeMap<&'static str, Value>;

#[derive(Debug, PartialEq)]
pub struct Mistake {
    pub file: String,
    /// 0 for what is missing altogether.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

impl std::error::Error for Mistake {}

/// The part that every board has, before those it names.
const BASE: &str = "base";

/// A board's profile: `parts/base.toml`, over it the parts that `inherits` names, in their order, over all the board's own keys.
/// `read` gives the text of a file by its name below `boards/`.
pub fn profile(name: &str, read: &dyn Fn(&str) -> Option<String>) -> Result<Fields, Vec<Mistake>> {
    let (mut fields, mut mistakes) = (Fields::new(), Vec::new());
    let own_file = format!("{name}.toml");
    let mut missing =
        |file: &str, line: usize, what: String| mistakes.push(Mistake { file: file.to_owned(), line, what });
    let Some(text) = read(&own_file) else {
        missing(&own_file, 0, "no such profile".to_owned());
        return Err(mistakes);
    };
    let mut own = File::parse(&own_file, &text);
    let mut parts = vec![BASE.to_owned()];
    match own.lines.remove("inherits") {
        Some((_, Value::List(names))) => parts.extend(names),
        Some((line, _)) => missing(&own_file, line, "inherits: expected a list of the files in parts".to_owned()),
        None => {}
    }
    for part in parts {
        let file = format!("parts/{part}.toml");
        match read(&file) {
            Some(text) => File::parse(&file, &text).into_fields(&mut fields, &mut mistakes),
            None => mistakes.push(Mistake {
                file: own_file.clone(),
                line: 0,
                what: format!("inherits: there is no {file}"),
            }),
        }
    }
    own.into_fields(&mut fields, &mut mistakes);
    // What is missing is worth telling only when nothing was misspelt.
    if mistakes.is_empty() {
        let missing = SCHEMA.iter().filter(|key| !fields.contains_key(key.path));
        mistakes.extend(missing.map(|key| Mistake {
            file: own_file.clone(),
            line: 0,
            what: format!("{} is missing: {}", key.path, key.what),
        }));
    }
    if mistakes.is_empty() { Ok(fields) } else { Err(mistakes) }
}

/// "section.key" to line and value.
struct File<'f> {
    name: &'f str,
    lines: BTreeMap<String, (usize, Value)>,
    mistakes: Vec<Mistake>,
}

impl<'f> File<'f> {
    fn parse(name: &'f str, text: &str) -> File<'f> {
        let mut file = File { name, lines: BTreeMap::new(), mistakes: Vec::new() };
        let mut section = String::new();
        for (line, source) in text.lines().enumerate().map(|(index, source)| (index + 1, source.trim())) {
            if source.is_empty() || source.starts_with('#') {
                continue;
            }
            if let Some(name) = source.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = format!("{name}.");
                continue;
            }
            let Some((key, source)) = source.split_once('=') else {
                file.mistake(line, "expected key = value".to_owned());
                continue;
            };
            let (key, source) = (format!("{section}{}", key.trim()), source.trim());
            match value(source) {
                None => file.mistake(line, format!("{key}: not a value: {source}")),
                Some(_) if file.lines.contains_key(&key) => file.mistake(line, format!("{key} is there twice")),
                Some(found) => drop(file.lines.insert(key, (line, found))),
            }
        }
        file
    }

    fn mistake(&mut self, line: usize, what: String) {
        self.mistakes.push(Mistake { file: self.name.to_owned(), line, what });
    }

    fn into_fields(mut self, fields: &mut Fields, mistakes: &mut Vec<Mistake>) {
        for (path, (line, value)) in std::mem::take(&mut self.lines) {
            match SCHEMA.iter().find(|key| key.path == path) {
                None => self.mistake(line, unknown(&path)),
                Some(key) => match misfit(&key.kind, &value) {
                    Some(expected) => self.mistake(line, format!("{path}: expected {expected}, found {value}")),
                    None => drop(fields.insert(key.path, value)),
                },
            }
        }
        self.mistakes.sort_by_key(|mistake| mistake.line);
        mistakes.append(&mut self.mistakes);
    }
}

fn unknown(path: &str) -> String {
    let section = path.split_once('.').map_or("", |(section, _)| section);
    let known = SCHEMA.iter().filter_map(|key| match key.path.split_once('.') {
        Some((of, name)) => (of == section).then_some(name),
        None => section.is_empty().then_some(key.path),
    });
    match known.collect::<Vec<_>>() {
        known if known.is_empty() => format!("{path}: there is no section [{section}]"),
        known => format!("{path}: unknown key; there are {}", known.join(", ")),
    }
}

/// What the kind expects, unless the value is that.
fn misfit(kind: &Kind, value: &Value) -> Option<String> {
    match (kind, value) {
        (Kind::Text, Value::Text(_)) | (Kind::List, Value::List(_)) => None,
        (Kind::OneOf(names), Value::Text(text)) if names.contains(&text.as_str()) => None,
        (Kind::Number(range), Value::Number(number)) if range.contains(number) => None,
        (Kind::Text, _) => Some("a string".to_owned()),
        (Kind::List, _) => Some("a list of strings".to_owned()),
        (Kind::OneOf(names), _) => Some(format!("one of {}", names.join(", "))),
        (Kind::Number(range), _) => Some(format!("a number from {} to {}", range.start(), range.end())),
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::List(items) => write!(f, "{items:?}"),
        }
    }
}

fn value(source: &str) -> Option<Value> {
    if let Some(items) = source.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let mut list = Vec::new();
        let mut rest = items.trim();
        while let Some(begun) = rest.strip_prefix('"') {
            let (item, after) = begun.split_once('"')?;
            list.push(text(item)?);
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(next) => rest = next.trim_start(),
                None => break,
            }
        }
        return rest.is_empty().then_some(Value::List(list));
    }
    // Between ' and ' nothing is escaped, so there may be a " in it.
    for quote in ['"', '\''] {
        if let Some(inner) = source.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return (!inner.contains(quote)).then_some(Value::Text(text(inner)?));
        }
    }
    source.replace('_', "").parse().ok().map(Value::Number)
}

/// Without escapes.
fn text(inner: &str) -> Option<String> {
    (!inner.contains(['\\', '\''])).then(|| inner.to_owned())
}
