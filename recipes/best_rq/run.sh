#!/usr/bin/env bash
# Does pre-training without transcripts help a model that has few of them? BEST-RQ on the embedded corpus.
#
# usage: bash recipes/best_rq/run.sh [options] [-- settings of fangyan train]
#
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 4)
#   --exp-dir DIR    all runs and the tables (default exp/best_rq in the checkout)
#   --data-dir DIR   the prepared corpus (default data/mini in the checkout); a tenth of its transcripts goes to DIR-tenth
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# Stages: 0 set up .venv, 1 prepare the corpus, 2 choose the tenth that keeps its transcripts, 3 pre-train on all speech,
# 4 train on the tenth, from scratch and from the pre-trained encoder, and compare the two.
# Finished runs are kept; the same command resumes. The settings after -- are those of the runs of stage 4.
# shellcheck source=scripts/sweep.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/sweep.sh"

sweep=best_rq
last_stage=4
exp_dir=exp/best_rq
parse_options "$@"
tenth=$data_dir-tenth

choose_tenth() {
    .venv/bin/python recipes/best_rq/fewer_labels.py "$data_dir" "$tenth" 0.1
}

pretrain() {
    run_script train experiment=pretrain "data_dir=$data_dir" "exp_dir=$exp_dir/pretraining"
    run_script average "exp_dir=$exp_dir/pretraining" last_fraction=0.1
}

compare_with_scratch() {
    data_dir=$tenth
    compare "variants.pretrained.start=$exp_dir/pretraining/averaged"
}

run_common_stages
run_stage 2 "choose a tenth of the training utterances" choose_tenth
run_stage 3 "pre-train on all speech, without transcripts" pretrain
run_stage 4 "train on the tenth from scratch and from the pre-trained encoder, and compare" compare_with_scratch
