//! What the kernel can do: built in, loaded, or there to be loaded. Its configuration says so (`/proc/config.gz` or
//! `/boot/config-RELEASE`), else the lists of its modules; where there is none of all that, nothing can be told.
use super::{Finding, Host};
use std::io::Read;

/// A configuration has 300 kB.
const CONFIG_LIMIT_BYTES: u64 = 4 << 20;

/// Texts as they are, searched for what is asked: large pieces of memory, which go back to the kernel whole.
pub struct Kernel {
    pub release: String,
    /// "" when there is none to be read.
    config: String,
    /// Files of modules, one a line, and after a colon those that they need.
    built_in: String,
    modules: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    There,
    /// A module that is not loaded.
    Loadable,
    Absent,
    Unknown,
}

impl Kernel {
    pub fn read(host: &Host<'_>) -> Kernel {
        let release = host.line("/proc/sys/kernel/osrelease");
        let mut config = Vec::new();
        let packed = host.bytes("/proc/config.gz");
        // What is torn is used as far as it goes.
        let _ = flate2::read::GzDecoder::new(&packed[..]).take(CONFIG_LIMIT_BYTES).read_to_end(&mut config);
        if config.is_empty() {
            config = host.bytes(&format!("/boot/config-{release}"));
        }
        let listed = |file: &str| host.read(&format!("/lib/modules/{release}/{file}"));
        Kernel {
            config: String::from_utf8_lossy(&config).into_owned(),
            built_in: listed("modules.builtin"),
            modules: listed("modules.dep"),
            release,
        }
    }

    fn is_set(&self, option: &str, value: &str) -> bool {
        let of = |line: &str| {
            let found = line.strip_prefix("CONFIG_").and_then(|line| line.strip_prefix(option)?.strip_prefix('='));
            found == Some(value)
        };
        self.config.lines().any(of)
    }

    fn part(&self, option: &str, module: &str) -> Part {
        if self.is_set(option, "y") || lists(&self.built_in, module) {
            Part::There
        } else if lists(&self.modules, module) {
            Part::Loadable
        } else if self.modules.is_empty() && (self.config.is_empty() || self.is_set(option, "m")) {
            // Another system's kernel under this root, as in a container: its modules are out of sight.
            Part::Unknown
        } else {
            Part::Absent
        }
    }
}

/// Whether a list of files has the module's; they are spelt with `-` or `_`, and may be packed.
fn lists(files: &str, module: &str) -> bool {
    files.lines().any(|line| {
        let path = line.split(':').next().unwrap_or_default();
        let name = path.rsplit('/').next().and_then(|file| file.split(".ko").next()).unwrap_or_default();
        name.len() == module.len() && name.bytes().zip(module.bytes()).all(|(a, b)| a == b || a == b'-' && b == b'_')
    })
}

/// A part of the kernel: what it is called in its configuration and as a module, and what there is not without it.
pub struct Need {
    pub option: &'static str,
    pub module: &'static str,
    pub without: &'static str,
}

/// Whether a module of that name runs, in the cheapest way: the lists are read only for one that does not.
fn runs(host: &Host<'_>, module: &str) -> bool {
    host.has(&format!("/sys/module/{module}"))
        || host.read("/proc/filesystems").lines().any(|line| line.trim_start_matches("nodev").trim() == module)
}

/// `None` of the needs missing is ok; modules that can be loaded are, when the kernel loads them when they are used.
pub fn needs(host: &Host<'_>, needs: &'static [Need]) -> Finding {
    let mut unknown = false;
    for need in needs {
        if runs(host, need.module) {
            continue;
        }
        match host.kernel().part(need.option, need.module) {
            Part::There | Part::Loadable => {}
            Part::Unknown => unknown = true,
            Part::Absent => {
                let release = &host.kernel().release;
                return Finding::warn(
                    format!("the kernel {release} has no {}", need.module),
                    need.without,
                    format!("a kernel with CONFIG_{}=m: Debian's has it", need.option),
                );
            }
        }
    }
    if unknown { Finding::ok("cannot be told: no kernel configuration here") } else { Finding::ok("there") }
}

/// Major and minor version.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
