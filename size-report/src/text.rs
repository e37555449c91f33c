//! The report for a terminal.
use crate::report::{Build, Change, Report};
use std::fmt::{self, Write};

/// How many lines a list has.
const LISTED: usize = 25;
const WIDTH_CHARS: usize = 110;

pub fn text(report: &Report) -> String {
    let mut out = String::new();
    write(&mut out, report).expect("a String takes all");
    out
}

fn write(out: &mut String, report: &Report) -> fmt::Result {
    for build in &report.builds {
        write_build(out, build)?;
    }
    if !report.figures.is_null() {
        write_figures(out, report)?;
    }
    for row in &report.speed {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let measured = format!("{} {}", row["measured"], text("unit"));
        writeln!(out, "{measured:>16}  {:>22}  {}", text("goal"), text("what"))?;
    }
    writeln!(out)?;
    for (board, row) in report.over() {
        writeln!(
            out,
            "over budget: {board}: {} is {}, at most {} (held by {})",
            row.what, row.measured, row.at_most, row.held_by
        )?;
    }
    if report.over().next().is_none() {
        return writeln!(out, "within budget");
    }
    for build in &report.builds {
        let grown: Vec<_> = build.changes_of("crate ").filter(|change| change.difference() > 0).collect();
        if !grown.is_empty() {
            writeln!(out, "{}: what grew since {}:", build.board, since(report))?;
        }
        for change in grown {
            writeln!(out, "{:>+11}  {} ({} -> {})", change.difference(), change.what, change.before, change.after)?;
        }
    }
    Ok(())
}

fn since(report: &Report) -> String {
    let text = |key: &str| report.baseline[key].as_str().unwrap_or("?").to_owned();
    format!("{} of {}", text("version"), text("date"))
}

fn write_build(out: &mut String, build: &Build) -> fmt::Result {
    let found = &build.analysis;
    let changed = |what: &str| {
        let difference = build.changes.iter().find(|change| change.what == what).map(Change::difference);
        difference.map_or_else(String::new, |difference| format!("{difference:+}"))
    };
    writeln!(out, "== {} ({})", build.board, found.architecture)?;
    writeln!(out, "{:>11}  {:>9}  whole file", found.file_bytes, changed("whole"))?;
    if let Some(bytes) = found.xz_bytes {
        writeln!(out, "{bytes:>11}  {:>9}  as xz -9e packs it", changed("xz"))?;
    }
    match found.libraries.as_slice() {
        [] => writeln!(out, "{:>11}  {:>9}  dynamic libraries", "none", "")?,
        some => writeln!(out, "{:>11}  {:>9}  dynamic libraries: {}", some.len(), "", some.join(", "))?,
    }
    writeln!(out, "\n{:>11}  {:>9}  {:>11}  {:>11}  section", "in file", "change", "in memory", "no symbol")?;
    for section in found.sections.iter().filter(|section| section.memory_bytes >= 4096) {
        let change = changed(&format!("section {}", section.name));
        writeln!(
            out,
            "{:>11}  {change:>9}  {:>11}  {:>11}  {}",
            section.file_bytes, section.memory_bytes, section.unnamed_bytes, section.name
        )?;
    }
    if found.crates.is_empty() {
        return writeln!(out, "\nno symbols: what it is made of is not known");
    }
    writeln!(out, "\n{:>11}  kind", "bytes")?;
    for (kind, bytes) in &found.kinds {
        writeln!(out, "{bytes:>11}  {kind}")?;
    }
    writeln!(out, "{:>11}  text in read-only data, without a symbol", found.text_bytes)?;
    writeln!(out, "\n{:>11}  {:>11}  {:>9}  crate", "code", "named data", "change")?;
    let mut crates: Vec<_> = found.crates.iter().collect();
    crates.sort_by_key(|(_, share)| std::cmp::Reverse(share.bytes()));
    for (name, share) in crates.iter().take(LISTED) {
        let change = changed(&format!("crate {name}"));
        writeln!(out, "{:>11}  {:>11}  {change:>9}  {name}", share.code_bytes, share.data_bytes)?;
    }
    writeln!(out, "\n{:>11}  function", "bytes")?;
    write_list(out, &found.functions)?;
    writeln!(
        out,
        "\n{:>11}  {:>9}  {:>11}  generic, by what its instances take beyond one",
        "bytes", "instances", "beyond one"
    )?;
    for generic in found.generics.iter().take(LISTED) {
        let beyond = generic.bytes - generic.largest_bytes;
        writeln!(out, "{:>11}  {:>9}  {beyond:>11}  {}", generic.bytes, generic.instances, cut(&generic.name))?;
    }
    writeln!(out, "\n{:>11}  data with a name", "bytes")?;
    write_list(out, &found.data)?;
    writeln!(out, "\n{:>11}  embedded text, by its beginning", "bytes")?;
    write_list(out, &found.texts)?;
    writeln!(out)
}

fn write_list(out: &mut String, list: &[(String, u64)]) -> fmt::Result {
    list.iter().take(LISTED).try_for_each(|(name, bytes)| writeln!(out, "{bytes:>11}  {}", cut(name)))
}

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDTH_CHARS {
        text.to_owned()
    } else {
        text.chars().take(WIDTH_CHARS).chain("…".chars()).collect()
    }
}

fn write_figures(out: &mut String, report: &Report) -> fmt::Result {
    let figures = &report.figures;
    writeln!(out, "== the node as it runs, on {}", figures["machine"].as_str().unwrap_or("this machine"))?;
    writeln!(out, "{:>11}  {:>11}  {:>11}  phase", "PSS kB", "anon. kB", "RSS kB")?;
    for phase in figures["phases"].as_array().into_iter().flatten() {
        let name = phase["phase"].as_str().unwrap_or_default();
        let [proportional, anonymous, resident] = ["pssKb", "anonymousKb", "rssKb"].map(|key| phase[key].to_string());
        writeln!(out, "{proportional:>11}  {anonymous:>11}  {resident:>11}  {name}")?;
    }
    writeln!(out, "\n{:>11}  {:>11}  figure", "measured", "at most")?;
    for row in &report.figure_rows {
        writeln!(out, "{:>11}  {:>11}  {}", row.measured, row.at_most, row.what)?;
    }
    for (what, measured) in figures["others"].as_object().into_iter().flatten() {
        writeln!(out, "{:>11}  {:>11}  {what}", measured.to_string(), "")?;
    }
    Ok(())
}
