//! The files of one container's log: the one being written, and those it was before. Blocking.
use super::{MAX_BYTES, MAX_FILES};
use mote_schema::Order as _;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

const BLOCK: usize = 16 << 10;

/// Oldest first; `path` itself is not among them. Rotated files sort by the time in their names.
pub fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = [name.as_encoded_bytes(), b"."].concat();
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name: OsString = entry?.file_name();
        if name
            .as_encoded_bytes()
            .strip_prefix(&prefix[..])
            .is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit))
        {
            found.push(dir.join(name));
        }
    }
    found.order();
    Ok(found)
}

/// Renames a log that has grown over `MAX_BYTES`; true when the runtime has to reopen it.
pub fn rotate(path: &Path) -> io::Result<bool> {
    match path.metadata() {
        Ok(metadata) if metadata.len() > MAX_BYTES => {}
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => return Ok(false),
    }
    let older = rotated(path)?;
    // The one about to be rotated and the one about to be opened count too.
    for excess in &older[..older.len().saturating_sub(MAX_FILES - 2)] {
        fs::remove_file(excess)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(jiff::Timestamp::now().strftime(".%Y%m%d-%H%M%S").to_string());
    fs::rename(path, name)?;
    Ok(true)
}

/// Opened files from the one that holds the start of the last `lines` lines on, oldest first, positioned there. A last
/// line without an end does not count.
pub fn open_tail(path: &Path, lines: Option<u64>) -> io::Result<Vec<File>> {
    let mut files = vec![File::open(path)?];
    let older = rotated(path)?;
    let Some(lines) = lines else {
        // A file that is rotated away meanwhile is no reason to fail.
        let older: Vec<File> = older.into_iter().filter_map(|path| File::open(path).ok()).collect();
        files.splice(0..0, older);
        return Ok(files);
    };
    let mut wanted = lines;
    let mut older = older.into_iter().rev();
    loop {
        let Some(first) = files.first_mut() else { return Ok(files) };
        match seek_lines(first, wanted)? {
            0 => return Ok(files),
            left => wanted = left,
        }
        match older.next().map(File::open) {
            Some(Ok(file)) => files.insert(0, file),
            _ => return Ok(files),
        }
    }
}

/// Goes to the start of the last `lines` lines; how many are missing.
fn seek_lines(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut right = file.seek(SeekFrom::End(0))?;
    let (mut seen, mut block) = (0, vec![0; BLOCK]);
    while right > 0 {
        let left = right.saturating_sub(BLOCK as u64);
        let block = &mut block[..(right - left) as usize];
        file.seek(SeekFrom::Start(left))?;
        file.read_exact(block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The newline before the first line that is wanted.
            if seen == lines {
                file.seek(SeekFrom::Start(left + at as u64 + 1))?;
                return Ok(0);
            }
            seen += 1;
        }
        right = left;
    }
    file.rewind()?;
    Ok(lines - seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Temp;

    fn read(files: Vec<File>) -> String {
        let mut text = String::new();
        for mut file in files {
            file.read_to_string(&mut text).unwrap();
        }
        text
    }

    #[test]
    fn tails_reach_into_older_files() {
        let temp = Temp::new();
        let path = temp.0.join("0.log");
        fs::write(temp.0.join("0.log.20260101-000000"), "a\nb\n").unwrap();
        fs::write(temp.0.join("0.log.20260102-000000"), "c\n").unwrap();
        fs::write(temp.0.join("0.log.tmp"), "no\n").unwrap();
        fs::write(temp.0.join("10.log.20260102-000000"), "no\n").unwrap();
        fs::write(&path, "d\ne\nf").unwrap();
        for (lines, expected) in [
            (None, "a\nb\nc\nd\ne\nf"),
            (Some(0), "f"),
            (Some(1), "e\nf"),
            (Some(2), "d\ne\nf"),
            (Some(3), "c\nd\ne\nf"),
            (Some(4), "b\nc\nd\ne\nf"),
            (Some(9), "a\nb\nc\nd\ne\nf"),
        ] {
            assert_eq!(read(open_tail(&path, lines).unwrap()), expected, "{lines:?}");
        }
        let long = "x".repeat(BLOCK - 1) + "\n";
        fs::write(&path, long.repeat(3)).unwrap();
        assert_eq!(read(open_tail(&path, Some(2)).unwrap()).len(), 2 * BLOCK);
        assert!(open_tail(&temp.0.join("1.log"), None).is_err());
    }

    #[test]
    fn big_logs_are_rotated_and_few_are_kept() {
        let temp = Temp::new();
        let path = temp.0.join("0.log");
        assert!(!rotate(&path).unwrap());
        fs::write(&path, "small").unwrap();
        assert!(!rotate(&path).unwrap());
        for i in 0..6 {
            fs::write(temp.0.join(format!("0.log.2020010{i}-000000")), "").unwrap();
        }
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(rotate(&path).unwrap());
        let left = rotated(&path).unwrap();
        assert_eq!(left.len(), MAX_FILES - 1);
        assert!(!path.exists() && left[0].ends_with("0.log.20200103-000000"));
        assert_eq!(left[3].metadata().unwrap().len(), MAX_BYTES + 1);
    }
}
