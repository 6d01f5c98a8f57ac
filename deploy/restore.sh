#!/usr/bin/env bash
# Bring back what backup.sh has put into an archive, onto databases without a table and a folder without a file.
#
# deploy/restore.sh ARCHIVE                                    after: docker compose up -d --wait db; before: make up
# deploy/restore.sh ARCHIVE HOST:PORT MIGRATOR.CNF ARTIFACTS   onto servers without Docker
set -euo pipefail
umask 077
[ $# -eq 0 ] || archive=$(realpath -m "$1")
# shellcheck source=deploy/client.sh
. "$(dirname "$0")/client.sh"
[ -r "$archive" ] || fail "there is no $archive" "name an archive that deploy/backup.sh has made"
work=$(mktemp -d "${TMPDIR:-/tmp}/restore.XXXXXX") || fail "no folder to unpack it in" "name one in TMPDIR"
trap 'rm -rf "$work"' EXIT
tar -C "$work" -xf "$archive" ||
  fail "$archive cannot be unpacked, for the reason above" "name a folder with room in TMPDIR, or use another backup"
(cd "$work" && sha256sum --check --strict --quiet MANIFEST >&2 &&
  [ "$(find . -type f ! -path ./MANIFEST | wc -l)" = "$(grep -vc '^#' MANIFEST)" ]) ||
  fail "$archive is not what was backed up" "use another backup"

for database in "${databases[@]}"; do
  tables=$(query "$database" "show tables")
  [ -z "$tables" ] ||
    fail "the database $database is not empty" "drop and create it, or restore onto another server"
done
"${at_artifacts[@]}" mkdir -p "$artifacts" </dev/null
there=$("${at_artifacts[@]}" find "$artifacts" -type f </dev/null)
[ -z "$there" ] ||
  fail "$artifacts is not empty" "empty it, or restore onto another server"

trap 'rm -rf "$work"; echo "error: restored in part; do not start MLflow on this
fix: drop and create the databases, empty $artifacts, and restore again" >&2' EXIT
tar -C "$work/artifacts" -cf - . | "${at_artifacts[@]}" tar -C "$artifacts" --no-same-owner -xf -
for database in "${databases[@]}"; do
  [ ! -e "$work/databases/$database.sql" ] ||
    client "$database" "mariadb mysql" "$database" <"$work/databases/$database.sql"
done
trap 'rm -rf "$work"' EXIT
sed -n 's/^# //p' "$work/MANIFEST"
echo "restored: $(grep -vc '^#' "$work/MANIFEST") files; migrate, then start the server"
