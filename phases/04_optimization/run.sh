#!/usr/bin/env bash
# Phase 4: train the optimized configuration, compare it with the baseline, and write down what came of it.
# Usage: phases/04_optimization/run.sh
# Takes configs/optimization_config.yaml; where there is none yet, it begins as a copy of the template.
set -euo pipefail
cd "$(dirname "$0")/../.."
config=configs/optimization_config.yaml

if [ ! -e "$config" ]; then
  cp configs/optimization_template.yaml "$config"
  echo "created $config from configs/optimization_template.yaml: edit it with the recommendations of phase 3"
fi

python config_validator.py --config "$config"
python training_orchestrator.py --config "$config" --mode optimization --output-dir results/optimization/
python compare_results.py \
  --baseline results/baseline/metrics.json \
  --optimized results/optimization/metrics.json \
  --output comparison.md
python optimization_report_tool.py \
  --baseline results/baseline/ \
  --optimized results/optimization/ \
  --output optimization_results.md
