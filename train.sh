#!/usr/bin/env bash
# Learn the prompts.
#
#   bash train.sh                  the embedded demo: learns its prompts anew (two epochs at a low learning rate:
#                                  on so small a CLIP more of it trades image scores for maps) and compares them with the committed ones
#   DATA_ROOT=/data bash train.sh  as in the paper: on VisA into checkpoints/trained_on_visa (to test MVTec AD), on
#                                  MVTec AD into checkpoints/trained_on_mvtec (to test everything else)
#
# Variables: PRETRAINED  CLIP weights, a file or an open_clip tag     SAVE_PATH    instead of checkpoints (demo: results)
#            RESUME=1    go on with a training that was stopped       OVERWRITE=1  replace an earlier training
#            EXTRA_FLAGS more flags for train.py; they win
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ -n "${DATA_ROOT:-}" ] || [ $# -eq 0 ] || stop "the datasets $* need DATA_ROOT, the folder that holds them: DATA_ROOT=/data bash train.sh $*"
[ -z "${CHECKPOINT:-}" ] || echo "CHECKPOINT has no effect on training; EXTRA_FLAGS='--init_from FILE' starts from a checkpoint" >&2
prepare_environment

read -r -a extra <<<"${EXTRA_FLAGS:-}"
[ -n "${PRETRAINED:-}" ] && extra=(--pretrained "$PRETRAINED" ${extra[@]+"${extra[@]}"})
[ -n "${RESUME:-}" ] && extra+=(--resume)
[ -n "${OVERWRITE:-}" ] && extra+=(--overwrite)
if [ -z "${DATA_ROOT:-}" ]; then
    echo "DATA_ROOT is not set: learning the prompts of the embedded demo, a small CLIP of our own (not the paper's model)"
    python -m demo.make_dataset --out data/demo
    folder="${SAVE_PATH:-results}/demo_training"
    python train.py --backbone demo --train_data_path data/demo/auxiliary --dataset demo_auxiliary --save_path "$folder" --learning_rate 0.0002 --epoch 2 ${extra[@]+"${extra[@]}"}
    exec python -m demo.report --data_path data/demo/unseen --prompts "$folder"
fi

[ $# -gt 0 ] || set -- visa mvtec
train_on() {
    python train.py --train_data_path "$2" --dataset "$1" --save_path "${SAVE_PATH:-checkpoints}/trained_on_$1" ${extra[@]+"${extra[@]}"} </dev/null
}
for_each_dataset train_on "$@"
