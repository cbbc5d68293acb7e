#!/usr/bin/env bash
# What is asked of a machine with one NVIDIA GPU. A call takes ten minutes at most:
#
#   benchmarks/gpu.sh check            versions, the GPU tests, the kernels under compute-sanitizer
#                                      where there is one, and the speed of selection and transform
#   benchmarks/gpu.sh train            Table 4, 200 epochs of ResNet-20, as many rows as fit, and the
#                                      loader; the next call with the same $OUT goes on with the rest
#   benchmarks/gpu.sh check --dry      the same steps on a CPU, with tiny sizes or as far as they go
#                                      without a GPU, to test this script
#
# Environment: OUT, a folder for what comes out (gpu-results): a text for each step, JSON, and
# steps.jsonl with every step's exit code and seconds. STEPS, names of the only steps to take. PYTHON,
# the python. WHEELS, a folder of wheels that the machine lacks and cannot download; get them before, for its Python and platform, by
#   pip download --no-deps --only-binary :all: --python-version 3.12 -d WHEELS kornia kornia_rs faiss-cpu
# and pytest, pytest-xdist and hypothesis with what they need, if it lacks these too. DATA, for train:
# a folder with train/ and test/, a folder of CIFAR-10 images a class in each.
#
# No step takes another down; one that fails or takes too long is named at the end, and the exit code
# is then 1.
set -u
cd "$(dirname "$0")/.." || exit 2
mode=${1:-} dry=${2:-}
case "$mode $dry" in "check "|"train "|"check --dry"|"train --dry") ;; *)
    sed -n '2,/^set -u/{/^#/s/^# \{0,1\}//p}' benchmarks/gpu.sh >&2; exit 2 ;;
esac
OUT=${OUT:-gpu-results}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 2
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
export PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
python=${PYTHON:-$(command -v python3 || command -v python)} failed=()

step() { # NAME SECONDS COMMAND...: run it, show its end, note how it went
    local name=$1 limit=$2 start=$SECONDS rc
    shift 2
    [[ -z ${STEPS:-} || " $STEPS " == *" $name "* ]] || return 0
    echo "== $name"
    timeout -k 10 "$limit" "$@" >"$OUT/$name.txt" 2>&1
    rc=$?
    tail -n 30 "$OUT/$name.txt"
    tail -n 1 "$OUT/$name.txt" | grep '^{.*}$' >"$OUT/$name.json" || rm "$OUT/$name.json"
    echo "== $name: exit code $rc after $((SECONDS - start)) s"
    printf '{"step": "%s", "rc": %d, "seconds": %d}\n' "$name" $rc $((SECONDS - start)) >>"$OUT/steps.jsonl"
    [ $rc = 0 ] || failed+=("$name")
    return $rc
}

if [ -n "${WHEELS:-}" ]; then
    step wheels 60 "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
        --upgrade --target "$site" "$WHEELS"/*.whl
fi
step versions 60 "$python" - "$dry" <<'P'
import json
import platform
import sys
from importlib import metadata

import torch

names = "augloader torch torchvision triton numpy numba kornia kornia_rs faiss-cpu faiss-gpu pytest"
found = {"python": platform.python_version(), "cuda": torch.version.cuda}
for name in names.split():
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        found[name] = None
found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
print(json.dumps(found))
sys.exit(0 if found["gpu"] or sys.argv[1] == "--dry" else "No GPU was found.")
P

if [ "$mode" = check ] && [ -z "$dry" ]; then
    spread=() memcheck=()
    "$python" -c "import xdist" 2>/dev/null && spread=(-n 8)
    step tests 210 "$python" -m pytest -q -p no:cacheprovider "${spread[@]}" -m "gpu or triton" \
        -W "ignore:Synchronization debug mode" --durations=10 tests
    if command -v compute-sanitizer >/dev/null; then
        memcheck=(compute-sanitizer --tool memcheck --error-exitcode 9)
    else
        echo "There is no compute-sanitizer: the kernels run without it."
    fi
    step kernels 70 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "${memcheck[@]}" "$python" benchmarks/kernels.py
    step selection 120 "$python" benchmarks/selection.py --gpu --threads 8 --output "$OUT"
    step transform 130 "$python" benchmarks/transform.py --quick --device cuda --output "$OUT"
elif [ "$mode" = check ]; then
    step tests 120 "$python" -m pytest -q -p no:cacheprovider --collect-only tests/augment/pixels/test_fused.py
    step kernels 120 env TRITON_INTERPRET=1 "$python" benchmarks/kernels.py --device cpu --quick
    step selection 120 "$python" benchmarks/selection.py --child \
        '{"solver": "ours", "data": "residuals", "n": 200, "k": 20, "classes": 1, "seed": 0}'
    step transform 120 "$python" benchmarks/transform.py --child \
        '{"config": {"batch": 2, "side": 16, "threads": 1}, "rounds": 1, "seconds": 0.001}'
else
    table=("$python" benchmarks/papers.py table4 --seeds 0 --output "$OUT/table4" --jobs 1)
    limit=400
    if [ -n "$dry" ]; then
        table=("$python" benchmarks/papers.py table4 --help) limit=60
        loader=(--help)
    else
        table+=(--device cuda --schedule paper --data "${DATA:-}")
        loader=(--device cuda --threads 8 --jpegs 500 --output "$OUT")
    fi
    if [ -z "$dry" ] && [ ! -d "${DATA:-}/train" ]; then
        echo "DATA must be a folder with train/ and test/, got '${DATA:-}'. Table 4 is left out."
        failed+=(table4)
    else
        step table4 $limit "${table[@]}"
        if [ $? = 124 ] && [ -n "$(find "$OUT/table4" -name '*.json' 2>/dev/null)" ]; then
            echo "Some rows of Table 4 were trained; call it again for the rest."
            unset "failed[-1]"
        fi
    fi
    step loader 130 "$python" benchmarks/loader.py "${loader[@]}"
fi

[ ${#failed[@]} = 0 ] && echo "All went well: $OUT" && exit 0
echo "Failed: ${failed[*]}. What they said is in $OUT."
exit 1
