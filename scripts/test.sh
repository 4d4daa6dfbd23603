#!/usr/bin/env bash
# Set up .venv, then check style, types and behaviour. Arguments go to pytest:
#
#   bash scripts/test.sh
#   bash scripts/test.sh tests/retrieval -k seqsim
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh mini,dev,peers

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy

# One test process for each core, each with one thread: threads that wait for each other cost more than they bring
# on the small tensors of the tests. A file stays in one process, so that its shared fixtures are made once.
export OMP_NUM_THREADS=1
.venv/bin/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile "$@"
