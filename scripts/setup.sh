#!/usr/bin/env bash
# Install Fangyan with some of its extras into .venv, with the versions of constraints.txt.
# Where .venv is up to date (pyproject.toml and constraints.txt are unchanged), nothing is done.
#
#   bash scripts/setup.sh EXTRAS [PYTHON]
#
# EXTRAS   comma-separated extras of pyproject.toml, e.g. mini,dev,peers
# PYTHON   interpreter that .venv is created with; by default the first suitable one on the PATH
set -euo pipefail

extras=${1:?usage: bash scripts/setup.sh EXTRAS [PYTHON]}
wanted=${2:-}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

suitable() { # whether a command is a Python that can run Fangyan
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

find_python() {
    local candidate
    if [[ -n $wanted ]]; then
        if ! suitable "$wanted"; then
            echo "error: $wanted is $("$wanted" --version 2>&1 || true); Fangyan needs Python 3.10 or newer" >&2
            return 1
        fi
        echo "$wanted"
        return
    fi
    for candidate in python3 python python3.13 python3.12 python3.11 python3.10; do
        if suitable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.10 or newer on the PATH (python3 is $(python3 --version 2>&1 || true));" \
        "install one, or name it with --python" >&2
    return 1
}

python=$(find_python)

# If .venv was interrupted while it was created, it has no working pip and is created again.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "creating .venv with $("$python" --version) ($(command -v "$python"))"
    if ! "$python" -m venv --clear .venv; then
        echo "error: $python cannot create virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    fi
fi

stamp_file=".venv/fangyan-$extras.stamp"
stamp=$(cat pyproject.toml constraints.txt | .venv/bin/python -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [[ -f $stamp_file && $(<"$stamp_file") == "$stamp" ]]; then
    echo ".venv is up to date ($extras)"
    exit
fi
echo "installing Fangyan with the extras $extras into .venv (some minutes the first time)"
# Of pip's many lines, show one for each package and each large download.
.venv/bin/python -m pip install --progress-bar off --disable-pip-version-check -c constraints.txt -e ".[$extras]" |
    sed -u -n -e 's/^Collecting \([^ ]*\).*/  \1/p' \
        -e 's/^ *Downloading \([^ ]*\) (\([0-9.]* [MG]B\)).*/    downloading \1, \2/p' \
        -e 's/^ *Building wheel for \([^ ]*\).*/    building \1/p' \
        -e 's/^Installing collected packages.*/  installing them/p'
echo "$stamp" >"$stamp_file"
