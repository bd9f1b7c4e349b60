#!/usr/bin/env bash
# Phase 2: train the baseline and inspect what it left.
# Usage: phases/02_baseline/run.sh [CONFIG]
set -euo pipefail
cd "$(dirname "$0")/../.."
config=${1:-configs/training_config.yaml}

python config_validator.py --config "$config"
python training_orchestrator.py --config "$config" --mode baseline --output-dir results/baseline/
python checkpoint_inspector.py --checkpoint checkpoints/baseline/best_model.pt
