#!/usr/bin/env bash
# SeqSim compared with the cosine of mean frames, raw and corrected, on the embeddings of trained models.
#
# usage: bash recipes/pooling/run.sh [MODEL_DIR ...] [options] [-- SETTING ...]
#
# MODEL_DIR is a model directory (default exp/mini/averaged, which recipes/mini/run.sh makes); several are taken as runs
# that differ by seed. What follows -- are settings of fangyan scores, such as level=subdialect.
#
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 2)
#   --exp-dir DIR    the tables (default exp/pooling in the checkout)
#   --data-dir DIR   the prepared corpus (default data/mini in the checkout)
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# Stages: 0 set up .venv, 1 embed the test set with every model, 2 retrieve with every score and compare.
# shellcheck source=scripts/stages.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/stages.sh"

# shellcheck disable=SC2034  # stages.sh reads them
last_stage=2
# shellcheck disable=SC2034
takes_settings=1
exp_dir=exp/pooling
data_dir=data/mini
models=()
while (($#)) && [[ $1 != -* ]]; do
    models+=("$(absolute "$1")")
    shift
done
parse_options "$@"
made_by=scripts/average.py
((${#models[@]})) || models=(exp/mini/averaged) made_by="bash recipes/mini/run.sh"

# Stage 0 needs no model, so the model need not exist yet.
if ((stop_stage > 0)); then
    for model in "${models[@]}"; do
        [[ -f $model/config.json && -f $model/model.safetensors ]] ||
            fail "$model is no model directory (config.json and model.safetensors); $made_by makes one"
    done
fi

set_up() {
    bash scripts/setup.sh mini "$python"
}

embed() {
    local model
    for model in "${models[@]}"; do
        run_script embed "model_dir=$model" "data_dir=$data_dir" split=test
    done
}

compare() {
    local list
    list=$(printf ',"%s"' "${models[@]}")
    run_script scores "model_dirs=[${list:1}]" "out_dir=$exp_dir" 'corrections=[none,center,all_but_the_top,whiten]' \
        "${settings[@]}"
}

run_stage 0 "set up .venv" set_up
run_stage 1 "embed the test set" embed
run_stage 2 "retrieve with every score and compare" compare
