#!/usr/bin/env bash
# Watches a database that is being written, backs it up into a directory, restores it, and compares.
# Leaves nothing behind; KEEP=1 keeps the directory and names it.
set -euo pipefail
cd "$(dirname "$0")"

command -v sqlite3 >/dev/null || { echo "demo.sh needs the sqlite3 program" >&2; exit 1; }
cargo build --quiet -p walrust-cli
walrust="$PWD/${CARGO_TARGET_DIR:-target}/debug/walrust"
[ -x "$walrust" ] || walrust="${CARGO_TARGET_DIR:-}/debug/walrust"

home="$(mktemp -d)"
watcher=
finish() {
    [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || true
    [ -n "${KEEP:-}" ] && echo "kept: $home" || rm -rf "$home"
}
trap finish EXIT
cd "$home"
bucket="file://$home/backups"
mkdir backups
# The command, shown as one would type it.
run() {
    echo "\$ walrust $*" | sed "s#$home#/tmp/demo#g"
    "$walrust" "$@" | sed "s#$home#/tmp/demo#g"
    echo
}

sqlite3 app.db 'PRAGMA journal_mode=WAL; CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)' >/dev/null

echo "\$ walrust watch app.db --bucket file:///tmp/demo/backups &"
"$walrust" watch app.db --bucket "$bucket" &
watcher=$!
for number in $(seq 1 20); do
    sqlite3 app.db "PRAGMA busy_timeout=5000; INSERT INTO note (text) VALUES ('note $number')" >/dev/null
    sleep 0.2
done
sleep 1.5
kill -TERM "$watcher"
wait "$watcher"
watcher=
echo

run list --bucket "$bucket"
run list app.db --bucket "$bucket"
run restore app.db --bucket "$bucket" --output restored.db

if [ "$(sqlite3 app.db 'SELECT * FROM note')" = "$(sqlite3 restored.db 'SELECT * FROM note')" ]; then
    echo "restored.db has the same $(sqlite3 restored.db 'SELECT count(*) FROM note') rows as app.db"
else
    echo "restored.db differs from app.db" >&2
    exit 1
fi
