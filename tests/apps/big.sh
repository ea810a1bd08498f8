# shellcheck shell=bash
# Steps that take up to minutes and need packages. Sourced by tests/apps.sh; places as in quick.sh.

# Runs a command of PostgreSQL as the user postgres.
as_postgres() {
    setpriv --reuid postgres --regid postgres --clear-groups \
        env HOME="$HERE" PGHOST="$HERE/socket" PGUSER=postgres PGDATABASE=postgres \
        PATH="$PG_BIN:$PATH" "$@"
}

start_postgres() {
    as_postgres pg_ctl -D "$HERE/data" -w -t 60 -l "$HERE/server.log" start
}

# What pgbench promises: every transaction changed all four tables, or none.
pgbench_sums() {
    as_postgres psql -AtX -c "SELECT
        (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers),
        (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches),
        (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),
        (SELECT count(*) FROM pgbench_accounts) = 500000"
}

# Everything in it, without the token that each dump makes up.
dump_postgres() {
    as_postgres pg_dumpall | grep -vE '^.(un)?restrict '
}

postgresql() {
    PG_BIN="$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)")"
    chown postgres:postgres "$HERE"
    mkdir socket
    chown postgres:postgres socket
    as_postgres initdb -D "$HERE/data" --data-checksums -A trust --no-instructions >/dev/null
    cat >>data/postgresql.conf <<CONF
listen_addresses = ''
unix_socket_directories = '$HERE/socket'
max_wal_size = 64MB
CONF
    # The server ends before the step does, whatever happens.
    trap 'as_postgres pg_ctl -D "$HERE/data" -m immediate stop >/dev/null 2>&1 || true' EXIT
    start_postgres
    as_postgres pgbench -q -i -s 5
    as_postgres pgbench -c 4 -j 2 -T 10 --no-vacuum | grep -E 'processed|tps|failed'
    [ "$(pgbench_sums)" = 't|t|t|t' ] || fail "After pgbench: $(pgbench_sums)"

    # A crash under load: what was reported as committed is there, and nothing by half.
    local before after clients
    before="$(as_postgres psql -AtX -c 'SELECT count(*) FROM pgbench_history')"
    as_postgres pgbench -c 4 -j 2 -T 30 --no-vacuum >"$OUT/crashed.log" 2>&1 &
    clients="$!"
    sleep 5
    as_postgres psql -AtX -c 'CREATE TABLE kept AS SELECT count(*) AS n FROM pgbench_history'
    as_postgres pg_ctl -D "$HERE/data" -m immediate stop
    wait "$clients" || true
    start_postgres
    grep -q 'redo done' server.log || fail "The server did not recover anything."
    [ "$(pgbench_sums)" = 't|t|t|t' ] || fail "After the crash: $(pgbench_sums)"
    after="$(as_postgres psql -AtX -c \
        "SELECT (SELECT n FROM kept) > $before AND count(*) >= (SELECT n FROM kept) FROM pgbench_history")"
    [ "$after" = t ] || fail "Transactions that were committed are gone."
    as_postgres pg_amcheck --install-missing --heapallindexed --all

    # What a dump says is the same after a remount, and in a second cluster on the mount.
    dump_postgres >"$OUT/before.sql"
    as_postgres pg_ctl -D "$HERE/data" -w stop
    as_postgres pg_checksums --check -D "$HERE/data"
    cp -a data copy
    remount
    cd "$HERE"
    start_postgres
    dump_postgres >"$OUT/after.sql"
    cmp "$OUT/before.sql" "$OUT/after.sql"
    as_postgres pg_ctl -D "$HERE/data" -w stop
    as_postgres pg_checksums --check -D "$HERE/copy"
}

# A crate with a build script, a library, a binary and a test, built in place without any network.
cargo_build() {
    export CARGO_HOME="$HERE/cargo-home"
    unset CARGO_TARGET_DIR
    local second
    # rustup finds its toolchains in the real home.
    RUSTUP_HOME="${RUSTUP_HOME:-$(getent passwd root | cut -d : -f 6)/.rustup}"
    export RUSTUP_HOME
    mkdir -p crate/src
    cd crate
    cat >Cargo.toml <<'TOML'
[package]
name = "small"
version = "0.1.0"
edition = "2021"
TOML
    cat >build.rs <<'RUST'
fn main() {
    let out = std::path::Path::new(&std::env::var_os("OUT_DIR").unwrap()).join("number.rs");
    std::fs::write(out, "pub const NUMBER: u32 = 42;").unwrap();
    println!("cargo:rerun-if-changed=build.rs");
}
RUST
    cat >src/lib.rs <<'RUST'
include!(concat!(env!("OUT_DIR"), "/number.rs"));
#[test]
fn it_is_42() {
    assert_eq!(NUMBER, 42);
}
RUST
    echo 'fn main() { println!("{}", small::NUMBER); }' >src/main.rs
    find_rust
    cargo build --offline
    cargo build --offline --release
    cargo test --offline
    [ "$(./target/release/small)" = 42 ]
    second="$(cargo build --offline -v 2>&1)"
    echo "$second" | grep -q 'Fresh small' || fail "Built again without a change: $second"
    remount
    cd "$HERE/crate"
    second="$(cargo build --offline -v 2>&1)"
    echo "$second" | grep -q 'Fresh small' || fail "Built again after a remount: $second"
    echo '// changed' >>src/lib.rs
    second="$(cargo build --offline -v 2>&1)"
    echo "$second" | grep -q 'Compiling small' || fail "Not built after a change: $second"
    [ "$(./target/debug/small)" = 42 ]
}

# Makes `first` and `second`, the states of a tree that is backed up twice.
make_states() {
    cp -a "$WORK/source" "$OUT/first"
    cp -a "$OUT/first" "$OUT/second"
    cp -r "$REPO/src" "$OUT/second/more"
    echo changed >>"$OUT/second/plain/text.c"
    rm "$OUT/second/dangling"
}

borg_repository() {
    export BORG_REPO="$HERE/repo" BORG_BASE_DIR="$OUT/borg" BORG_PASSPHRASE=secret
    local state
    make_states
    borg init -e repokey
    for state in first second; do
        (cd "$OUT/$state" && borg create --stats "::$state" .)
    done
    borg check --verify-data
    remount
    cd "$HERE"
    borg check --verify-data
    for state in first second; do
        mkdir "$state" "$OUT/back-$state"
        (cd "$state" && borg extract "::$state")
        (cd "$OUT/back-$state" && borg extract "::$state")
        # Onto the mount as onto the disk: what borg itself does not keep is not ours to judge.
        touch -d @0 "$OUT/back-$state" "$state"
        compare "$OUT/back-$state" "$state"
        diff -r --no-dereference --exclude=fifo --exclude=same-fifo --exclude=char \
            --exclude=block --exclude=socket "$OUT/$state" "$state"
    done
    borg delete ::first
    borg compact
    borg check --verify-data
    borg extract --dry-run ::second
}

restic_repository() {
    export RESTIC_REPOSITORY="$HERE/repo" RESTIC_PASSWORD=secret RESTIC_CACHE_DIR="$OUT/cache"
    local state
    make_states
    restic init
    for state in first second; do
        (cd "$OUT/$state" && restic backup --tag "$state" .)
    done
    restic check --read-data
    remount
    cd "$HERE"
    restic check --read-data
    for state in first second; do
        restic restore latest --tag "$state" --target "$state"
        restic restore latest --tag "$state" --target "$OUT/back-$state"
        touch -d @0 "$OUT/back-$state" "$state"
        compare "$OUT/back-$state" "$state"
        diff -r --no-dereference --exclude=fifo --exclude=same-fifo --exclude=char \
            --exclude=block --exclude=socket "$OUT/$state" "$state"
    done
    restic forget --tag first --keep-last 1 --prune
    restic forget --tag second --keep-last 1 --prune
    restic check --read-data
}
