//! Programs that people trust with their data, run by `tests/apps.sh` as anybody can run it.

use std::process::{Command, Stdio};

/// It takes half a minute where nothing else runs.
const SECS_MAX: &str = "600";

/// rsync, tar, cp, git and sqlite on a mount lose and invent nothing. The steps that need servers
/// and packages (`tests/apps.sh big`) are for a day with more time.
#[test]
fn programs_find_on_the_mount_what_they_put_there() {
    let repo = env!("CARGO_MANIFEST_DIR");
    let program = env!("CARGO_BIN_EXE_stratafs");
    let script = format!("{repo}/tests/apps.sh");
    // Ended by force, it still has time to unmount.
    let ran = Command::new("timeout")
        .args(["-k", "30", SECS_MAX, "bash", &script, "quick", "--program", program])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&ran.stdout);
    let said = format!("{}\n{stdout}\n{}", ran.status, String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}");
    for step in [
        "rsync_there_and_back",
        "tar_there_and_back",
        "cp_there_and_back",
        "git_repository",
        "sqlite_rollback",
        "sqlite_wal",
        "sqlite_killed",
    ] {
        assert!(stdout.contains(&format!("PASS  {step}")), "{step} did not run: {said}");
    }
    assert!(!stdout.contains("FAIL"), "{said}");
}
