#!/usr/bin/env bash
# From a fresh checkout to error rates, a recall matrix and a report, on the embedded corpus.
#
# usage: bash recipes/mini/run.sh [options]
#
#   --quick          the whole pipeline in five minutes, on a small part of the corpus and with a short training, for a
#                    first look; its numbers are poor and say nothing about the toolkit (data/mini-quick, exp/mini-quick)
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 8)
#   --exp-dir DIR    checkpoints, model and results (default exp/mini in the checkout)
#   --data-dir DIR   the prepared corpus (default data/mini in the checkout)
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# Stages: 0 set up .venv, 1 prepare, 2 train, 3 average the weights, 4 decode, 5 embed, 6 retrieve, 7 run the controls,
# 8 report.
# Every stage can be stopped and started again; it resumes.
# shellcheck source=scripts/stages.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/stages.sh"

# shellcheck disable=SC2034  # stages.sh reads it
last_stage=8
takes_quick=1
exp_dir=
data_dir=
parse_options "$@"
form=mini
((quick)) && form=mini-quick
exp_dir=${exp_dir:-exp/$form}
data_dir=${data_dir:-data/$form}
model_dir=$exp_dir/averaged

set_up() {
    bash scripts/setup.sh mini "$python"
}

prepare() {
    run_script prepare "corpus=$form" "data_dir=$data_dir"
}

train() {
    run_script train "experiment=$form" "data_dir=$data_dir" "exp_dir=$exp_dir"
}

average() {
    run_script average "exp_dir=$exp_dir"
}

decode() {
    # At this size a second thread does not help, and it costs much where something else needs a core.
    local -x OMP_NUM_THREADS=1
    local method methods=(ctc greedy beam)
    ((quick)) && methods=(ctc) # the other heads are not trained yet
    for method in "${methods[@]}"; do
        run_script decode "model_dir=$model_dir" "data_dir=$data_dir" split=test "method=$method"
    done
}

embed() {
    local -x OMP_NUM_THREADS=1
    run_script embed "model_dir=$model_dir" "data_dir=$data_dir" split=test
}

retrieve() {
    run_script retrieve "model_dir=$model_dir" split=test
}

controls() {
    # The quick controls, and MFCCs with dynamic time warping, the strongest control by sound alone. Without the
    # last argument all controls run, which takes minutes.
    run_script controls "model_dir=$model_dir" "data_dir=$data_dir" split=test \
        'controls=[zipformer-pooled,mfcc,mfcc-dtw,random,duration,permuted]'
}

report() {
    run_script report "model_dir=$model_dir" split=test
}

run_stage 0 "set up .venv" set_up
run_stage 1 "prepare the corpus in $data_dir" prepare
run_stage 2 "train in $exp_dir" train
run_stage 3 "average the weights into $model_dir" average
run_stage 4 "decode the test set with the CTC head and with the transducer" decode
run_stage 5 "embed the test set" embed
run_stage 6 "look for every sentence in the other dialects" retrieve
run_stage 7 "do the same with sounds, durations and an untrained encoder" controls
run_stage 8 "write the report" report
finish "$model_dir"
((quick)) && echo "=== this was --quick: a small corpus and a short training. Without it, the numbers are those of the README."
true
