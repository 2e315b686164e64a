//! File systems whose power can be cut: an image of ext4 for each data directory, mounted there.
//!
//! The cut is ext4's own (`EXT4_IOC_SHUTDOWN`, `NOLOGFLUSH`): from that instant on nothing reaches the
//! image any more, neither data nor journal, and every call fails. What was written and not flushed
//! is gone with the file system's memory when it is mounted again, as after a real cut. Not here: writes that
//! a real disk had taken and not kept, for an image's flush is trusted.
//!
//! Needs root, loop devices, `mkfs.ext4` and `python3`, which asks for the cut.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

/// Sparse: no more of it is taken than is written.
const IMAGE_BYTES: u64 = 16 << 30;
/// A process that was killed may hold its files a little longer.
const UNMOUNT_TRIES: u32 = 50;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(100);

/// One after the other, with nothing to wait for between them.
const CUT: &str = "\
import fcntl, os, struct, sys
EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587D, struct.pack('I', 2)
for disk in [os.open(place, os.O_RDONLY) for place in sys.argv[1:]]:
    fcntl.ioctl(disk, EXT4_IOC_SHUTDOWN, NOLOGFLUSH)
";

/// What is not here that a cut needs.
pub fn missing() -> Option<&'static str> {
    let is_there = |program: &str| Command::new(program).arg("-V").output().is_ok();
    if !rustix::process::geteuid().is_root() {
        return Some("only root may mount file systems");
    }
    match (is_there("mkfs.ext4"), is_there("python3")) {
        (true, true) => None,
        (false, _) => Some("there is no mkfs.ext4"),
        (_, false) => Some("there is no python3"),
    }
}

/// Unmounted when they are dropped.
pub struct Disks(Vec<Disk>);

struct Disk {
    image: PathBuf,
    place: PathBuf,
}

impl Disks {
    /// Mounts one at each of `places`, which are made; the images go into `directory`.
    pub fn mount(places: Vec<PathBuf>, directory: &Path) -> anyhow::Result<Self> {
        let mut disks = Self(Vec::new());
        for (n, place) in places.into_iter().enumerate() {
            std::fs::create_dir_all(&place)?;
            let image = directory.join(format!("disk-{n}"));
            std::fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
            run("mkfs.ext4", &[&["-q", "-F"], &[text(&image)?][..]].concat())?;
            let disk = Disk { image, place };
            disk.mount()?;
            disks.0.push(disk);
        }
        // Made by mkfs; no store expects it.
        for disk in &disks.0 {
            std::fs::remove_dir(disk.place.join("lost+found"))?;
        }
        Ok(disks)
    }

    /// Cuts the power of all of them.
    pub fn cut(&self) -> anyhow::Result<()> {
        let places = self.0.iter().map(|disk| text(&disk.place));
        let places: Vec<&str> = places.collect::<anyhow::Result<_>>()?;
        run("python3", &[&["-c", CUT], &places[..]].concat())
    }

    /// Power is back: what was not on the images is gone. Nobody holds files of them any more.
    pub fn restore(&self) -> anyhow::Result<()> {
        for disk in &self.0 {
            disk.unmount()?;
            disk.mount()?;
        }
        Ok(())
    }
}

impl Disk {
    fn mount(&self) -> anyhow::Result<()> {
        let (image, place) = (text(&self.image)?, text(&self.place)?);
        run("mount", &["-t", "ext4", "-o", "loop", image, place])
    }

    fn unmount(&self) -> anyhow::Result<()> {
        let place = text(&self.place)?;
        for _ in 0..UNMOUNT_TRIES {
            if run("umount", &[place]).is_ok() {
                return Ok(());
            }
            std::thread::sleep(UNMOUNT_PAUSE);
        }
        run("umount", &[place])
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in &self.0 {
            if let Err(error) = disk.unmount() {
                eprintln!("bench: {error:#}");
            }
        }
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| program.to_owned())?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = arguments.last().copied().unwrap_or_default();
        bail!("{program} … {last}: {}: {}", output.status, words.trim());
    }
    Ok(())
}
