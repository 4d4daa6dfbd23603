# shellcheck shell=bash disable=SC2034,SC2154
# Stages of the recipes that train variants of a model and compare them. A recipe sources this file, sets sweep to a
# name of conf/sweep and last_stage, and calls parse_options. The recipes share exp_dir: the model to start from and the
# runs that are the same in several sweeps are trained once.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"

last_stage=3
takes_settings=1
exp_dir=exp/questions
data_dir=data/mini

set_up() {
    bash scripts/setup.sh mini "$python"
}

prepare() {
    run_script prepare corpus=mini "data_dir=$data_dir"
}

# Train the model that the runs start from, with CTC alone, so that it favours no variant. A training that is complete
# is not repeated. With other settings than before, the trainer resumes or refuses, as it does for any training.
train_start() {
    local folder=$exp_dir/start
    [[ -f $folder/averaged/provenance.json && ! -d $folder/checkpoints ]] && return # a model that the user put there
    run_script train experiment=start "data_dir=$data_dir" "exp_dir=$exp_dir/start" "${settings[@]}"
    run_script average "exp_dir=$exp_dir/start"
}

# Settings of fangyan train as one list for Hydra.
listed() {
    local list=
    local setting
    for setting in "$@"; do
        list+="${list:+,}\"${setting//\"/\\\"}\""
    done
    echo "[$list]"
}

# Train and measure what is not finished, and print the tables. Arguments are settings of fangyan sweep.
compare() {
    run_script sweep "sweep=$sweep" "data_dir=$data_dir" "exp_dir=$exp_dir" "further=$(listed "${settings[@]}")" "$@"
}

compare_from_start() {
    compare "start=$exp_dir/start/averaged" "$@"
}

run_common_stages() {
    run_stage 0 "set up .venv" set_up
    run_stage 1 "prepare the corpus in $data_dir" prepare
}
