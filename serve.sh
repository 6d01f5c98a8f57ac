#!/usr/bin/env bash
# PYTHON_ARGCOMPLETE_OK
# Serve the Production version over REST, in the foreground: ./serve.sh [--name NAME] [--stage Production]
# [--port 1234] [--host 127.0.0.1] [--workers 1]
# [--live [--poll 5] [--cache FOLDER] [--log FOLDER] [--shadow staging] [--keep-alive 8]]
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || PATH="$project/.venv/bin:$PATH"
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"
exec python -m understudy.serving "$@"
