#!/usr/bin/env bash
# Phase 5: train the final model, export it, and measure what was exported.
# Usage: phases/05_finalization/run.sh [CONFIG]
set -euo pipefail
cd "$(dirname "$0")/../.."
config=${1:-configs/final_config.yaml}
model=models/production_model.onnx

if [ ! -e "$config" ]; then
  echo "$config is not there: starting from configs/final_template.yaml"
  cp configs/final_template.yaml "$config"
fi
# On a machine without CUDA --device cuda is an error, rightly: it never measures something else instead.
device=cuda
has_cuda='import sys, onnxruntime; sys.exit("CUDAExecutionProvider" not in onnxruntime.get_available_providers())'
if ! nvidia-smi -L >/dev/null 2>&1 || ! python -c "$has_cuda"; then
  echo "ONNX Runtime has no CUDA on this machine: measuring with --device auto instead of cuda"
  device=auto
fi

python training_orchestrator.py --config "$config" --mode production --output-dir results/production/
python export_model.py --checkpoint checkpoints/production/final_model_best.pt --format onnx --output "$model"
python test_inference.py --model "$model" --test-data data/test/ --batch-size 1 --device "$device"
