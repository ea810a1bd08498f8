//! SQLite databases in the mount: locks, fsync, in-place writes, shared memory.

use super::helper::Mounted;
use crate::testkit::run_in;

fn fill(m: &Mounted, journal: &str) {
    let script = format!(
        "sqlite3 {journal}.db <<'END'
PRAGMA journal_mode={journal};
PRAGMA synchronous=FULL;
CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB);
CREATE INDEX by_name ON t (name);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO t SELECT i, 'name ' || i, randomblob(200) FROM n;
BEGIN; UPDATE t SET data = zeroblob(300) WHERE id % 7 = 0; COMMIT;
BEGIN; DELETE FROM t WHERE id % 5 = 0; COMMIT;
BEGIN; INSERT INTO t SELECT id + 10000, name, randomblob(100) FROM t; ROLLBACK;
VACUUM;
END
for n in $(seq 40); do
    sqlite3 {journal}.db \"INSERT INTO t (name, data) VALUES ('single $n', randomblob(50))\"
done"
    );
    run_in(&m.path(""), &script);
}

#[test]
fn databases_stay_whole() {
    let mut m = Mounted::new();
    let query = |m: &Mounted, db: &str| {
        let script = format!(
            "sqlite3 {db} 'PRAGMA integrity_check; SELECT count(*), max(id) FROM t;
             SELECT count(*) FROM t WHERE data = zeroblob(300)'"
        );
        run_in(&m.path(""), &script)
    };
    for journal in ["delete", "wal", "truncate"] {
        fill(&m, journal);
        // 5000 - 1000 + 40 rows; every 7th that is no 5th holds zeros.
        let expected = "ok\n4040|5039\n572\n";
        assert_eq!(query(&m, &format!("{journal}.db")), expected, "{journal}");
    }
    // The copy is made under the filesystem's feet: a snapshot in the middle of a transaction.
    std::fs::create_dir(m.path(".snapshots/s")).unwrap();
    m.remount();
    for journal in ["delete", "wal", "truncate"] {
        assert_eq!(query(&m, &format!("{journal}.db")), "ok\n4040|5039\n572\n", "{journal}");
        run_in(&m.path(""), &format!("cp .snapshots/s/{journal}.db copy.db"));
        assert_eq!(query(&m, "copy.db"), "ok\n4040|5039\n572\n", "{journal} in the snapshot");
    }
    m.assert_sound();
}

/// Several processes write the same database: locks have to work.
#[test]
fn writers_in_several_processes_do_not_lose_each_other() {
    let m = Mounted::new();
    let sum = run_in(
        &m.path(""),
        "sqlite3 c.db 'CREATE TABLE c (n INTEGER); INSERT INTO c VALUES (0)'
         for w in 1 2 3 4; do
             (for n in $(seq 25); do
                 sqlite3 -cmd '.timeout 60000' c.db 'UPDATE c SET n = n + 1'
             done) &
         done
         wait
         sqlite3 c.db 'SELECT n FROM c'",
    );
    assert_eq!(sum, "100\n");
}
