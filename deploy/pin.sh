#!/usr/bin/env bash
# Write into .env what the images of docker-compose.yml are today, by their digests: make pin.
#
# One from elsewhere comes from the environment: MYSQL_IMAGE=mirror.example/mysql:9.7 make pin.
set -euo pipefail
cd "$(dirname "$0")/.."
# Not what .env says already: its tags are those of an older version of the project.
images=$(docker compose --env-file /dev/null config | grep -E '^  [A-Z]+_IMAGE: ')
pins=
while IFS=': ' read -r name image; do
  digest=$(docker pull "$image" | sed -n 's/^Digest: //p') || {
    printf 'error: %s cannot be pulled, for the reason above; nothing is pinned\n' "$image" >&2
    printf 'fix: let this machine reach its registry, or name a mirror: %s=... make pin\n' "$name" >&2
    exit 2
  }
  pins+="$name=$image@$digest"$'\n'
done <<<"$images"
kept=$(grep -svE '^[A-Z]+_IMAGE=' .env) || true
printf '%s' "${kept:+$kept$'\n'}$pins" >.env
printf '%s' "$pins"
