#!/usr/bin/env bash
# Train one model on every corpus that you have, mixed by dialect group, and score it on every test set.
#
# usage: bash recipes/multi_dialect/run.sh CORPORA [options] [-- settings of fangyan train]
#
# CORPORA is a table like recipes/multi_dialect/corpora.tsv, a line for each corpus: name, weight, dialect group or "-",
# scoring convention of its test set, and the settings of fangyan prepare, all separated by tabs.
#
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 7)
#   --exp-dir DIR    checkpoints, model and results (default exp/multi_dialect in the checkout)
#   --data-dir DIR   the prepared corpora, and the mixture in DIR/mixture (default data/multi_dialect in the checkout)
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# Stages: 0 set up .venv, 1 prepare every corpus, 2 tokens and validation of all corpora, 3 the data card, 4 train,
# 5 average the weights, 6 decode every test set with every head of the model, 7 the table of error rates.
# Every stage can be stopped and started again; it resumes.
# shellcheck source=scripts/stages.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/stages.sh"

# shellcheck disable=SC2034  # stages.sh reads it
last_stage=7
# shellcheck disable=SC2034
takes_settings=1
if (($# == 0)) || [[ $1 == -* ]]; then
    usage
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit
    fail "the first argument is the table of corpora"
fi
corpora=$(absolute "$1")
shift
[[ -f $corpora ]] || fail "there is no table of corpora $corpora"
exp_dir=exp/multi_dialect
data_dir=data/multi_dialect
parse_options "$@"
model_dir=$exp_dir/averaged
mixture=$data_dir/mixture

# Call a function for every corpus, with the fields of its line.
for_each_corpus() {
    local work=$1 line fields number=0 count=0
    while IFS= read -r line <&3 || [[ -n $line ]]; do
        number=$((number + 1))
        line=${line%$'\r'}
        [[ -z $line || $line == \#* ]] && continue
        IFS=$'\t' read -r -a fields <<<"$line"
        ((${#fields[@]} >= 5)) || fail "$corpora, line $number: give name, weight, group, scoring and settings, by tabs"
        [[ ${fields[0]} =~ ^[A-Za-z0-9_-]+$ && ${fields[0]} != mixture ]] ||
            fail "$corpora, line $number: '${fields[0]}' is no name; use letters, digits, - and _"
        count=$((count + 1))
        "$work" "${fields[@]}"
    done 3<"$corpora"
    ((count)) || fail "$corpora names no corpus; remove the # before those that you have"
}

prepare_one() {
    run_script prepare "data_dir=$data_dir/$1" "${@:5}"
}

# A line of the mixture file; corpora that are test sets only have none.
list_one() {
    if [[ -f $data_dir/$1/cuts_train.jsonl.gz ]]; then
        printf -- '- {data_dir: "%s", weight: %s%s}\n' "$1" "$2" "$([[ $3 == - ]] || printf ', group: "%s"' "$3")"
    elif [[ ! -f $data_dir/$1/cuts_test.jsonl.gz ]]; then
        fail "$data_dir/$1 is not prepared; run stage 1 first"
    fi
}

test_set_of() {
    if [[ -f $data_dir/$1/cuts_test.jsonl.gz ]]; then
        printf '%s\n' "$data_dir/$1"
    fi
}

decode_one() {
    local -x OMP_NUM_THREADS=1
    [[ -f $data_dir/$1/cuts_test.jsonl.gz ]] || return 0
    local method
    for method in $methods; do
        run_script decode "model_dir=$model_dir" "data_dir=$data_dir/$1" "dataset=$1" split=test "method=$method" \
            "scoring=$4"
    done
}

set_up() {
    bash scripts/setup.sh mini,audio,scoring,yubao "$python" # Parquet, MP4 and the numbers of scoring conventions
}

prepare() {
    for_each_corpus prepare_one
}

mix() {
    local lines
    lines=$(for_each_corpus list_one)
    printf 'corpora:\n%s\n' "$lines" >"$data_dir/corpora.yaml"
    # As in the paper, so that retrieval can test a group that was never heard.
    run_script mixture "file=$data_dir/corpora.yaml" "data_dir=$mixture" "held_out=[gan]"
}

# The test sets besides, which may be of corpora without training.
describe() {
    local sets
    sets=$(for_each_corpus test_set_of | sed 's/.*/"&"/' | paste -sd, -)
    run_script card "mixture=$mixture/mixture.yaml" "data_dirs=[$sets]" "directory=$mixture"
}

train() {
    local sets left_out=
    sets=$(for_each_corpus test_set_of | sed 's/.*/"&"/' | paste -sd, -)
    # The held-out group: its utterances, and all others of its sentences and speakers.
    if cut -f 2 "$mixture/hours.tsv" | grep -qx gan; then
        left_out=gan
    fi
    if [[ -n $left_out || -f $mixture/cuts_test.jsonl.gz ]]; then
        sets+="${sets:+,}\"$mixture\""
    fi
    run_script train experiment=multi_dialect "data_dir=$mixture" "exp_dir=$exp_dir" \
        "data.mixing.file=$mixture/mixture.yaml" "data.keep_out=[$sets]" data.keep_out_speakers=true \
        "data.left_out_dialects=[$left_out]" "${settings[@]}"
}

average() {
    run_script average "exp_dir=$exp_dir"
}

decode() {
    methods=$(.venv/bin/python recipes/multi_dialect/heads.py "$model_dir")
    for_each_corpus decode_one
}

tabulate() {
    .venv/bin/python recipes/multi_dialect/error_rates.py "$model_dir"
}

run_stage 0 "set up .venv" set_up
run_stage 1 "prepare the corpora in $data_dir" prepare
run_stage 2 "make tokens and validation cuts of all corpora in $mixture" mix
run_stage 3 "describe the data in $mixture/card.html" describe
run_stage 4 "train in $exp_dir" train
run_stage 5 "average the weights into $model_dir" average
run_stage 6 "decode every test set with every head" decode
run_stage 7 "tabulate the error rates" tabulate
echo "=== stages $stage to $stop_stage took $((SECONDS / 60)) min $((SECONDS % 60)) s"
