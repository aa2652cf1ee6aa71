//! No backtraces: the released program has no tables to unwind its stack by (`scripts/build`).

/// Makes the variables that ask for a backtrace count as absent. What looks for a caller without those tables aborts.
///
/// Must be called before there is a second thread.
#[expect(
    unsafe_code,
    reason = "changing the environment is unsafe where other threads may read it"
)]
pub fn switch_off() {
    for variable in ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"] {
        // SAFETY: `main` calls this first, so there is no other thread that could read the environment now.
        unsafe { std::env::remove_var(variable) };
    }
}
