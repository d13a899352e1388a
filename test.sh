#!/usr/bin/env bash
# Test the prompts.
#
#   bash test.sh                                  the embedded demo: draws its dataset and tests its committed prompts
#   DATA_ROOT=/data bash test.sh [mvtec visa ...] the paper's model on real datasets (no names: all that are found)
#
# Variables: PRETRAINED  CLIP weights, a file or an open_clip tag     CHECKPOINT  prompts (default: those in checkpoints/)
#            SAVE_PATH   default results                              EXTRA_FLAGS more flags for test.py; they win
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ -n "${DATA_ROOT:-}" ] || [ $# -eq 0 ] || stop "the datasets $* need DATA_ROOT, the folder that holds them: DATA_ROOT=/data bash test.sh $*"
prepare_environment

save_path="${SAVE_PATH:-results}"
read -r -a extra <<<"${EXTRA_FLAGS:-}"
[ -n "${CHECKPOINT:-}" ] && extra=(--checkpoint_path "$CHECKPOINT" ${extra[@]+"${extra[@]}"})
[ -n "${PRETRAINED:-}" ] && extra=(--pretrained "$PRETRAINED" ${extra[@]+"${extra[@]}"})
if [ -z "${DATA_ROOT:-}" ]; then
    echo "DATA_ROOT is not set: testing the embedded demo, a small CLIP of our own (not the paper's model)"
    python -m demo.make_dataset --out data/demo
    exec python test.py --backbone demo --data_path data/demo/unseen --dataset demo --save_path "$save_path/demo" ${extra[@]+"${extra[@]}"}
fi

test_on() {
    python test.py --data_path "$2" --dataset "$1" --save_path "$save_path/$1" ${extra[@]+"${extra[@]}"} </dev/null
}
for_each_dataset test_on "$@"
