//! How this process uses its memory.

/// Largest block that comes from the heap; larger ones are mapped, and go back when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGEST_IN_HEAP: libc::c_int = 512 * 1024;

/// What may stay free at the top of the heap: giving it back and asking again costs time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE_IN_HEAP: libc::c_int = 2 * 1024 * 1024;

/// Makes the C library give memory back as soon as it is free. By itself it keeps what large buffers (parts of
/// uploads) leave behind, and raises its own limits with each of them. To be called once, at the start of a
/// program.
pub fn give_back_promptly() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, LARGEST_IN_HEAP),
        (libc::M_TRIM_THRESHOLD, FREE_IN_HEAP),
        // Threads share: each heap of its own keeps what is free in it.
        (libc::M_ARENA_MAX, 1),
    ] {
        set(parameter, value);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the C library's allocator has no other door")]
fn set(parameter: libc::c_int, value: libc::c_int) {
    // SAFETY: mallopt changes limits of the allocator, under its own lock; no memory is touched.
    let done = unsafe { libc::mallopt(parameter, value) };
    if done == 0 {
        tracing::debug!(parameter, value, "the allocator keeps its own limit");
    }
}
