#!/usr/bin/env bash
# Does more and mixed speech help to recognise human sentences? The model of the embedded corpus learns ten varieties
# from their recordings alone, with further human recordings, with the embedded corpus, and with both, in equal steps.
#
# usage: bash recipes/mixed_human/run.sh RECORDINGS [options] [-- settings of fangyan train]
#
# RECORDINGS holds the folders googi (sentences in ten varieties), taigi_ku (sentences in Taiwanese), cmn_words (words in
# Mandarin), cmn_syllables and yue_syllables (toned syllables), each with a manifest.tsv with the columns path, dialect,
# group, speaker, text, romanization, translation_cmn and parallel_id.
# Run recipes/mini/run.sh first: its model in exp/mini/averaged is the start, and its corpus in data/mini is mixed in.
#
#   --stage N        start at this stage (default 0)
#   --stop-stage N   end after this stage (default 3)
#   --exp-dir DIR    all runs and the tables (default exp/mixed_human in the checkout)
#   --data-dir DIR   the prepared sentences (default data/mixed_human/sentences in the checkout)
#   --python EXE     interpreter that .venv is created with (default: the first Python >= 3.10 on the PATH)
#
# Stages: 0 set up .venv, 1 prepare the further recordings, 2 prepare the sentences, with tokens for all corpora,
# 3 train the variants and compare them.
# Finished runs are kept; the same command resumes.
# shellcheck source=scripts/sweep.sh disable=SC2154
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/sweep.sh"

if (($# == 0)) || [[ $1 == -* ]]; then
    usage
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit
    fail "the first argument is the folder of the recordings"
fi
recordings=$(absolute "$1")
shift
sweep=mixed_human
exp_dir=exp/mixed_human
further=data/mixed_human
data_dir=$further/sentences
for name in googi taigi_ku cmn_words cmn_syllables yue_syllables; do
    [[ -f $recordings/$name/manifest.tsv ]] || fail "there is no $name/manifest.tsv in $recordings"
done
parse_options "$@"
[[ -f exp/mini/averaged/model.safetensors && -f data/mini/cuts_train.jsonl.gz ]] ||
    fail "no model in exp/mini/averaged or no corpus in data/mini; run recipes/mini/run.sh first"

# All of a table of recordings as training data: prepare_part NAME TABLE [settings of fangyan prepare]
prepare_part() {
    local name=$1 table=$2
    shift 2
    run_script prepare corpus=folder "data_dir=$further/$name" "dataset=$name" "corpus.tsv=$table" \
        "corpus.id_prefix=$name-" corpus.split.valid=0 corpus.split.test=0 text.script=simplified "$@"
}

# Syllables get a character that is read so, among those of the transcripts.
prepare_syllables() {
    local name=$1 reading=$2
    .venv/bin/python recipes/mixed_human/syllables.py "$recordings/$name/manifest.tsv" "$reading" \
        "$further/tables/$name.tsv" data/mini "$further/taigi_ku" "$further/cmn_words"
    prepare_part "$name" "$further/tables/$name.tsv"
}

prepare_further() {
    prepare_part taigi_ku "$recordings/taigi_ku/manifest.tsv" corpus.columns.translation=translation_cmn
    prepare_part cmn_words "$recordings/cmn_words/manifest.tsv"
    prepare_syllables cmn_syllables pinyin
    prepare_syllables yue_syllables jyutping
}

prepare_sentences() {
    local others="data/mini,$further/taigi_ku,$further/cmn_words,$further/cmn_syllables,$further/yue_syllables"
    run_script prepare corpus=human "data_dir=$data_dir" dataset=human-text "corpus.tsv=$recordings/googi/manifest.tsv" \
        "tokens.further_data_dirs=[$others]"
}

run_stage 0 "set up .venv" set_up
run_stage 1 "prepare the further recordings in $further" prepare_further
run_stage 2 "prepare the sentences in $data_dir" prepare_sentences
run_stage 3 "train the variants and compare them" compare
