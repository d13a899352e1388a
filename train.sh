#!/usr/bin/env bash
# Learn the prompts.
#
#   bash train.sh                  the embedded demo: learns its prompts anew (two epochs at a low learning rate:
#                                  on so small a CLIP more of it trades image scores for maps) and compares them with the committed ones
#   DATA_ROOT=/data bash train.sh  as in the paper: on VisA into checkpoints/trained_on_visa (to test MVTec AD), on
#                                  MVTec AD into checkpoints/trained_on_mvtec (to test everything else)
#
# Variables: PRETRAINED  CLIP weights, a file or an open_clip tag     EXTRA_FLAGS  more flags for train.py
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ -n "${DATA_ROOT:-}" ] || [ $# -eq 0 ] || stop "the datasets $* need DATA_ROOT, the folder that holds them: DATA_ROOT=/data bash train.sh $*"
prepare_environment

read -r -a extra <<<"${EXTRA_FLAGS:-}"
[ -n "${PRETRAINED:-}" ] && extra+=(--pretrained "$PRETRAINED")
if [ -z "${DATA_ROOT:-}" ]; then
    echo "DATA_ROOT is not set: learning the prompts of the embedded demo, a small CLIP of our own (not the paper's model)"
    python -m demo.make_dataset --out data/demo
    python train.py --backbone demo --train_data_path data/demo/auxiliary --dataset demo_auxiliary ${extra[@]+"${extra[@]}"} --save_path results/demo_training --learning_rate 0.0002 --epoch 2
    exec python -m demo.report --data_path data/demo/unseen --prompts results/demo_training/epoch_2.pth
fi

[ $# -gt 0 ] || set -- visa mvtec
found="$(python -m generic_dataset_json --folders --root "$DATA_ROOT" "$@")"
while IFS=$'\t' read -r name folder; do
    echo "== training on $name: $folder"
    python train.py --train_data_path "$folder" --dataset "$name" --save_path "checkpoints/trained_on_$name" ${extra[@]+"${extra[@]}"} </dev/null
done <<<"$found"
