# Sourced by test.sh, train.sh and tests/run.sh: makes .venv beside this file and installs what they need.
# Nothing is downloaded again while requirements.txt and pyproject.toml stay the same.

set -euo pipefail
REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
for name in DATA_ROOT PRETRAINED CHECKPOINT SAVE_PATH; do # paths are those of the folder where the user stands
    value="${!name:-}"
    if [ -e "$value" ] || [[ "$name" == SAVE_PATH && -n "$value" ]]; then
        [[ "$value" == /* ]] || export "$name=$PWD/$value"
    fi
done
cd "$REPOSITORY"

stop() { # one sentence on standard error, exit code 2
    echo "error: $1" >&2
    exit 2
}

prepare_environment() { # argument: extras of pyproject.toml, for example app,test
    local base="${PYTHON:-python3}" stamp=".venv/.installed" package=".${1:+[$1]}" wanted
    if [ ! -x .venv/bin/python ]; then
        command -v "$base" >/dev/null || stop "Python was not found; install Python 3.10 or newer, or name it by PYTHON=..."
        "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
            stop "$("$base" --version) is too old; install Python 3.10 or newer, or name it by PYTHON=..."
        echo "making .venv with $("$base" --version)" >&2
        "$base" -m venv .venv || stop "$base could not make a virtual environment; on Debian install python3-venv, then remove .venv"
    fi
    wanted="$package $(cat requirements.txt pyproject.toml | cksum)"
    touch "$stamp"
    if ! grep -qxF "$wanted" "$stamp"; then
        echo "installing $package into .venv (PyTorch is large; the README explains how to get its smaller CPU build)" >&2
        .venv/bin/python -m pip install --quiet --editable "$package" >&2 || stop "pip could not install $package; its message is above"
        if ! .venv/bin/python -c 'import cv2' 2>/dev/null; then
            # opencv-python needs libGL, which containers without a screen lack; the headless build does not
            .venv/bin/python -m pip uninstall --quiet --yes opencv-python >&2
            # both builds own the same files, so a headless build that was there before has lost them
            .venv/bin/python -m pip install --quiet --force-reinstall --no-deps opencv-python-headless >&2
            .venv/bin/python -c 'import cv2' || stop "OpenCV cannot be imported; its message is above"
        fi
        echo "$wanted" >>"$stamp"
    fi
    PATH="$REPOSITORY/.venv/bin:$PATH"
}

for_each_dataset() { # arguments: a function of a dataset's name and folder, then names; all that are found without any
    local action="$1" found failed=()
    found="$(python -m generic_dataset_json --folders --root "$DATA_ROOT" "${@:2}")"
    while IFS=$'\t' read -r name folder; do
        echo "== $name: $folder"
        "$action" "$name" "$folder" || failed+=("$name")
    done <<<"$found"
    [ ${#failed[@]} -eq 0 ] || { # the others went on
        echo "failed: ${failed[*]}; the messages are above" >&2
        exit 1
    }
}
