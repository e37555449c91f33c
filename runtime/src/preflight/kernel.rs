//! What the kernel can do: built in, loaded, or there to be loaded. Its configuration says so (`/proc/config.gz` or
//! `/boot/config-RELEASE`), else the lists of its modules; where there is none of all that, nothing can be told.
use super::{Finding, Host};
use std::{collections::BTreeSet, io::Read};

/// A configuration has 300 kB.
const CONFIG_LIMIT_BYTES: u64 = 4 << 20;

pub struct Kernel {
    pub release: String,
    /// Names without CONFIG_, of what is `y`; None when there is no configuration to be read.
    built_in: Option<BTreeSet<String>>,
    modular: BTreeSet<String>,
    /// As in `modules.builtin` and `modules.dep`, with `_` for `-`.
    builtin_modules: BTreeSet<String>,
    modules: BTreeSet<String>,
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
        let config = String::from_utf8_lossy(&config);
        let options = |value: &str| -> BTreeSet<String> {
            let of = |line: &str| line.strip_prefix("CONFIG_")?.strip_suffix(value).map(str::to_owned);
            config.lines().filter_map(of).collect()
        };
        let listed = |file: &str| -> BTreeSet<String> {
            let text = host.read(&format!("/lib/modules/{release}/{file}"));
            let name = |line: &str| {
                let path = line.split(':').next()?;
                Some(path.rsplit('/').next()?.split(".ko").next()?.replace('-', "_"))
            };
            text.lines().filter_map(name).collect()
        };
        let built_in = options("=y");
        Kernel {
            built_in: (!built_in.is_empty()).then_some(built_in),
            modular: options("=m"),
            builtin_modules: listed("modules.builtin"),
            modules: listed("modules.dep"),
            release,
        }
    }

    fn part(&self, option: &str, module: &str) -> Part {
        let built_in = self.built_in.as_ref();
        if built_in.is_some_and(|options| options.contains(option)) || self.builtin_modules.contains(module) {
            Part::There
        } else if self.modules.contains(module) {
            Part::Loadable
        } else if built_in.is_none() && self.modules.is_empty()
            || self.modular.contains(option) && self.modules.is_empty()
        {
            // Another system's kernel under this root, as in a container: its modules are out of sight.
            Part::Unknown
        } else {
            Part::Absent
        }
    }
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
