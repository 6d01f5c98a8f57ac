# shellcheck shell=bash disable=SC2034
# What backup.sh and restore.sh share: where the databases, their passwords and the artifacts are. To be sourced.

fail() {
  printf 'error: %s\nfix: %s\n' "$1" "$2" >&2
  exit 2
}

case $# in
  1) # the stack of docker-compose.yml
    cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
    accounts=$PWD/deploy/secrets/migrator.cnf artifacts=/artifacts
    at_database=(docker compose exec -T db) at_artifacts=(docker compose run --rm -T --no-deps mlflow)
    address=() ;;
  4) # servers on this machine, or on one that can be reached
    accounts=$(realpath -m "$3") artifacts=$(realpath -m "$4")
    at_database=() at_artifacts=()
    address=(--protocol=TCP --host="${2%:*}" --port="${2##*:}") ;;
  *) fail "$(basename "$0") takes an archive, and where there is no Docker three things more" \
    "deploy/$(basename "$0") ARCHIVE [HOST:PORT MIGRATOR.CNF ARTIFACTS]" ;;
esac
[ -r "$accounts" ] || fail "there is no $accounts" "make secrets, or name the file with the migrating accounts"
# Accounts before what they may see.
databases=(auth tracking)
grep -q '^\[auth\]' "$accounts" || {
  databases=(tracking)
  echo "without MLflow's accounts: $accounts has no section [auth]" >&2
}

# client DATABASE PROGRAMS ARGUMENTS...: run the first program there is as the account that migrates this database.
# The password goes in before the input, so that no command line and no file has it.
client() {
  local database=$1 programs=$2
  shift 2
  # shellcheck disable=SC2016
  { sed "s/^\[$database\]$/[client]/" "$accounts" && echo -- && cat; } | "${at_database[@]}" bash -c '
    account=$(while IFS= read -r line && [ "$line" != -- ]; do printf "%s\n" "$line"; done)
    exec "$(type -P $0 | head -n 1)" --defaults-file=<(printf "%s\n" "$account") "$@"' \
    "$programs" "${address[@]}" "$@"
}

# query DATABASE SQL: the answer, one row a line.
query() {
  client "$1" "mariadb mysql" --skip-column-names --batch --execute="$2" "$1" </dev/null ||
    fail "the database $1 cannot be read, for the reason above" "start the database server, or correct $accounts"
}
