#!/usr/bin/env bash
# The same pipeline on human recordings of parallel sentences in ten Sinitic varieties, from the model of the embedded
# corpus: train on the recordings, and measure on 40 sentences that were not trained on.
#
# usage: bash recipes/human/run.sh DATA_DIR [TARGET] [options]
#
# TARGET is the column that the model learns: text, the transcript in the words of the variety (default), or
# translation_cmn, the same sentence in Mandarin for all varieties. The two can be trained side by side, with a thread each.
# DATA_DIR holds manifest.tsv with the columns path, dialect, group, speaker, text, translation_cmn and parallel_id.
# Run recipes/mini/run.sh first: its model in exp/mini/averaged is the start, and its text in data/mini adds characters.
#
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 7)
#   --exp-dir DIR    checkpoints, model and results (default exp/human/TARGET in the checkout)
#   --data-dir DIR   the prepared recordings (default data/human/TARGET in the checkout)
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# Stages: 0 set up .venv, 1 prepare, 2 train, 3 average the weights, 4 decode, 5 embed and retrieve, 6 run the controls
# beside the model, 7 report.
# shellcheck source=scripts/stages.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/stages.sh"

# shellcheck disable=SC2034  # stages.sh reads it
last_stage=7
if (($# == 0)) || [[ $1 == -* ]]; then
    usage
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit
    fail "the first argument is the folder of the recordings"
fi
recordings=$(absolute "$1")
shift
target=text
if (($#)) && [[ $1 != -* ]]; then
    target=$1
    shift
fi
[[ $target == text || $target == translation_cmn ]] || fail "TARGET is text or translation_cmn, not $target"
exp_dir=exp/human/$target
data_dir=data/human/$target
[[ -f $recordings/manifest.tsv ]] || fail "there is no manifest.tsv in $recordings"
parse_options "$@"
model_dir=$exp_dir/averaged
[[ -f exp/mini/averaged/model.safetensors && -f data/mini/cuts_train.jsonl.gz ]] ||
    fail "no model in exp/mini/averaged or no corpus in data/mini; run recipes/mini/run.sh first"

set_up() {
    bash scripts/setup.sh mini "$python"
}

prepare() {
    run_script prepare corpus=human "data_dir=$data_dir" "dataset=human-$target" "corpus.tsv=$recordings/manifest.tsv" \
        "corpus.columns.text=$target" 'tokens.further_data_dirs=[data/mini]'
}

train() {
    run_script train experiment=human "data_dir=$data_dir" "exp_dir=$exp_dir" init_from=exp/mini/averaged
}

average() {
    run_script average "exp_dir=$exp_dir"
}

decode() {
    local method
    for method in ctc beam; do
        run_script decode "model_dir=$model_dir" "data_dir=$data_dir" split=test "method=$method"
    done
}

retrieve() {
    run_script embed "model_dir=$model_dir" "data_dir=$data_dir" split=test
    run_script retrieve "model_dir=$model_dir" split=test level=subdialect
}

controls() {
    run_script controls "model_dir=$model_dir" "data_dir=$data_dir" split=test level=subdialect
}

report() {
    run_script report "model_dir=$model_dir" split=test
}

run_stage 0 "set up .venv" set_up
run_stage 1 "prepare the recordings in $data_dir" prepare
run_stage 2 "train in $exp_dir" train
run_stage 3 "average the weights into $model_dir" average
run_stage 4 "decode the test set with the CTC head and with the transducer" decode
run_stage 5 "look for every sentence in the other varieties" retrieve
run_stage 6 "do the same with sounds, durations and an untrained encoder" controls
run_stage 7 "write the report" report
finish "$model_dir"
