//! Whether a database lies where, and belongs to whom, we may work on it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, StatVfsMountFlags, Uid};

use crate::error::{Error, ErrorKind, Result};
use crate::fs::{parent, with_suffix};

/// File systems on which POSIX locks or shared memory do not reach every machine that has the file
/// open, by the magic number of `statfs(2)`. virtiofs answers with the number of FUSE.
const NETWORK: [(u32, &str); 14] = [
    (0x6969, "NFS"),
    (0x0102_1997, "9p"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE or virtiofs"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x786f_4256, "a shared folder of VirtualBox"),
    (0x7c7c_6673, "a shared folder of Parallels"),
    (0xaad7_aaea, "PanFS"),
];

/// The name of the network file system that `magic` stands for.
fn network_file_system(magic: u32) -> Option<&'static str> {
    NETWORK
        .iter()
        .find_map(|(number, name)| (*number == magic).then_some(*name))
}

/// Refuses file systems on which SQLite's locks cannot be relied on.
pub(super) fn require_local(path: &Path) -> Result<()> {
    let stat = rustix::fs::statfs(path).map_err(|error| Error::io(path.display(), error.into()))?;
    // The type of the field differs between machines; the magic numbers have 32 bits.
    #[allow(clippy::unnecessary_cast, reason = "the width differs by architecture")]
    let Some(name) = network_file_system(stat.f_type as u32) else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("lies on {name}, where SQLite's locks cannot be relied on"),
    )
    .on(path.display())
    .hint("move it to a local disk, or set allow_network_fs = true if only this machine uses it"))
}

/// Whether the volume of `path` is mounted read-only.
pub(super) fn is_read_only(path: &Path) -> Result<bool> {
    let stat =
        rustix::fs::statvfs(path).map_err(|error| Error::io(path.display(), error.into()))?;
    Ok(stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Refuses a volume that is mounted read-only.
pub(super) fn require_writable_volume(path: &Path) -> Result<()> {
    if !is_read_only(path)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Denied, "lies on a read-only volume")
        .on(path.display())
        .hint("watch writes read marks to -shm; for a single copy use: walrust snapshot"))
}

/// Refuses a file or directory that we may not write: no read mark could be set, no WAL made.
pub(super) fn require_write_access(path: &Path) -> Result<()> {
    use rustix::fs::Access;
    for (what, place, access) in [
        ("the database", path, Access::READ_OK | Access::WRITE_OK),
        (
            "its directory",
            parent(path),
            Access::WRITE_OK | Access::EXEC_OK,
        ),
    ] {
        let cwd = rustix::fs::CWD;
        if let Err(error) = rustix::fs::accessat(cwd, place, access, AtFlags::EACCESS) {
            let uid = rustix::process::geteuid().as_raw();
            let message = format!("UID {uid} may not write {what}: {error}");
            return Err(Error::new(ErrorKind::Denied, message)
                .on(path.display())
                .hint("readers of a WAL write their marks to -shm: run as a user that may"));
        }
    }
    Ok(())
}

/// Whose a database is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ownership {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl From<&Metadata> for Ownership {
    fn from(metadata: &Metadata) -> Self {
        Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode() & 0o7777,
        }
    }
}

/// Who we are.
#[derive(Clone, Debug)]
pub(super) struct Ourselves {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Ourselves {
    fn ask() -> io::Result<Self> {
        Ok(Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: rustix::process::getgroups()?
                .into_iter()
                .map(Gid::as_raw)
                .collect(),
        })
    }

    fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Invariant 12: whether files that we create beside `database`, with its mode and group, leave the
    /// app able to open them.
    fn may_share(&self, database: Ownership) -> bool {
        const GROUP_READ_WRITE: u32 = 0o060;
        const OTHERS_READ_WRITE: u32 = 0o006;
        let group =
            self.is_in(database.gid) && database.mode & GROUP_READ_WRITE == GROUP_READ_WRITE;
        let others = database.mode & OTHERS_READ_WRITE == OTHERS_READ_WRITE;
        self.uid == 0 || self.uid == database.uid || group || others
    }
}

/// Refuses a database whose app our `-wal` and `-shm` would lock out (invariant 12).
pub(super) fn require_shared_ownership(path: &Path, database: Ownership) -> Result<()> {
    let us = Ourselves::ask().map_err(|error| Error::io(path.display(), error))?;
    if us.may_share(database) {
        return Ok(());
    }
    let Ownership { uid, gid, mode } = database;
    Err(Error::new(
        ErrorKind::Denied,
        format!(
            "belongs to UID {uid} and GID {gid} with mode {mode:04o}; we are UID {}, and files that we \
             create beside it would lock its owner out",
            us.uid
        ),
    )
    .on(path.display())
    .hint(format!(
        "run as UID {uid}, or in group {gid} with mode 0660 on the database"
    )))
}

/// Makes missing `-wal` and `-shm` files with the mode and group of the database, before SQLite makes
/// them with our group. Root needs no help: SQLite then gives them to the database's owner.
pub(super) fn create_companions(path: &Path, database: Ownership) -> Result<()> {
    let us = Ourselves::ask().map_err(|error| Error::io(path.display(), error))?;
    if us.uid == 0 || us.gid == database.gid || !us.is_in(database.gid) {
        return Ok(());
    }
    for suffix in ["-wal", "-shm"] {
        // It may be there already, or the file system knows no unnamed files, or there is no /proc:
        // then SQLite makes it, and `adopt_group` follows a moment later.
        let _ = create_with_group(&with_suffix(path, suffix), database);
    }
    Ok(())
}

/// The file appears whole: nobody sees it with the wrong group.
fn create_with_group(path: &Path, database: Ownership) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let mode = Mode::from_bits_truncate(database.mode & 0o666);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(parent(path), flags, mode)?;
    rustix::fs::fchown(&file, None, Some(Gid::from_raw(database.gid)))?;
    rustix::fs::fchmod(&file, mode)?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let cwd = rustix::fs::CWD;
    rustix::fs::linkat(cwd, unnamed, cwd, path, AtFlags::SYMLINK_FOLLOW)?;
    Ok(())
}

/// Gives a `-wal` or `-shm` of ours the database's group.
pub(super) fn adopt_group(companion: &Path, open: &File, database: Ownership) -> Result<()> {
    let metadata = open
        .metadata()
        .map_err(|error| Error::io(companion.display(), error))?;
    let ours = Uid::from_raw(metadata.uid()) == rustix::process::geteuid();
    if !ours || metadata.gid() == database.gid {
        return Ok(());
    }
    match rustix::fs::fchown(open, None, Some(Gid::from_raw(database.gid))) {
        // Not in that group: then the database's owner is us, or its mode is open to all.
        Ok(()) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(Error::io(companion.display(), error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_whose_files_the_app_can_open_may_attach() {
        let us = |uid, gid, groups: &[u32]| Ourselves {
            uid,
            gid,
            groups: groups.to_vec(),
        };
        let database = |mode| Ownership {
            uid: 100,
            gid: 200,
            mode,
        };
        let cases = [
            (us(0, 0, &[]), 0o600, true, "root"),
            (us(100, 7, &[]), 0o600, true, "owner"),
            (us(5, 200, &[]), 0o660, true, "group"),
            (us(5, 7, &[9, 200]), 0o660, true, "supplementary group"),
            (us(5, 200, &[]), 0o640, false, "group may only read"),
            (us(5, 7, &[]), 0o660, false, "another group"),
            (us(5, 7, &[]), 0o644, false, "others may only read"),
            (us(5, 7, &[]), 0o666, true, "everybody may write"),
        ];
        for (us, mode, expected, why) in cases {
            assert_eq!(us.may_share(database(mode)), expected, "{why}");
        }
    }

    #[test]
    fn network_file_systems_are_known_by_their_magic_numbers() {
        const EXT4: u32 = 0xef53;
        const TMPFS: u32 = 0x0102_1994;
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(0x6573_5546), Some("FUSE or virtiofs"));
        assert_eq!(network_file_system(EXT4), None);
        assert_eq!(network_file_system(TMPFS), None);
    }
}
