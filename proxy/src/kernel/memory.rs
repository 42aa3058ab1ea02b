//! The allocator of the C library.

/// Gives memory that is free within the allocator back to the kernel, where the C library can.
pub(crate) fn give_back() {
    // SAFETY: malloc_trim(3) takes a number and touches nothing but the allocator's own free memory, under its locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
