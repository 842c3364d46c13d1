//! A disk that a table can fill.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use tempfile::TempDir;

/// A file system of its own in memory, for root only: who may not mount has none.
pub(crate) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        // Postgres, which is another user, must get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        let disk = Self { folder };
        fs::create_dir(disk.path()).expect("the folder is ours");
        let size = format!("size={size}");
        let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "small"]).arg(disk.path()));
        (mounted && run(Command::new("chown").arg("postgres").arg(disk.path()))).then_some(disk)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    pub(crate) fn grow(&self, size: &str) {
        let option = format!("remount,size={size}");
        assert!(run(Command::new("mount").args(["-o", &option]).arg(self.path())), "the disk cannot grow");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
