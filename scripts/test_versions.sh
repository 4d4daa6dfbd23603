#!/usr/bin/env bash
# Run the tests with the oldest and the newest PyTorch that Fangyan supports, on the oldest and the newest Python, each
# pair in an environment of its own. Each needs about 6 GB of disk; what is there already is used again. Versions of the
# other packages are those of constraints.txt. Arguments go to pytest:
#
#   bash scripts/test_versions.sh
#   bash scripts/test_versions.sh tests/zipformer/losses tests/fangyan
#
# VERSIONS      pairs PYTHON:TORCH, by default "3.10:2.6.0 3.13:2.15.0"
# ENVIRONMENTS  folder of the environments, by default .versions
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

versions=${VERSIONS:-3.10:2.6.0 3.13:2.15.0}
environments=${ENVIRONMENTS:-.versions}
export OMP_NUM_THREADS=1

# The interpreter of a version of Python: on the PATH, or one of pyenv's.
find_python() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: there is no Python $1; install it, or choose others with VERSIONS" >&2
    return 1
}

failed=()
for version in $versions; do
    python=${version%:*} torch=${version#*:}
    environment=$environments/python$python-torch$torch
    if [[ ! -f $environment/complete ]]; then
        echo "=== installing $environment"
        "$(find_python "$python")" -m venv --clear "$environment"
        # torch itself pins sympy.
        grep -v -e '^torch' -e '^sympy' constraints.txt >"$environment/constraints.txt"
        pip=("$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir)
        "${pip[@]}" -c "$environment/constraints.txt" "torch==$torch" -e '.[mini,dev]'
        "${pip[@]}" --no-deps "torchaudio==$torch" || echo "no torchaudio of that version: tests against it are skipped"
        touch "$environment/complete"
    fi
    echo "=== Python $python, torch $torch"
    "$environment/bin/python" -m pytest -p no:cacheprovider --numprocesses auto --maxprocesses 8 --dist loadfile "$@" ||
        failed+=("$version")
done
if ((${#failed[@]})); then
    echo "error: the tests fail with ${failed[*]} (PYTHON:TORCH)" >&2
    exit 1
fi
