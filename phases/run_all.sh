#!/usr/bin/env bash
# The whole pipeline on the bundled data: every phase that has a run.sh, in order. Stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

for script in phases/[0-9]*/run.sh; do
  printf '\n=== %s ===\n' "$(dirname "$script")"
  bash "$script"
done
