#!/usr/bin/env bash
# Phase 1: check the configuration and see what a training would take, before spending time on one.
# Usage: phases/01_planning/run.sh [CONFIG]
set -euo pipefail
cd "$(dirname "$0")/../.."
config=${1:-configs/training_config.yaml}

python config_validator.py --config "$config" --mode baseline
python training_orchestrator.py --config "$config" --mode baseline --dry-run
