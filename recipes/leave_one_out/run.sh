#!/usr/bin/env bash
# How well is a dialect retrieved that was left out of the training? Each trained group is left out in turn.
#
# usage: bash recipes/leave_one_out/run.sh [options] [-- settings of fangyan train]
#
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 3)
#   --exp-dir DIR    all runs and the tables (default exp/questions in the checkout, for all recipes of this kind)
#   --data-dir DIR   the prepared corpus (default data/mini in the checkout)
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# Stages: 0 set up .venv, 1 prepare the corpus, 2 nothing (every run starts from scratch), 3 train the variants and
# compare them.
# Finished runs are kept; the same command resumes.
# shellcheck source=scripts/sweep.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/sweep.sh"

sweep=leave_one_out
parse_options "$@"

run_common_stages
run_stage 3 "train the variants and compare them" compare
