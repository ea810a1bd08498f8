#!/usr/bin/env bash
# Passes all the tests: installs what is missing, then format, house rules, lints, and every test.
# Usage: mount-scripts/test.sh [arguments for cargo test]
set -euo pipefail
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=mount-scripts/lib.sh
. "$REPO/mount-scripts/lib.sh"
cd "$REPO"
exec </dev/null

heading "Tools"
install_packages tests
find_rust
find_fuse
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt ||
    fail "cargo has no rustfmt; install it (rustup component add rustfmt)."
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy ||
    fail "cargo has no clippy; install it (rustup component add clippy)."
cargo --version
install_suites

# Everything the tests make lies here: volumes, mountpoints, disk images.
SCRATCH="$(mktemp -d "${TMPDIR:-/tmp}/stratafs-test.XXXXXX")"
# Tests that become somebody else have to get to their directories.
chmod 711 "$SCRATCH"
trap 'clean_below "$SCRATCH"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

heading "Format"
cargo fmt --check

heading "Scripts (shellcheck)"
git ls-files | while IFS= read -r file; do
    if head -n 1 -- "$file" | grep -aqE '^#!.*\b(bash|sh)$|^# shellcheck shell='; then
        printf '%s\0' "$file"
    fi
done | xargs -0 shellcheck -x -e SC2164 # `set -e` ends a script whose cd fails.

heading "House rules (tests/tidy)"
# Straight through rustc: it needs no dependency, so it answers before RocksDB is compiled.
rustc --test --edition 2024 tests/tidy/main.rs -o "$SCRATCH/tidy"
"$SCRATCH/tidy" --quiet

heading "Lints (the first run compiles RocksDB: ten minutes on two cores)"
cargo clippy --release --locked --all-targets -- -D warnings

heading "Tests: units, integration, documentation"
TMPDIR="$SCRATCH" cargo test --release --locked --no-fail-fast "$@"

heading "Passed"
