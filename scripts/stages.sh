# shellcheck shell=bash disable=SC2034,SC2154
# Options and numbered stages of a recipe; recipes/*/run.sh source this file.
set -euo pipefail

# Threads that wait for others sleep instead of spinning, which would take the core from those they wait for.
export OMP_WAIT_POLICY=passive

fail() {
    echo "error: $*" >&2
    exit 1
}

# The head comment of the recipe is its help.
usage() {
    sed -n '2,/^[^#]/{/^# shellcheck /d;/^#/s/^# \{0,1\}//p;}' "$0"
}

absolute() {
    case $1 in
        /*) echo "$1" ;;
        *) echo "$PWD/$1" ;;
    esac
}

# Read the options of the command line, and go to the root of the checkout. Before the call, the recipe sets
# last_stage, the defaults of exp_dir and data_dir, takes_settings=1 if it passes settings on, and takes_quick=1 if it
# has a short form. The function sets stage, stop_stage, exp_dir, data_dir and python; settings to the arguments after
# --; and quick to 1 for --quick.
parse_options() {
    stage=0
    stop_stage=$last_stage
    python=
    settings=()
    quick=0
    while (($#)); do
        case $1 in
            -h | --help)
                usage
                exit
                ;;
            --)
                ((${takes_settings:-0})) || fail "this recipe takes no settings after --"
                shift
                settings=("$@")
                break
                ;;
            --quick)
                ((${takes_quick:-0})) || fail "this recipe has no --quick"
                quick=1
                shift
                continue
                ;;
            --stage | --stop-stage | --exp-dir | --data-dir | --python)
                (($# > 1)) || fail "$1 needs a value"
                ;;
            *)
                usage >&2
                fail "unknown option $1"
                ;;
        esac
        case $1 in
            --stage) stage=$2 ;;
            --stop-stage) stop_stage=$2 ;;
            --exp-dir) exp_dir=$(absolute "$2") ;;
            --data-dir) data_dir=$(absolute "$2") ;;
            --python)
                python=$(command -v -- "$2") || fail "there is no program $2"
                python=$(absolute "$python")
                ;;
        esac
        shift 2
    done
    local number
    for number in "$stage" "$stop_stage"; do
        if ! [[ $number =~ ^(0|[1-9][0-9]?)$ ]] || ((number > last_stage)); then
            fail "stages are 0 to $last_stage, not $number"
        fi
    done
    ((stage <= stop_stage)) || fail "nothing to do between --stage $stage and --stop-stage $stop_stage"
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    ((stage == 0)) || [[ -x .venv/bin/python ]] || fail "there is no .venv; run stage 0 first"
}

# Run a stage if it is among those asked for: its number, what it does, and the function that does it.
run_stage() {
    local number=$1 title=$2 work=$3 start=$SECONDS
    ((stage <= number && number <= stop_stage)) || return 0
    printf '\n=== stage %s: %s\n' "$number" "$title"
    "$work"
    echo "=== stage $number took $((SECONDS - start)) s"
}

# Run scripts/NAME.py with settings.
run_script() {
    local name=$1 setting arguments=()
    shift
    for setting in "$@"; do
        arguments+=("$(as_text "$setting")")
    done
    .venv/bin/python "scripts/$name.py" "${arguments[@]}"
}

# A setting NAME=/PATH, quoted so that Hydra takes the path literally. Without quotes, commas, equal signs, brackets and
# letters that are not ASCII have a meaning for Hydra or are an error; and folders may have any name.
as_text() {
    local LC_ALL=C
    if [[ $1 =~ ^[A-Za-z_.]+=/.*[^A-Za-z0-9_/.+@%:\ -] && $1 != *\\* ]]; then
        printf '%s="%s"' "${1%%=*}" "$(sed 's/"/\\"/g' <<<"${1#*=}")"
    else
        printf '%s' "$1"
    fi
}

# Print the results, if the last stage was reached, and the time since the start.
finish() {
    if ((stop_stage == last_stage)); then
        printf '\n=== results in %s\n' "$1"
        run_script summary "model_dir=$1" split=test
    fi
    echo "=== stages $stage to $stop_stage took $((SECONDS / 60)) min $((SECONDS % 60)) s"
}
