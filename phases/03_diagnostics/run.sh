#!/usr/bin/env bash
# Phase 3: find out what holds the baseline back, and write the configuration that follows from it.
# Usage: phases/03_diagnostics/run.sh
# A configs/optimization_config.yaml that is there is left alone; where nothing is wrong, none is written.
set -euo pipefail
cd "$(dirname "$0")/../.."
config=configs/optimization_config.yaml
run=(--baseline baseline_results.md --metrics logs/metrics.json --output diagnostic_report.md)

python diagnostic_tool.py "${run[@]}"
if [ -e "$config" ]; then
  echo "$config is there already and was left alone"
elif grep -q '^Primary issue: none' diagnostic_report.md; then
  echo "nothing is wrong, so $config is not written"
else
  python diagnostic_tool.py "${run[@]}" --write-config "$config" --quiet
  python config_validator.py --config "$config" --mode optimization
fi
