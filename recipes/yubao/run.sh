#!/usr/bin/env bash
# The YuBao benchmark with any model directory: which dialects does its encoder bring to the same place?
#
# usage: bash recipes/yubao/run.sh DATA_DIR MODEL_DIR [options] [-- allow_partial=true]
#
# DATA_DIR holds metadata/, the tables as Parquet or TSV, and audio/, WAV or MP4 files named by utterance id. Its
# README says how to obtain them. MODEL_DIR is a model directory such as exp/mini/averaged. It is not written to: the
# results go to a folder of links to its files.
#
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 4)
#   --exp-dir DIR    links and results (default exp/yubao/NAME in the checkout, with the name of the model directory)
#   --data-dir DIR   the prepared recordings, for all models (default data/yubao in the checkout)
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# What follows -- are settings of fangyan paper_table: without allow_partial=true it refuses results that are not of
# exactly the sites of the benchmark.
#
# Stages: 0 set up .venv, 1 prepare, 2 embed, 3 retrieve, both with MFCC features beside the model, 4 report.
# shellcheck source=scripts/stages.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/stages.sh"

# shellcheck disable=SC2034  # stages.sh reads them
last_stage=4
# shellcheck disable=SC2034
takes_settings=1
if (($# < 2)) || [[ $1 == -* || $2 == -* ]]; then
    usage
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit
    fail "the first two arguments are the folder of the data and the model directory"
fi
recordings=$(absolute "$1")
model=$(absolute "${2%/}")
shift 2
for folder in "$recordings/metadata" "$recordings/audio"; do
    [[ -d $folder ]] || fail "there is no folder $folder; recipes/yubao/README.md says what it holds"
done
[[ -f $model/config.json && -f $model/model.safetensors ]] ||
    fail "$model is no model directory (config.json and model.safetensors); scripts/average.py makes one"
model=$(cd "$model" && pwd)
exp_dir=exp/yubao/$(basename "$(dirname "$model")")-$(basename "$model")
data_dir=data/yubao
parse_options "$@"

# The groups in the order of the paper's table, as far as sites of them are prepared.
group_order() {
    local group found=()
    for group in cmn mandarin nan wuu hak yue hsn gan; do
        [[ ! -d $data_dir/sites/$group ]] || found+=("$group")
    done
    ((${#found[@]})) || fail "no sites in $data_dir/sites; run stage 1 first"
    (IFS=, && echo "[${found[*]}]")
}

# Results of one model directory for other data would take the place of those that it has.
link_model() {
    local file link
    mkdir -p "$exp_dir"
    for file in "$model"/*; do
        [[ -f $file ]] || continue
        link=$exp_dir/${file##*/}
        if [[ -e $link || -L $link ]] && [[ $(readlink -- "$link") != "$file" ]]; then
            fail "$link is not of $model; choose another --exp-dir"
        fi
        ln -sfn -- "$file" "$link"
    done
}

set_up() {
    bash scripts/setup.sh yubao "$python"
}

prepare() {
    run_script prepare corpus=yubao "data_dir=$data_dir" "corpus.metadata=$recordings/metadata" \
        "corpus.audio_dir=$recordings/audio"
}

embed() {
    local embedder
    link_model
    for embedder in zipformer mfcc; do
        run_script embed "model_dir=$exp_dir" "data_dir=$data_dir" split=test "embedder=$embedder"
    done
}

retrieve() {
    local embedder order
    order=$(group_order)
    for embedder in zipformer mfcc; do
        run_script retrieve "model_dir=$exp_dir" split=test "groups=$order" "embedder=$embedder"
    done
}

report() {
    run_script report "model_dir=$exp_dir" split=test
    run_script paper_table "model_dir=$exp_dir" split=test "${settings[@]}"
}

run_stage 0 "set up .venv" set_up
run_stage 1 "prepare the recordings in $data_dir" prepare
run_stage 2 "embed them with $model" embed
run_stage 3 "look for every sentence at the other sites" retrieve
run_stage 4 "write the report, print the paper's table" report
echo "=== stages $stage to $stop_stage took $((SECONDS / 60)) min $((SECONDS % 60)) s"
