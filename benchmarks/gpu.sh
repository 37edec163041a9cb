#!/usr/bin/env bash
# Measure what docs/performance.md reports for one GPU: rows and kernel profiles in benchmarks/results, in 8 minutes at
# most, most important first, written after each step. Needs the project's packages and trl; liger-kernel speeds TRL up.
# Usage: bash benchmarks/gpu.sh [--minutes 20] [--only 0 1] [--list]; the variable PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false DS_BUILD_OPS=0 LITELLM_LOCAL_MODEL_COST_MAP=True
exec "$python" -m benchmarks.gpu "$@"
