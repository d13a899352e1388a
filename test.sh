#!/usr/bin/env bash
# Test the prompts.
#
#   bash test.sh                                  the embedded demo: draws its dataset and tests its committed prompts
#   DATA_ROOT=/data bash test.sh [mvtec visa ...] the paper's model on real datasets (no names: all that are found)
#
# Variables: PRETRAINED  CLIP weights, a file or an open_clip tag     CHECKPOINT  prompts (default: those in checkpoints/)
#            SAVE_PATH   default results                              EXTRA_FLAGS more flags for test.py
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ -n "${DATA_ROOT:-}" ] || [ $# -eq 0 ] || stop "the datasets $* need DATA_ROOT, the folder that holds them: DATA_ROOT=/data bash test.sh $*"
prepare_environment

save_path="${SAVE_PATH:-results}"
read -r -a extra <<<"${EXTRA_FLAGS:-}"
[ -n "${PRETRAINED:-}" ] && extra+=(--pretrained "$PRETRAINED")
[ -n "${CHECKPOINT:-}" ] && extra+=(--checkpoint_path "$CHECKPOINT")
if [ -z "${DATA_ROOT:-}" ]; then
    echo "DATA_ROOT is not set: testing the embedded demo, a small CLIP of our own (not the paper's model)"
    python -m demo.make_dataset --out data/demo
    exec python test.py --backbone demo --data_path data/demo/unseen --dataset demo --save_path "$save_path/demo" ${extra[@]+"${extra[@]}"}
fi

found="$(python -m generic_dataset_json --folders --root "$DATA_ROOT" "$@")"
while IFS=$'\t' read -r name folder; do
    echo "== $name: $folder"
    python test.py --data_path "$folder" --dataset "$name" --save_path "$save_path/$name" ${extra[@]+"${extra[@]}"} </dev/null
done <<<"$found"
