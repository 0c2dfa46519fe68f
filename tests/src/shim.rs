//! A preloaded library: it kills or stalls the application inside an fsync of its WAL, moves a process' clock, and
//! keeps what a power cut would leave of a process' files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// C, because that is what can be preloaded. Once the trigger file exists, the next sync of a `-wal` file acts.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int is_wal(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 4 && memcmp(path + length - 4, "-wal", 4) == 0;
}

/* What is on the disk: each file as it was when it was synced last, under its inode; and a log. */
static void note(const char *disk, const char *what, const char *path) {
    char name[4200], line[4200];
    snprintf(name, sizeof name, "%s/log", disk);
    int length = snprintf(line, sizeof line, "%s %s\n", what, path);
    int log = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || write(log, line, length) != length) abort();
    close(log);
}

static void synced(int fd) {
    const char *disk = getenv("WALRUST_SHIM_DISK");
    struct stat is;
    if (!disk || fstat(fd, &is)) return;
    char link[64], path[4096], kept[4200], block[65536];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) abort();
    path[length] = 0;
    if (S_ISDIR(is.st_mode)) { note(disk, "directory", path); return; }
    if (!S_ISREG(is.st_mode)) return;
    snprintf(kept, sizeof kept, "%s/%llu", disk, (unsigned long long)is.st_ino);
    int from = open(link, O_RDONLY | O_CLOEXEC);
    int to = open(kept, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (from < 0 || to < 0) abort();
    while ((length = read(from, block, sizeof block)) > 0)
        if (write(to, block, length) != length) abort();
    close(from);
    close(to);
    char what[64];
    snprintf(what, sizeof what, "file %llu", (unsigned long long)is.st_ino);
    note(disk, what, path);
}

static int sync_with(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *trigger = getenv("WALRUST_SHIM_TRIGGER");
    const char *mode = getenv("WALRUST_SHIM_MODE");
    int armed = trigger && mode && is_wal(fd) && access(trigger, F_OK) == 0;
    if (armed && strcmp(mode, "die-before") == 0) { unlink(trigger); _exit(137); }
    if (armed && strcmp(mode, "slow") == 0) usleep(400000);
    int outcome = real(fd);
    if (outcome == 0) synced(fd);
    if (armed && strcmp(mode, "die-after") == 0) { unlink(trigger); _exit(137); }
    return outcome;
}

/* Wall time, moved by the milliseconds that a file names. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = real(clock, now);
    const char *path = clock == CLOCK_REALTIME ? getenv("WALRUST_SHIM_CLOCK") : 0;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        char text[32] = {0};
        if (read(fd, text, sizeof text - 1) > 0) {
            long long moved = atoll(text);
            now->tv_sec += moved / 1000;
        }
        close(fd);
    }
    return outcome;
}

int fsync(int fd) { return sync_with("fsync", fd); }
int fdatasync(int fd) { return sync_with("fdatasync", fd); }
"#;

/// What happens inside the sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The process ends before the sync.
    DieBefore,
    /// The process ends after the sync, before SQLite publishes the commit.
    DieAfter,
    /// The sync takes 400 ms longer.
    Slow,
}

/// The built library and its trigger.
pub struct Shim {
    library: PathBuf,
    trigger: PathBuf,
    clock: PathBuf,
}

impl Shim {
    /// Builds the library in `folder` with the system's C compiler.
    pub fn build(folder: &Path) -> Self {
        let source = folder.join("shim.c");
        let library = folder.join("shim.so");
        fs::write(&source, SOURCE).unwrap();
        let mut command = Command::new("cc");
        command
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl");
        let output = command.output().expect("a C compiler, cc");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self {
            library,
            trigger: folder.join("shim.trigger"),
            clock: folder.join("shim.clock"),
        }
    }

    /// Puts the library under `command`.
    pub fn apply(&self, command: &mut Command, mode: Mode) {
        let mode = match mode {
            Mode::DieBefore => "die-before",
            Mode::DieAfter => "die-after",
            Mode::Slow => "slow",
        };
        command.env("LD_PRELOAD", &self.library);
        command
            .env("WALRUST_SHIM_TRIGGER", &self.trigger)
            .env("WALRUST_SHIM_MODE", mode);
    }

    /// Puts the library under `command`, whose wall clock [`Shim::move_clock`] then sets.
    pub fn apply_clock(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("WALRUST_SHIM_CLOCK", &self.clock);
    }

    /// Puts the library under `command`, which keeps in `folder` what a power cut would leave: each file as it was
    /// when it was synced last, named by its inode; and `log`, with a line for each sync, in order: `directory PATH`
    /// or `file INODE PATH`.
    pub fn apply_disk(&self, command: &mut Command, folder: &Path) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("WALRUST_SHIM_DISK", folder);
    }

    /// Moves the wall clock of the processes under [`Shim::apply_clock`] by whole seconds from the true time.
    pub fn move_clock(&self, seconds: i64) {
        // Replaced as a whole, so that nobody reads half of it.
        let fresh = self.clock.with_extension("fresh");
        fs::write(&fresh, (seconds * 1000).to_string()).unwrap();
        fs::rename(&fresh, &self.clock).unwrap();
    }

    /// The next sync of a WAL acts.
    pub fn arm(&self) {
        fs::write(&self.trigger, "").unwrap();
    }

    /// No sync acts any more.
    pub fn disarm(&self) {
        let _ = fs::remove_file(&self.trigger);
    }
}
