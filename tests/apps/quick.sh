# shellcheck shell=bash
# Steps that take seconds. Sourced by tests/apps.sh, which says where: HERE is the step's directory
# on the mount, and where it begins; OUT is one outside; WORK/source is the tree that has it all.

rsync_there_and_back() {
    local back="$OUT/back" differ
    rsync -aHAXS --checksum "$WORK/source/" copy/
    compare "$WORK/source" copy
    remount
    cd "$HERE"
    differ="$(rsync -aHAXSni --checksum --delete "$WORK/source/" copy/)"
    [ -z "$differ" ] || fail "differs: $differ"
    [ "$(stat -c %b copy/plain/sparse)" -lt 1000 ] || fail "The sparse file takes its size."
    rsync -aHAXS --checksum copy/ "$back/"
    differ="$(rsync -aHAXSni --checksum --delete copy/ "$back/")"
    [ -z "$differ" ] || fail "differs on the way back: $differ"
    compare "$WORK/source" "$back"
    # The way people say it: nothing to do the second time, on the mount itself, too.
    rsync -aHAXS copy/ again/
    differ="$(rsync -aHAXSni --checksum --delete copy/ again/)"
    [ -z "$differ" ] || fail "differs within the mount: $differ"
    compare copy again
}

# What GNU tar does not keep anywhere (sockets, names shared by fifos) is no fault of ours: the same
# archive is unpacked outside.
tar_there_and_back() {
    local options=(--xattrs --xattrs-include='*' --acls --sparse --numeric-owner --format=posix)
    mkdir copy "$OUT/back" "$OUT/control"
    tar "${options[@]}" -C "$WORK/source" -cf tree.tar .
    tar "${options[@]}" -C copy -pxf tree.tar
    tar "${options[@]}" -C "$OUT/control" -pxf tree.tar
    compare "$OUT/control" copy
    compare --no-sockets "$WORK/source" copy | grep -v fifo >"$OUT/differ" || true
    [ ! -s "$OUT/differ" ] || fail "$(cat "$OUT/differ")"
    tar "${options[@]}" -C "$WORK/source" --compare -f tree.tar
    tar "${options[@]}" -C copy --compare -f tree.tar
    tar "${options[@]}" -C copy -c . | tar "${options[@]}" -C "$OUT/back" -px
    compare copy "$OUT/back"
}

cp_there_and_back() {
    cp -a "$WORK/source" copy
    compare "$WORK/source" copy
    cp -a copy within
    compare copy within
    cp -a --reflink=never --sparse=always copy bytes
    compare copy bytes
    remount
    cd "$HERE"
    cp -a within "$OUT/back"
    compare "$WORK/source" "$OUT/back"
    # A move to another filesystem is a copy and a removal.
    mv "$OUT/back" moved
    compare "$WORK/source" moved
    rm -rf moved bytes
    [ ! -e moved ] || fail "rm -rf left something."
}

git_repository() {
    export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org
    export GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org
    local number
    git init -q -b main "$OUT/origin"
    cp -r "$REPO/src" "$REPO/docs" "$REPO/tests" "$OUT/origin/"
    git -C "$OUT/origin" add . && git -C "$OUT/origin" commit -qm first
    git clone -q "file://$OUT/origin" clone
    cd clone
    for number in $(seq 10); do
        echo "// line $number" >>src/lib.rs
        git mv docs/DESIGN.md "docs/DESIGN-$number.md" && git mv "docs/DESIGN-$number.md" docs/DESIGN.md
        ln -sf lib.rs "src/link-$number"
        git add . && git commit -qm "change $number"
    done
    git checkout -q -b side HEAD~5 && echo side >side.txt && git add . && git commit -qm side
    git checkout -q main && git merge -q -m merged side
    git stash list
    git worktree add -q ../tree side && git worktree remove ../tree
    git gc -q --aggressive --prune=now
    git fsck --strict --full
    git push -q origin main:from-the-mount
    [ -z "$(git status --porcelain)" ] || fail "git sees changes that nobody made."
    remount
    cd "$HERE/clone"
    git fsck --strict --full
    # Nothing looks changed after a remount: inode numbers and times are as they were.
    [ -z "$(git status --porcelain)" ] || fail "git sees changes after a remount."
    git -C "$OUT/origin" fsck --strict --full
    git clone -q . "$OUT/out"
    git -C "$OUT/out" checkout -q from-the-mount 2>/dev/null || git -C "$OUT/out" checkout -q main
    diff -r --no-dereference --exclude=.git . "$OUT/out"
}

# Fills database $1 in journal mode $2.
fill_database() {
    sqlite3 "$1" >/dev/null <<SQL
PRAGMA journal_mode=$2;
PRAGMA synchronous=FULL;
CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB);
CREATE INDEX by_name ON t (name);
CREATE TABLE sums (n INTEGER);
INSERT INTO sums VALUES (0);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
    INSERT INTO t SELECT i, 'name ' || i, randomblob(200) FROM n;
BEGIN; UPDATE t SET data = zeroblob(300) WHERE id % 7 = 0; COMMIT;
BEGIN; DELETE FROM t WHERE id % 5 = 0; COMMIT;
BEGIN; INSERT INTO t SELECT id + 100000, name, randomblob(100) FROM t; ROLLBACK;
VACUUM;
SQL
}

# Says what is in database $1, after asking it whether it is whole.
database_facts() {
    sqlite3 -cmd '.timeout 60000' "$1" 'PRAGMA integrity_check; SELECT count(*), max(id), n FROM t, sums;'
}

# Adds to database $1 from four processes at once, while a fifth reads.
count_together() {
    local writer writers=()
    for writer in 1 2 3 4; do
        (
            for _ in $(seq 25); do
                sqlite3 -cmd '.timeout 60000' "$1" "UPDATE sums SET n = n + $writer"
            done
        ) &
        writers+=("$!")
    done
    for _ in $(seq 20); do
        [ "$(sqlite3 -cmd '.timeout 60000' "$1" 'PRAGMA integrity_check')" = ok ]
    done
    for writer in "${writers[@]}"; do wait "$writer"; done
}

sqlite_in_mode() {
    local expected
    expected="$(printf 'ok\n16000|19999|250')"
    fill_database a.db "$1"
    [ "$(sqlite3 a.db 'PRAGMA journal_mode')" = "$2" ]
    count_together a.db
    [ "$(database_facts a.db)" = "$expected" ] || fail "$(database_facts a.db)"
    mkdir "$MNT/.snapshots/$1"
    sqlite3 a.db 'DELETE FROM t'
    remount
    cd "$HERE"
    # The snapshot has the files as they were between two transactions, the log of WAL included.
    cp -a "$MNT/.snapshots/$1/$(basename "$HERE")/." "$OUT/"
    [ "$(database_facts "$OUT/a.db")" = "$expected" ] || fail "In the snapshot: $(database_facts "$OUT/a.db")"
    [ "$(sqlite3 a.db 'SELECT count(*) FROM t')" = 0 ]
}

sqlite_rollback() { sqlite_in_mode DELETE delete; }
sqlite_wal() { sqlite_in_mode WAL wal; }

# A writer that is killed in the middle leaves a journal that the next one rolls back.
sqlite_killed() {
    local mode writer counted
    for mode in DELETE WAL; do
        fill_database "$mode.db" "$mode"
        # Each transaction adds one to the sum and one row, or neither.
        printf 'BEGIN; UPDATE sums SET n = n + 1;
            INSERT INTO t (data) VALUES (randomblob(3000)); COMMIT;\n%.0s' {1..50000} >"$OUT/script.sql"
        sqlite3 "$mode.db" <"$OUT/script.sql" &
        writer="$!"
        sleep 1
        kill -KILL "$writer"
        wait "$writer" 2>/dev/null || true
        counted="$(sqlite3 "$mode.db" 'PRAGMA integrity_check; SELECT n = (SELECT count(*) FROM t) - 16000, n > 0 FROM sums')"
        [ "$counted" = "$(printf 'ok\n1|1')" ] || fail "$mode: $counted"
    done
}
