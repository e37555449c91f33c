//! A Raspberry Pi as far as QEMU emulates one: processor, memory, interrupts and console, no network. Its kernel and device tree, from
//! the board's image, start Mote out of the initramfs, which says on the console what it sees (boards/image/smoke-init).
use mote_tests::{binary, eventually, guest::images, root, server::scratch};
use std::{
    fs,
    process::{Command, Stdio},
    time::Instant,
};

/// Nine minutes and a half were enough on busy cores.
const PATIENCE_SECONDS: u64 = 900;

/// QEMU's name for the board; each has the memory that is sold.
fn machine(board: &str) -> &'static str {
    match board {
        "rpi3-1gb" => "raspi3b",
        "rpi4-2gb" => "raspi4b",
        _ => panic!("QEMU has nothing like {board}"),
    }
}

pub fn run(board: &str) {
    let dir = scratch();
    let made = Command::new(root().join("boards/image/smoke"))
        .arg(board)
        .arg(images(board))
        .args([binary(), dir.clone()])
        .status();
    assert!(made.is_ok_and(|status| status.success()), "boards/image/smoke");
    let console = dir.join("console");
    let start = Instant::now();
    let mut qemu = Command::new("qemu-system-aarch64")
        .args(["-M", machine(board), "-display", "none", "-no-reboot", "-monitor", "none", "-kernel"])
        .arg(dir.join("vmlinuz"))
        .arg("-initrd")
        .arg(dir.join("initrd"))
        .arg("-dtb")
        .arg(dir.join("board.dtb"))
        .args(["-append", "console=ttyAMA0,115200 panic=10 printk.devkmsg=on cgroup_enable=memory", "-serial"])
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .spawn()
        .expect("qemu-system-aarch64 starts");
    let said = || String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).replace('\r', "");
    // Power-off does not end QEMU's board: the last line does.
    let result = std::panic::catch_unwind(|| {
        eventually("the board says that Mote served and stopped", PATIENCE_SECONDS, || {
            let said = said();
            if said.contains("smoke: stopped\n") || said.contains("smoke: failed\n") { Ok(said) } else { Err(said) }
        })
    });
    let _ = qemu.kill();
    let _ = qemu.wait();
    let _ = fs::remove_dir_all(&dir);
    let said = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for line in said.lines().filter_map(|line| Some(line.split_once("] smoke: ")?.1)) {
        println!("{board}: {line}");
    }
    assert!(said.contains("smoke: readyz ok"), "{said}");
    println!("{board}: {:.0?} from power-on to the end", start.elapsed());
}
