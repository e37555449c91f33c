//! `mote-size-report [--out DIR] [--figures FILE] [--bench FILE] [--commit ID] [--date DATE] [--save] BOARD=BINARY...` tells what binaries are
//! made of, against the last release and the budgets of `SPECIFICATION.md`, and fails when one is exceeded. Sizes are
//! BINARY's; names come from BINARY.symbols, the same build before it was stripped, where that is there.
//!
//! DIR gets report.json, report.md and report.html. `--save` makes this the release that later ones are compared with.
use mote_size_report::{
    analysis::{self, Analysis},
    budget::Specification,
    markdown, page,
    report::{Build, Report},
    text,
};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

const USAGE: &str = "usage: mote-size-report [--out DIR] [--figures FILE] [--bench FILE] [--commit ID] [--date DATE] [--save] BOARD=BINARY...";

#[derive(Default)]
struct Arguments {
    out: Option<PathBuf>,
    figures: Option<PathBuf>,
    bench: Option<PathBuf>,
    commit: String,
    date: String,
    save: bool,
    binaries: Vec<(String, PathBuf)>,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mote-size-report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments::default();
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--out" => arguments.out = Some(given.next()?.into()),
            "--figures" => arguments.figures = Some(given.next()?.into()),
            "--bench" => arguments.bench = Some(given.next()?.into()),
            "--commit" => arguments.commit = given.next()?,
            "--date" => arguments.date = given.next()?,
            "--save" => arguments.save = true,
            _ => {
                let (board, binary) = argument.split_once('=')?;
                arguments.binaries.push((board.to_owned(), binary.into()));
            }
        }
    }
    (!arguments.binaries.is_empty()).then_some(arguments)
}

/// Whether all budgets hold.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let kept = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let specification = Specification::embedded();
    let baseline = match fs::read_to_string(kept("baseline.json")) {
        Ok(text) => json("baseline.json", &text)?,
        Err(_) => Value::Null,
    };
    let history = fs::read_to_string(kept("history.jsonl")).unwrap_or_default();
    let history = history.lines().map(|line| json("history.jsonl", line)).collect::<Result<Vec<_>, _>>()?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: arguments.commit.clone(),
        date: arguments.date.clone(),
        baseline,
        history,
        ..Report::default()
    };
    for (board, binary) in &arguments.binaries {
        let build = Build::new(board, analysed(binary)?, &specification, &report.baseline);
        report.builds.push(build);
    }
    if let Some(path) = &arguments.figures {
        report.take_figures(json(&path.to_string_lossy(), &String::from_utf8_lossy(&read(path)?))?, &specification);
    }
    if let Some(path) = &arguments.bench {
        report.take_speed(&json(&path.to_string_lossy(), &String::from_utf8_lossy(&read(path)?))?);
    }
    if arguments.save {
        let line = report.to_history();
        // A release that is made again takes the place of its line.
        report.history.retain(|old| old["version"] != line["version"] || old["commit"] != line["commit"]);
        report.history.push(line);
    }
    print!("{}", text::text(&report));
    if let Some(dir) = &arguments.out {
        let told = report.json();
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        write(&dir.join("report.json"), &format!("{told:#}\n"))?;
        write(&dir.join("report.md"), &markdown::markdown(&report))?;
        write(&dir.join("report.html"), &page::page(&told))?;
        println!("written: report.html, report.md and report.json in {}", dir.display());
    }
    let holds = report.over().next().is_none();
    if arguments.save {
        if !holds {
            return Err("what is over budget is not saved".to_owned());
        }
        write(&kept("baseline.json"), &format!("{:#}\n", report.to_baseline()))?;
        let lines: Vec<String> = report.history.iter().map(|line| format!("{line}\n")).collect();
        write(&kept("history.jsonl"), &lines.concat())?;
    }
    Ok(holds)
}

fn analysed(binary: &Path) -> Result<Analysis, String> {
    let shipped = read(binary)?;
    let mut name = binary.as_os_str().to_owned();
    name.push(".symbols");
    let with_symbols = if Path::new(&name).exists() { read(Path::new(&name))? } else { shipped.clone() };
    analysis::analyse(&shipped, &with_symbols, xz_bytes(&shipped))
        .map_err(|error| format!("{}: {error}", binary.display()))
}

/// None where there is no xz.
fn xz_bytes(file: &[u8]) -> Option<u64> {
    let mut xz = Command::new("xz")
        .args(["-9e", "--stdout", "-T1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = xz.stdin.take()?;
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(file));
        let output = xz.wait_with_output().ok()?;
        output.status.success().then_some(output.stdout.len() as u64)
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn json(name: &str, text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{name}: {error}"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
