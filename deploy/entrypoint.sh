#!/bin/sh
# MLFLOW_..._FILE names the file that a secret is in, as with the official images: `docker inspect` shows the name only.
set -eu
for name in $(env | sed -n 's/^\(MLFLOW_[A-Z_]*\)_FILE=.*/\1/p'); do
  eval "file=\$${name}_FILE"
  value=$(cat "$file")
  export "$name=$value"
done
exec "$@"
