//! The command line. Parsed by hand: ten commands and a few flags are less code than a parser's glue.
use crate::{backup, config::Config, node, preflight, status};
use std::{
    ffi::OsString,
    fmt,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

pub const DEFAULT_DATA_DIR: &str = "/var/lib/mote";

/// What sysexits.h calls EX_CONFIG; systemd shows it as such.
const EXIT_CONFIG: u8 = 78;
const EXIT_USAGE: u8 = 2;

const HELP: &str = "\
Mote: a whole Kubernetes node in one small process, in front of CRI-O or containerd.

Usage:
  mote run [--config FILE] [--data-dir DIR]   run the node; stops on SIGTERM and leaves containers running
  mote preflight [--config FILE] [--data-dir DIR] [-o json]
                                              check that this machine offers what a node needs; exit code 1 when something fails
  mote show-config [--mode default|effective] [--config FILE]
                                              print the configuration, every key in it
  mote backup PATH [--data-dir DIR]           write all objects and certificates to one file, while the node runs or not;
                                              PATH - is standard output
  mote restore PATH [--data-dir DIR]          put them back; the node must be stopped, and what was there is kept aside
  mote backup --auto-recovery DIRECTORY       the same into a directory of backups, under a name of its own
  mote restore --auto-recovery DIRECTORY [--dont-save-failed]
                                              put the newest of them back that fits; the failed data is kept there
  mote status [-o json] [--data-dir DIR]      print how the node and its store fare, while it runs or not
  mote store verify [--data-dir DIR]          check what is on disk; exit code 3 when something is damaged
  mote version [-o json]                      print the version
  mote help                                   print this

FILE is /etc/mote/config.yaml unless given; the *.yaml files of config.d beside it are read after it.
DIR is /var/lib/mote unless given; the administrator's kubeconfig is written to DIR/kubeconfig.
";

#[derive(Debug, PartialEq)]
enum Command {
    Run {
        config: Option<PathBuf>,
        data_dir: PathBuf,
    },
    Preflight {
        config: Option<PathBuf>,
        data_dir: PathBuf,
        json: bool,
    },
    ShowConfig {
        config: Option<PathBuf>,
        effective: bool,
    },
    Backup {
        path: PathBuf,
        data_dir: PathBuf,
    },
    Restore {
        path: PathBuf,
        data_dir: PathBuf,
    },
    BackupInto {
        storage: PathBuf,
        data_dir: PathBuf,
    },
    Recover {
        storage: PathBuf,
        save_failed: bool,
        data_dir: PathBuf,
    },
    Status {
        data_dir: PathBuf,
        json: bool,
    },
    Verify {
        data_dir: PathBuf,
    },
    Version {
        json: bool,
    },
    /// Not in the help: for uninstalling, and for whoever takes a node apart.
    Clean,
    Help,
}

#[derive(Debug, PartialEq)]
enum Misuse {
    NoCommand,
    UnknownCommand(String),
    UnknownArgument(String),
    MissingValue(String),
    MissingPath,
    NotAValue { flag: String, value: String, expected: &'static str },
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misuse::NoCommand => write!(f, "expected a command"),
            Misuse::UnknownCommand(name) => write!(f, "unknown command {name:?}"),
            Misuse::UnknownArgument(text) => write!(f, "unexpected argument {text:?}"),
            Misuse::MissingValue(flag) => write!(f, "{flag} needs a value"),
            Misuse::MissingPath => write!(f, "expected the path of a backup"),
            Misuse::NotAValue { flag, value, expected } => write!(f, "{flag}: expected {expected}, found {value:?}"),
        }
    }
}

pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    match parse(args) {
        Ok(Command::Run { config, data_dir }) => match load(config.as_deref()) {
            Ok(config) => node::run(config, &data_dir),
            Err(code) => code,
        },
        Ok(Command::Preflight { config, data_dir, json }) => match load(config.as_deref()) {
            Ok(config) => preflight::command(&config, &data_dir, json),
            Err(code) => code,
        },
        Ok(Command::ShowConfig { config: _, effective: false }) => print(&Config::default().show()),
        Ok(Command::ShowConfig { config, effective: true }) => match load(config.as_deref()) {
            Ok(config) => print(&config.show()),
            Err(code) => code,
        },
        Ok(Command::Backup { path, data_dir }) => backup::backup(&path, &data_dir),
        Ok(Command::Restore { path, data_dir }) => backup::restore(&path, &data_dir),
        Ok(Command::BackupInto { storage, data_dir }) => backup::backup_into(&storage, &data_dir),
        Ok(Command::Recover { storage, save_failed, data_dir }) => backup::recover(&storage, save_failed, &data_dir),
        Ok(Command::Status { data_dir, json }) => status::print(&data_dir, json),
        Ok(Command::Verify { data_dir }) => backup::verify(&data_dir),
        Ok(Command::Version { json }) => print(&version(json)),
        Ok(Command::Clean) => crate::parts::clean(),
        Ok(Command::Help) => print(HELP),
        Err(misuse) => {
            eprintln!("mote: {misuse}; see `mote help`");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn load(file: Option<&Path>) -> Result<Config, ExitCode> {
    Config::load(file).map_err(|mistakes| {
        for mistake in mistakes {
            eprintln!("{mistake}");
        }
        ExitCode::from(EXIT_CONFIG)
    })
}

/// A reader that has gone (`mote help | head -1`) is no failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn version(json: bool) -> String {
    let mote = env!("CARGO_PKG_VERSION");
    let kubernetes = mote_api::KUBERNETES_VERSION;
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    if json {
        format!("{{\"version\":\"{mote}\",\"kubernetesVersion\":\"{kubernetes}\",\"platform\":\"{platform}\"}}\n")
    } else {
        format!("mote {mote} (Kubernetes {kubernetes}, {platform})\n")
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, Misuse> {
    let mut args = Args { rest: args, value: None };
    let Some((name, _)) = args.next() else { return Err(Misuse::NoCommand) };
    let mut config = None;
    match name.as_str() {
        "run" | "preflight" => {
            let checks = name == "preflight";
            let (mut data_dir, mut json) = (PathBuf::from(DEFAULT_DATA_DIR), false);
            while let Some((flag, raw)) = args.next() {
                match flag.as_str() {
                    "--config" => config = Some(args.value(flag)?.into()),
                    "--data-dir" => data_dir = args.value(flag)?.into(),
                    "-o" | "--output" if checks => json = args.is_json(flag)?,
                    _ => return Err(Misuse::UnknownArgument(lossy(&raw))),
                }
            }
            Ok(if checks { Command::Preflight { config, data_dir, json } } else { Command::Run { config, data_dir } })
        }
        "backup" | "restore" => {
            let (mut path, mut data_dir) = (None, PathBuf::from(DEFAULT_DATA_DIR));
            let (mut recovery, mut save_failed) = (false, true);
            while let Some((flag, raw)) = args.next() {
                match flag.as_str() {
                    "--data-dir" => data_dir = args.value(flag)?.into(),
                    "--auto-recovery" => recovery = true,
                    "--dont-save-failed" if name == "restore" => save_failed = false,
                    _ if path.is_none() && (!flag.starts_with('-') || flag == "-") => path = Some(PathBuf::from(raw)),
                    _ => return Err(Misuse::UnknownArgument(lossy(&raw))),
                }
            }
            let path = path.ok_or(Misuse::MissingPath)?;
            Ok(match (name.as_str(), recovery) {
                ("backup", false) => Command::Backup { path, data_dir },
                ("backup", true) => Command::BackupInto { storage: path, data_dir },
                (_, true) => Command::Recover { storage: path, save_failed, data_dir },
                (_, false) if save_failed => Command::Restore { path, data_dir },
                _ => return Err(Misuse::UnknownArgument("--dont-save-failed".to_owned())),
            })
        }
        "store" => {
            match args.next() {
                Some((word, _)) if word == "verify" => {}
                Some((word, _)) => return Err(Misuse::UnknownCommand(format!("store {word}"))),
                None => return Err(Misuse::UnknownCommand("store".to_owned())),
            }
            let mut data_dir = PathBuf::from(DEFAULT_DATA_DIR);
            while let Some((flag, raw)) = args.next() {
                match flag.as_str() {
                    "--data-dir" => data_dir = args.value(flag)?.into(),
                    _ => return Err(Misuse::UnknownArgument(lossy(&raw))),
                }
            }
            Ok(Command::Verify { data_dir })
        }
        "status" => {
            let (mut data_dir, mut json) = (PathBuf::from(DEFAULT_DATA_DIR), false);
            while let Some((flag, raw)) = args.next() {
                match flag.as_str() {
                    "--data-dir" => data_dir = args.value(flag)?.into(),
                    "-o" | "--output" => json = args.is_json(flag)?,
                    _ => return Err(Misuse::UnknownArgument(lossy(&raw))),
                }
            }
            Ok(Command::Status { data_dir, json })
        }
        "clean" => match args.next() {
            None => Ok(Command::Clean),
            Some((_, raw)) => Err(Misuse::UnknownArgument(lossy(&raw))),
        },
        "show-config" => {
            let mut effective = true;
            while let Some((flag, raw)) = args.next() {
                match flag.as_str() {
                    "--config" => config = Some(args.value(flag)?.into()),
                    "--mode" | "-m" => {
                        effective = match lossy(&args.value(flag.clone())?).as_str() {
                            "effective" => true,
                            "default" => false,
                            other => return Err(not_a_value(flag, other, "default or effective")),
                        }
                    }
                    _ => return Err(Misuse::UnknownArgument(lossy(&raw))),
                }
            }
            Ok(Command::ShowConfig { config, effective })
        }
        "version" | "--version" => {
            let mut json = false;
            while let Some((flag, raw)) = args.next() {
                match flag.as_str() {
                    "-o" | "--output" => json = args.is_json(flag)?,
                    _ => return Err(Misuse::UnknownArgument(lossy(&raw))),
                }
            }
            Ok(Command::Version { json })
        }
        "help" | "--help" | "-h" => Ok(Command::Help),
        other => Err(Misuse::UnknownCommand(other.to_owned())),
    }
}

fn not_a_value(flag: String, value: &str, expected: &'static str) -> Misuse {
    Misuse::NotAValue { flag, value: value.to_owned(), expected }
}

fn lossy(text: &OsString) -> String {
    text.to_string_lossy().into_owned()
}

/// Arguments one by one; `--flag=value` is the same as `--flag value`.
struct Args<I> {
    rest: I,
    value: Option<OsString>,
}

impl<I: Iterator<Item = OsString>> Args<I> {
    /// The next flag, and the whole argument it was in.
    fn next(&mut self) -> Option<(String, OsString)> {
        if let Some(value) = self.value.take() {
            // The value of a flag that takes none.
            return Some((String::new(), value));
        }
        let raw = self.rest.next()?;
        let text = lossy(&raw);
        match text.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                self.value = Some(value.into());
                Some((flag.to_owned(), raw))
            }
            _ => Some((text, raw)),
        }
    }

    /// Of `-o`, which knows one format.
    fn is_json(&mut self, flag: String) -> Result<bool, Misuse> {
        match lossy(&self.value(flag.clone())?).as_str() {
            "json" => Ok(true),
            other => Err(not_a_value(flag, other, "json")),
        }
    }

    fn value(&mut self, flag: String) -> Result<OsString, Misuse> {
        self.value.take().or_else(|| self.rest.next()).ok_or(Misuse::MissingValue(flag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Result<Command, &str>) {
        let parsed = parse(line.split_whitespace().map(OsString::from));
        assert_eq!(parsed.map_err(|misuse| misuse.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn commands_are_understood() {
        let run =
            |config: Option<&str>, dir: &str| Command::Run { config: config.map(Into::into), data_dir: dir.into() };
        check("run", Ok(run(None, "/var/lib/mote")));
        check("run --config a.yaml --data-dir /b", Ok(run(Some("a.yaml"), "/b")));
        check("run --data-dir=/b=c", Ok(run(None, "/b=c")));
        let preflight = |json| Command::Preflight { config: None, data_dir: "/d".into(), json };
        check("preflight --data-dir /d", Ok(preflight(false)));
        check("preflight --data-dir=/d -o json", Ok(preflight(true)));
        check("run -o json", Err("unexpected argument \"-o\""));
        check("show-config", Ok(Command::ShowConfig { config: None, effective: true }));
        check("show-config --mode default", Ok(Command::ShowConfig { config: None, effective: false }));
        let path = |path: &str, dir: &str| (PathBuf::from(path), PathBuf::from(dir));
        let (file, dir) = path("/b.tar.gz", "/d");
        check("backup /b.tar.gz --data-dir /d", Ok(Command::Backup { path: file, data_dir: dir }));
        let (file, dir) = path("-", DEFAULT_DATA_DIR);
        check("backup -", Ok(Command::Backup { path: file, data_dir: dir }));
        let (file, dir) = path("x=y", "/d");
        check("restore --data-dir=/d x=y", Ok(Command::Restore { path: file, data_dir: dir }));
        check("store verify --data-dir /d", Ok(Command::Verify { data_dir: "/d".into() }));
        check("status -o json", Ok(Command::Status { data_dir: DEFAULT_DATA_DIR.into(), json: true }));
        let (storage, data_dir) = path("/r", "/d");
        let recover = Command::Recover { storage, save_failed: false, data_dir };
        check("restore --auto-recovery /r --dont-save-failed --data-dir /d", Ok(recover));
        check("version -o json", Ok(Command::Version { json: true }));
        check("--help", Ok(Command::Help));
    }

    #[test]
    fn misuse_is_named() {
        check("", Err("expected a command"));
        check("start", Err("unknown command \"start\""));
        check("run now", Err("unexpected argument \"now\""));
        check("run --config", Err("--config needs a value"));
        check("show-config --mode=all", Err("--mode: expected default or effective, found \"all\""));
        check("version -o yaml", Err("-o: expected json, found \"yaml\""));
        check("backup", Err("expected the path of a backup"));
        check("backup a b", Err("unexpected argument \"b\""));
        check("restore --dont-save-failed /b", Err("unexpected argument \"--dont-save-failed\""));
        check("restore --force", Err("unexpected argument \"--force\""));
        check("store repair", Err("unknown command \"store repair\""));
        check("version --verbose=1", Err("unexpected argument \"--verbose=1\""));
    }
}
