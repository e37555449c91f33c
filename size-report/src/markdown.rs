//! The report for a pull request or a release: what changed first, all of it folded below.
use crate::report::{Build, Change, Report};
use serde_json::Value;
use std::fmt::{self, Write};

const LISTED: usize = 20;

pub fn markdown(report: &Report) -> String {
    let mut out = String::new();
    write(&mut out, report).expect("a String takes all");
    out
}

fn write(out: &mut String, report: &Report) -> fmt::Result {
    let Report { version, commit, date, .. } = report;
    writeln!(out, "# Mote {version}: what it takes\n")?;
    write!(out, "Commit {commit}, {date}")?;
    match report.baseline["version"].as_str() {
        Some(last) => {
            writeln!(out, "; changes are against {last} of {}.\n", report.baseline["date"].as_str().unwrap_or("?"))?
        }
        None => writeln!(out, "; there is nothing yet to compare with.\n")?,
    }
    let over: Vec<_> = report.over().collect();
    match over.as_slice() {
        [] => writeln!(out, "All budgets hold.\n")?,
        _ => writeln!(out, "**Over budget:**\n")?,
    }
    for (board, row) in &over {
        writeln!(out, "- {board}: {} is {}, at most {}; held by {}", row.what, row.measured, row.at_most, row.held_by)?;
    }
    if !over.is_empty() {
        writeln!(out)?;
    }
    writeln!(
        out,
        "| board | binary | change | xz | change | dynamic libraries |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )?;
    for build in &report.builds {
        let found = &build.analysis;
        let xz = found.xz_bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.to_string());
        let change = |what: &str| changed(build.changes.iter().find(|change| change.what == what));
        let (whole, packed, libraries) = (change("whole"), change("xz"), found.libraries.len());
        writeln!(out, "| {} | {} | {whole} | {xz} | {packed} | {libraries} |", build.board, found.file_bytes)?;
    }
    writeln!(out)?;
    for build in report.builds.iter().filter(|build| !build.changes.is_empty()) {
        write_changes(out, build)?;
    }
    if !report.figures.is_null() {
        write_figures(out, report)?;
    }
    if !report.speed.is_empty() {
        writeln!(out, "## Speed\n\nBy `./dev bench`, on the machine that made this.\n")?;
        writeln!(out, "| what | measured | goal |\n| --- | ---: | ---: |")?;
        for row in &report.speed {
            let text = |key: &str| row[key].as_str().unwrap_or_default();
            writeln!(
                out,
                "| {} | {} {} | {} |",
                text("what"),
                row["measured"],
                text("unit"),
                text("goal").replace('<', "&lt;")
            )?;
        }
        writeln!(out)?;
    }
    report.builds.iter().try_for_each(|build| write_build(out, build))
}

fn changed(change: Option<&Change>) -> String {
    change.map_or_else(String::new, |change| format!("{:+}", change.difference()))
}

fn folded(out: &mut String, what: &str, table: &str) -> fmt::Result {
    writeln!(out, "<details><summary>{what}</summary>\n\n{table}\n</details>\n")
}

fn write_changes(out: &mut String, build: &Build) -> fmt::Result {
    let mut table = "| what | before | after | change |\n| --- | ---: | ---: | ---: |\n".to_owned();
    for change in build.changes.iter().take(2 * LISTED) {
        writeln!(
            table,
            "| {} | {} | {} | {:+} |",
            code(&change.what),
            change.before,
            change.after,
            change.difference()
        )?;
    }
    folded(out, &format!("{}: what changed", build.board), &table)
}

/// No cell may end early by a `|` in a name.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|").replace('`', "'"))
}

fn write_figures(out: &mut String, report: &Report) -> fmt::Result {
    let figures = &report.figures;
    let before = &report.baseline["figures"];
    let machine = figures["machine"].as_str().unwrap_or("this machine");
    writeln!(out, "## The node as it runs\n\nMeasured on {machine}.\n")?;
    writeln!(
        out,
        "| phase | PSS kB | change | anonymous kB | change | RSS kB |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )?;
    for phase in figures["phases"].as_array().into_iter().flatten() {
        let last = before["phases"].as_array().into_iter().flatten().find(|last| last["phase"] == phase["phase"]);
        let cells = ["pssKb", "anonymousKb"]
            .map(|key| format!("{} | {}", phase[key], difference(last.map(|last| &last[key]), &phase[key])));
        let name = phase["phase"].as_str().unwrap_or_default();
        writeln!(out, "| {name} | {} | {} | {} |", cells[0], cells[1], phase["rssKb"])?;
    }
    writeln!(out, "\n| figure | measured | change | at most | held by |\n| --- | ---: | ---: | ---: | --- |")?;
    let last = |what: &str| {
        before["idle"].get(what).or(before["costs"].get(what.rsplit_once(", ").map_or(what, |(what, _)| what)))
    };
    for row in &report.figure_rows {
        let change = difference(last(&row.what), &row.measured.into());
        writeln!(out, "| {} | {} | {change} | {} | {} |", row.what, row.measured, row.at_most, row.held_by)?;
    }
    for (what, measured) in figures["others"].as_object().into_iter().flatten() {
        writeln!(out, "| {what} | {measured} | {} | | |", difference(before["others"].get(what), measured))?;
    }
    writeln!(out)
}

fn difference(before: Option<&Value>, after: &Value) -> String {
    let (Some(before), Some(after)) = (before.and_then(Value::as_f64), after.as_f64()) else { return String::new() };
    let difference = ((after - before) * 100.0).round() / 100.0;
    if difference == 0.0 { String::new() } else { format!("{difference:+}") }
}

fn write_build(out: &mut String, build: &Build) -> fmt::Result {
    let found = &build.analysis;
    let mut table =
        "| section | bytes in file | in memory | without a symbol |\n| --- | ---: | ---: | ---: |\n".to_owned();
    for section in found.sections.iter().filter(|section| section.memory_bytes >= 4096) {
        let (file, memory, unnamed) = (section.file_bytes, section.memory_bytes, section.unnamed_bytes);
        writeln!(table, "| {} | {file} | {memory} | {unnamed} |", code(&section.name))?;
    }
    folded(out, &format!("{}: sections", build.board), &table)?;
    if found.crates.is_empty() {
        return Ok(());
    }
    let mut table = "| crate | code | named data | change |\n| --- | ---: | ---: | ---: |\n".to_owned();
    let mut crates: Vec<_> = found.crates.iter().collect();
    crates.sort_by_key(|(_, share)| std::cmp::Reverse(share.bytes()));
    for (name, share) in crates.iter().take(2 * LISTED) {
        let change = changed(build.changes_of(&format!("crate {name}")).next());
        writeln!(table, "| {name} | {} | {} | {change} |", share.code_bytes, share.data_bytes)?;
    }
    folded(out, &format!("{}: crates", build.board), &table)?;
    let mut table = "| generic | instances | bytes | beyond one |\n| --- | ---: | ---: | ---: |\n".to_owned();
    for generic in found.generics.iter().take(LISTED) {
        let beyond = generic.bytes - generic.largest_bytes;
        writeln!(table, "| {} | {} | {} | {beyond} |", code(&generic.name), generic.instances, generic.bytes)?;
    }
    folded(out, &format!("{}: largest generics", build.board), &table)?;
    for (what, list) in [("functions", &found.functions), ("data with a name", &found.data), ("texts", &found.texts)] {
        let mut table = "| what | bytes |\n| --- | ---: |\n".to_owned();
        for (name, bytes) in list.iter().take(LISTED) {
            writeln!(table, "| {} | {bytes} |", code(name))?;
        }
        folded(out, &format!("{}: largest {what}", build.board), &table)?;
    }
    Ok(())
}
