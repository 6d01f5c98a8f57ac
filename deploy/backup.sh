#!/usr/bin/env bash
# Put the databases and all artifacts into one archive with a digest of every file, while training goes on.
#
# deploy/backup.sh ARCHIVE                                     of the stack of docker-compose.yml
# deploy/backup.sh ARCHIVE HOST:PORT MIGRATOR.CNF ARTIFACTS    of servers without Docker
#
# An archive that ends in .gz, .xz or .zst is compressed. Do not migrate or run `mlflow gc` meanwhile.
set -euo pipefail
umask 077
[ $# -eq 0 ] || archive=$(realpath -m "$1")
# shellcheck source=deploy/client.sh
. "$(dirname "$0")/client.sh"
[ ! -e "$archive" ] || fail "$archive is there already" "choose another name"
work=$(mktemp -d "$(dirname "$archive")/.backup.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/whole/databases" "$work/whole/artifacts"
server=$(query tracking "select version()")
schemas=
declare -A schema=([tracking]=alembic_version [auth]=alembic_version_auth)

# Runs before their files: MLflow writes a file before it says that it is there.
for database in "${databases[@]}"; do
  schemas+="${schemas:+, }$database $(query "$database" "select * from ${schema[$database]}")"
  # The table with the schema's version is the last, so that MLflow starts on nothing that was restored in part.
  tables=$(query "$database" "select table_name from information_schema.tables where table_schema = '$database'
    order by table_name like 'alembic%', table_name")
  # shellcheck disable=SC2086 # one word a table
  client "$database" "mariadb-dump mysqldump" --single-transaction --hex-blob --no-tablespaces --skip-add-locks \
    --skip-add-drop-table --loose-set-gtid-purged=OFF --loose-column-statistics=0 --loose-masking-policies=0 \
    "$database" $tables </dev/null >"$work/whole/databases/$database.sql" 2> >(grep -v "unknown variable 'loose-" >&2)
done
# 1: a file that was being uploaded has gone, which no run in the dump knows of.
"${at_artifacts[@]}" tar -C "$artifacts" --warning=no-file-removed --warning=no-file-changed -cf - . </dev/null |
  tar -C "$work/whole/artifacts" -xf - || [ "${PIPESTATUS[*]}" = "1 0" ]

cd "$work/whole"
{
  echo "# understudy backup, $(date -u +%Y-%m-%dT%H:%M:%SZ), database server $server"
  echo "# schemas: $schemas"
  find . -type f -print0 | sort -z | xargs -0 sha256sum
} >"$work/MANIFEST"
mv "$work/MANIFEST" .
tar --auto-compress -cf "$work/$(basename "$archive")" .
mv -n "$work/$(basename "$archive")" "$archive"
echo "$archive: $(grep -vc '^#' MANIFEST) files"
