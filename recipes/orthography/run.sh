#!/usr/bin/env bash
# Transcripts in the script that each dialect is usually written in, compared with simplified characters for all.
#
# usage: bash recipes/orthography/run.sh [options] [-- settings of fangyan train]
#
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 3)
#   --exp-dir DIR    all runs and the tables (default exp/questions in the checkout, for all recipes of this kind)
#   --data-dir DIR   the prepared corpus (default data/mini in the checkout)
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# Stages: 0 set up .venv, 1 prepare the corpus, and again with its transcripts in the customary scripts, 2 nothing
# (every run starts from scratch), 3 train the variants and compare them.
# Finished runs are kept; the same command resumes.
# shellcheck source=scripts/sweep.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/sweep.sh"

sweep=orthography
parse_options "$@"

rewrite() {
    run_script transcripts "source=$data_dir" "data_dir=$data_dir-customary" +scripts.yue=s2hk +scripts.nan=s2tw +scripts.hak=s2tw
}

prepare_both() {
    prepare
    rewrite
}

compare_scripts() {
    compare "variants.customary.data_dir=$data_dir-customary"
}

run_stage 0 "set up .venv" set_up
run_stage 1 "prepare the corpus in $data_dir and $data_dir-customary" prepare_both
run_stage 3 "train the variants and compare them" compare_scripts
