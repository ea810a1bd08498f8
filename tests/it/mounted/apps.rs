//! Programs that people trust with their data, run by `tests/apps.sh` as anybody can run it.

use crate::testkit::try_run;

/// rsync, tar, cp, git and sqlite on a mount lose and invent nothing. The steps that need servers
/// and packages (`tests/apps.sh big`) are for a day with more time.
#[test]
fn programs_find_on_the_mount_what_they_put_there() {
    let repo = env!("CARGO_MANIFEST_DIR");
    let program = env!("CARGO_BIN_EXE_stratafs");
    let script = format!("{repo}/tests/apps.sh");
    let ran = try_run("bash", &[&script, "quick", "--program", program]).ok();
    for step in [
        "rsync_there_and_back",
        "tar_there_and_back",
        "cp_there_and_back",
        "git_repository",
        "sqlite_rollback",
        "sqlite_wal",
        "sqlite_killed",
    ] {
        assert!(ran.stdout.contains(&format!("PASS  {step}")), "{step} did not run: {ran:#?}");
    }
    assert!(!ran.stdout.contains("FAIL"), "{ran:#?}");
}
