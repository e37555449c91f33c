//! A disk for a guest whose power can be cut: an NBD server on a Unix socket that keeps what was written, but not flushed, in
//! memory, as a card's or drive's volatile cache does. A flush puts it in the file; a cut puts there only some of it, in whole sectors
//! of 512 bytes, chosen by a seed, in any order. Killing QEMU alone would lose nothing: the host's page cache outlives it. The
//! moment can be a write's: then nothing is answered from it on, so that it, at least, is unflushed.
//!
//! NBD's fixed newstyle negotiation and simple replies (the protocol's doc/proto.md): one client at a time, which is QEMU.
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        fs::FileExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

const SECTOR: usize = 512;
/// QEMU asks for no more at once.
const REQUEST_LIMIT_BYTES: u32 = 32 << 20;
const OPTION_GO: u32 = 7;
const OPTION_INFO: u32 = 6;
const OPTION_EXPORT_NAME: u32 = 1;
/// Has flags, takes flush and FUA.
const FLAGS: u16 = 1 | 4 | 8;
const INVALID: u32 = 22;

struct Contents {
    file: File,
    /// Written and not flushed, by sector.
    cache: BTreeMap<u64, Vec<u8>>,
    /// Writes until the power fails, when that is arranged.
    left: Option<u64>,
    failed: bool,
}

#[derive(Clone)]
struct Shared {
    contents: Arc<Mutex<Contents>>,
    changed: Arc<Condvar>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("no request panicked")
    }
}

pub struct Disk {
    socket: PathBuf,
    shared: Shared,
}

impl Disk {
    /// Serves `file` on `socket` for as long as the process lives.
    pub fn serve(file: &Path, socket: &Path) -> io::Result<Disk> {
        let file = OpenOptions::new().read(true).write(true).open(file)?;
        let size = file.metadata()?.len();
        let contents = Contents { file, cache: BTreeMap::new(), left: None, failed: false };
        let shared = Shared { contents: Arc::new(Mutex::new(contents)), changed: Arc::new(Condvar::new()) };
        let _ = fs::remove_file(socket);
        let listener = UnixListener::bind(socket)?;
        let served = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in the middle is a guest that was cut off.
                let _ = negotiate(stream, size).and_then(|stream| answer(stream, size, &served));
            }
        });
        Ok(Disk { socket: socket.to_owned(), shared })
    }

    /// For QEMU's -drive.
    pub fn address(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// The power fails when this many more writes have come: from then on nothing is answered.
    pub fn fail_after(&self, writes: u64) {
        self.shared.lock().left = Some(writes);
    }

    /// Waits for that moment. False: it did not come.
    pub fn wait_failed(&self, patience: Duration) -> bool {
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), patience, |contents| !contents.failed);
        waited.expect("no request panicked").0.failed
    }

    /// The machine was reset, and the disk kept its power: nothing is lost. Call it when QEMU is gone.
    pub fn reset(&self) -> io::Result<()> {
        self.revive().flush()
    }

    fn revive(&self) -> MutexGuard<'_, Contents> {
        let mut contents = self.shared.lock();
        (contents.left, contents.failed) = (None, false);
        self.shared.changed.notify_all();
        contents
    }

    /// The power fails: of what was not flushed, each sector is kept or lost by chance. Call it when QEMU is gone. Says how many
    /// there were, and how many are lost.
    pub fn cut(&self, seed: u64) -> io::Result<(usize, usize)> {
        let mut contents = self.revive();
        let cache = std::mem::take(&mut contents.cache);
        let (unflushed, mut lost, mut state) = (cache.len(), 0, seed | 1);
        for (sector, bytes) in cache {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state & 1 == 0 {
                contents.file.write_all_at(&bytes, sector * SECTOR as u64)?;
            } else {
                lost += 1;
            }
        }
        Ok((unflushed, lost))
    }
}

impl Contents {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)?;
        let first = offset / SECTOR as u64;
        for (sector, cached) in self.cache.range(first..first + (bytes.len() / SECTOR) as u64) {
            let at = (sector - first) as usize * SECTOR;
            bytes[at..at + SECTOR].copy_from_slice(cached);
        }
        Ok(())
    }

    /// True: with this write the power fails.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> bool {
        for (n, sector) in bytes.chunks_exact(SECTOR).enumerate() {
            self.cache.insert(offset / SECTOR as u64 + n as u64, sector.to_vec());
        }
        self.failed |= self.left == Some(0);
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.failed
    }

    fn flush(&mut self) -> io::Result<()> {
        // In the host's page cache it is as safe as on a disk here: the host's power is not what fails.
        for (sector, bytes) in std::mem::take(&mut self.cache) {
            self.file.write_all_at(&bytes, sector * SECTOR as u64)?;
        }
        Ok(())
    }
}

fn u16_of(stream: &mut UnixStream) -> io::Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn u32_of(stream: &mut UnixStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn u64_of(stream: &mut UnixStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

fn bytes_of(stream: &mut UnixStream, length: u32) -> io::Result<Vec<u8>> {
    if length > REQUEST_LIMIT_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn negotiate(mut stream: UnixStream, size: u64) -> io::Result<UnixStream> {
    // Fixed newstyle, without the trailing zeroes.
    stream.write_all(b"NBDMAGICIHAVEOPT\x00\x03")?;
    u32_of(&mut stream)?;
    loop {
        let (_magic, option) = (u64_of(&mut stream)?, u32_of(&mut stream)?);
        let length = u32_of(&mut stream)?;
        bytes_of(&mut stream, length)?;
        let reply = |kind: u32, data: &[u8]| {
            let mut reply = 0x0003_e889_0455_65a9u64.to_be_bytes().to_vec();
            reply.extend(option.to_be_bytes());
            reply.extend(kind.to_be_bytes());
            reply.extend((data.len() as u32).to_be_bytes());
            reply.extend(data);
            reply
        };
        match option {
            OPTION_GO | OPTION_INFO => {
                let mut export = 0u16.to_be_bytes().to_vec();
                export.extend(size.to_be_bytes());
                export.extend(FLAGS.to_be_bytes());
                stream.write_all(&reply(3, &export))?;
                stream.write_all(&reply(1, &[]))?;
                if option == OPTION_GO {
                    return Ok(stream);
                }
            }
            OPTION_EXPORT_NAME => {
                stream.write_all(&size.to_be_bytes())?;
                stream.write_all(&FLAGS.to_be_bytes())?;
                return Ok(stream);
            }
            // Unsupported.
            _ => stream.write_all(&reply(0x8000_0001, &[]))?,
        }
    }
}

fn answer(mut stream: UnixStream, size: u64, shared: &Shared) -> io::Result<()> {
    loop {
        let (_magic, flags, command) = (u32_of(&mut stream)?, u16_of(&mut stream)?, u16_of(&mut stream)?);
        let (handle, offset, length) = (u64_of(&mut stream)?, u64_of(&mut stream)?, u32_of(&mut stream)?);
        let written = if command == 1 { bytes_of(&mut stream, length)? } else { Vec::new() };
        let inside = offset.checked_add(u64::from(length)).is_some_and(|end| end <= size);
        let whole = offset.is_multiple_of(SECTOR as u64) && (length as usize).is_multiple_of(SECTOR);
        let mut data = Vec::new();
        let mut contents = shared.lock();
        let error = match command {
            0 if inside && whole && length <= REQUEST_LIMIT_BYTES => {
                data.resize(length as usize, 0);
                contents.read(offset, &mut data).err()
            }
            1 if inside && whole => {
                if contents.write(offset, &written) {
                    shared.changed.notify_all();
                    let _ended = shared.changed.wait_while(contents, |contents| contents.failed);
                    return Ok(());
                }
                // Forced unit access: this and, which is more than is asked for, all before it.
                if flags & 1 != 0 { contents.flush().err() } else { None }
            }
            2 => return Ok(()),
            3 => contents.flush().err(),
            _ => Some(io::Error::from_raw_os_error(INVALID as i32)),
        };
        drop(contents);
        let mut reply = 0x6744_6698u32.to_be_bytes().to_vec();
        reply.extend(error.as_ref().map_or(0, |_| INVALID).to_be_bytes());
        reply.extend(handle.to_be_bytes());
        if error.is_none() {
            reply.append(&mut data);
        }
        stream.write_all(&reply)?;
    }
}
