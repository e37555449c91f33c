//! Sockets that say nothing, or no TLS.
use super::{Attack, Random, Target};
use std::{io, io::Read, io::Write, os::fd::AsRawFd};

pub const ATTACKS: &[(&str, Attack)] =
    &[("half-open connections", half_open), ("bytes that are no TLS", garbage), ("resets after the handshake", resets)];

/// More than the server takes at a time.
fn half_open(target: &Target, random: &mut Random) -> io::Result<()> {
    let count = 200 + random.next(800);
    let sockets: Vec<_> = (0..count).map_while(|_| target.socket().ok()).collect();
    target.hold();
    drop(sockets);
    Ok(())
}

fn garbage(target: &Target, random: &mut Random) -> io::Result<()> {
    for _ in 0..20 {
        let mut bytes = match random.next(5) {
            0 => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            // A record of the largest length there is, and of none.
            1 => vec![0x16, 3, 1, 0xff, 0xff],
            2 => [0x16, 3, 1, 0, 0].repeat(1000),
            // Alerts.
            3 => [0x15, 3, 3, 0, 2, 1, 90].repeat(1000),
            // The start of a hello, of a length that never comes.
            _ => vec![0x16, 3, 1, 2, 0, 1, 0xff, 0xff, 0xff, 3, 3],
        };
        let len = random.next(2000);
        bytes.extend(random.bytes(len));
        let mut socket = target.socket()?;
        let _ = socket.write_all(&bytes);
        if random.next(4) == 0 {
            let _ = socket.read(&mut [0; 100]);
        }
    }
    Ok(())
}

/// A handshake, then plain bytes behind it, or a reset.
fn resets(target: &Target, random: &mut Random) -> io::Result<()> {
    for _ in 0..10 {
        let mut stream = target.stream(random.next(2) == 0)?;
        stream.write_all(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n")?;
        match random.next(3) {
            // As if it were a renegotiation.
            0 => stream.sock.write_all(&[0x16, 3, 3, 0, 4, 1, 0, 0, 0])?,
            1 => drop(stream.read(&mut [0; 10])),
            _ => {}
        }
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let len = size_of::<libc::linger>() as libc::socklen_t;
        // SAFETY: the option's value is a struct of the length given, which lives through the call.
        unsafe {
            let value = (&raw const linger).cast();
            libc::setsockopt(stream.sock.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, len);
        }
    }
    Ok(())
}
