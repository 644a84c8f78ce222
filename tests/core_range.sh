#!/usr/bin/env bash
# The layout matrix at the other end of the megatron-core range.
#
#   tests/core_range.sh                     python3.12 and megatron-core 0.19.x, in .venv-core-range
#   PYTHON=python3.13 tests/core_range.sh   another interpreter, 3.12 or later
#   CORE='megatron-core==0.17.*' VENV=.venv-0.17 tests/core_range.sh
#   READY=1 PYTHON=path/to/python tests/core_range.sh   an environment that has everything already
#
# Arguments are passed on to pytest. `make test` covers the first end, 0.16.1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3.12}
core=${CORE:-megatron-core>=0.19,<0.20}
venv=${VENV:-.venv-core-range}

if [ -z "${READY:-}" ]; then
  command -v "$python" >/dev/null || {
    echo "error: $python is absent; megatron-core 0.17 and later need Python 3.12: set PYTHON" >&2
    exit 2
  }
  make "$venv/.ready-dev" VENV="$venv" PYTHON="$python" >&2
  "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
    --constraint "$venv/constraints.txt" "$core"
  python=$venv/bin/python
fi

"$python" - <<'PY'
import platform
from importlib import metadata
print("Python", platform.python_version(), *(f"{n} {metadata.version(n)}" for n in ("megatron-core", "torch")))
PY
OMP_NUM_THREADS=1 exec "$python" -m pytest -q -m "not slow" \
  tests/device tests/model tests/parallel tests/training tests/test_distributed.py \
  tests/integration/test_layouts.py tests/integration/test_equals_transformers.py \
  tests/integration/test_unequal_token_counts.py tests/integration/test_resharding.py "$@"
