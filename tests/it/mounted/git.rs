//! A git repository that lives in the mount.

use super::helper::Mounted;
use super::tree::make_source_tree;
use crate::testkit::run_in;

#[test]
fn git_works_and_finds_no_fault() {
    let mut m = Mounted::new();
    let repo = m.path("repo");
    make_source_tree(&repo, 200, 7);
    run_in(
        &repo,
        "export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
         git init -q -b main .
         git config user.email t@example.org; git config user.name t
         git add . && git commit -qm one
         for n in 1 2 3 4 5; do
             echo \"$n\" >> d1/e1/f1.c; git mv d2/e2/f2.c d2/moved$n.c 2>/dev/null || true
             git commit -qam \"change $n\"
         done
         git branch side HEAD~3 && git checkout -q side && echo x > new.c && git add new.c
         git commit -qm side && git checkout -q main && git merge -q -m merged side
         git gc -q --aggressive --prune=now
         git fsck --strict --full
         test -z \"$(git status --porcelain -uno)\"
         git clone -q . ../clone",
    );
    m.remount();
    run_in(
        m.outside(),
        "export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
         git -C mnt/repo fsck --strict --full
         git -C mnt/clone fsck --strict --full
         test -z \"$(git -C mnt/repo status --porcelain -uno)\"
         git clone -q mnt/repo outside
         diff -r --exclude=.git --exclude=.gitconfig outside mnt/clone",
    );
}
