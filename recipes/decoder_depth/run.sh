#!/usr/bin/env bash
# Does a weak attention decoder leave more to the encoder than a strong one? 0, 1, 2, 6 and 12 layers.
#
# usage: bash recipes/decoder_depth/run.sh [options] [-- settings of fangyan train]
#
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 3)
#   --exp-dir DIR    all runs and the tables (default exp/questions in the checkout, for all recipes of this kind)
#   --data-dir DIR   the prepared corpus (default data/mini in the checkout)
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# Stages: 0 set up .venv, 1 prepare the corpus, 2 train the model to start from, 3 train the variants and compare them.
# Finished runs are kept; the same command resumes.
# shellcheck source=scripts/sweep.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/sweep.sh"

sweep=decoder_depth
parse_options "$@"

run_common_stages
run_stage 2 "train the model to start from" train_start
run_stage 3 "train the variants and compare them" compare_from_start
