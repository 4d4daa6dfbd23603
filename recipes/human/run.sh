#!/usr/bin/env bash
# The same road on human recordings of parallel sentences in ten Sinitic varieties: pretrain on the embedded corpus with
# all its varieties, go on with the recordings, and measure on 40 sentences that were not trained on.
#
# usage: bash recipes/human/run.sh DATA_DIR [options]
#
# DATA_DIR holds manifest.tsv with the columns path, dialect, group, speaker, text, translation_cmn and parallel_id.
#
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 8)
#   --exp-dir DIR    checkpoints, models and results (default exp/human in the checkout)
#   --data-dir DIR   prepared data (default data/human in the checkout)
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# Stages: 0 set up .venv, 1 prepare the embedded corpus, 2 prepare the recordings, 3 pretrain, 4 train on the recordings,
# 5 average the weights, 6 decode, 7 embed and retrieve, with MFCC features beside, 8 report.
# shellcheck source=scripts/stages.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/stages.sh"

# shellcheck disable=SC2034  # stages.sh reads it
last_stage=8
exp_dir=exp/human
data_dir=data/human
if (($# == 0)) || [[ $1 == -* ]]; then
    usage
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit
    fail "the first argument is the folder of the recordings"
fi
recordings=$(absolute "$1")
shift
[[ -f $recordings/manifest.tsv ]] || fail "there is no manifest.tsv in $recordings"
parse_options "$@"
model_dir=$exp_dir/averaged

set_up() {
    bash scripts/setup.sh mini "$python"
}

prepare_embedded() {
    run_script prepare corpus=mini "data_dir=$data_dir/mini" 'corpus.held_out=[]' text.script=simplified
}

prepare_recordings() {
    run_script prepare corpus=human "data_dir=$data_dir/recordings" "corpus.tsv=$recordings/manifest.tsv" \
        "tokens.further_data_dirs=[$data_dir/mini]"
}

pretrain() {
    run_script train experiment=mini "data_dir=$data_dir/mini" "exp_dir=$exp_dir/pretrained"
    run_script average "exp_dir=$exp_dir/pretrained"
}

train() {
    run_script train experiment=human "data_dir=$data_dir/recordings" "exp_dir=$exp_dir" \
        "init_from=$exp_dir/pretrained/averaged"
}

average() {
    run_script average "exp_dir=$exp_dir"
}

decode() {
    run_script decode "model_dir=$model_dir" "data_dir=$data_dir/recordings" split=test method=beam
}

retrieve() {
    local embedder
    for embedder in zipformer mfcc; do
        run_script embed "model_dir=$model_dir" "data_dir=$data_dir/recordings" split=test "embedder=$embedder"
        run_script retrieve "model_dir=$model_dir" split=test level=subdialect "embedder=$embedder"
    done
}

report() {
    run_script report "model_dir=$model_dir" split=test
}

run_stage 0 "set up .venv" set_up
run_stage 1 "prepare the embedded corpus in $data_dir/mini" prepare_embedded
run_stage 2 "prepare the recordings in $data_dir/recordings" prepare_recordings
run_stage 3 "pretrain in $exp_dir/pretrained" pretrain
run_stage 4 "train on the recordings in $exp_dir" train
run_stage 5 "average the weights into $model_dir" average
run_stage 6 "decode the test set by beam search" decode
run_stage 7 "embed the test set and look for every sentence in the other varieties" retrieve
run_stage 8 "write the report" report
finish "$model_dir"
