#!/usr/bin/env bash
# Everything that only a data-centre GPU can show, in one call of at most ten minutes, on a machine without a network:
#
#     bash benchmarks/gpu_hour.sh OUT          tests, bench of LISA-7B, memory after cleanup, then nano is trained
#
#   MINUTES=9.3     of the whole call; training gets what the steps before it leave
#   STEPS="tests bench memory train"         only these
#   WHEELS=folder   wheels of what the machine lacks (mujoco, mujoco-core, glfw, pyopengl, torchao, peft)
#   PRESET=lisa-7b  what the bench measures, with QUANTIZATIONS="none int8 fp8";   DEVICE=cuda
#   PREPARED=folder tokenizer/ and nouns.txt of a run on a machine that has WordNet
#   TRAIN="..."     more arguments for `lisa-ros train-nano`
#
# OUT gets at most eight files of less than 16 MB: log.txt, tests.txt, bench.txt, bench.json, bench.png, memory.json
# and nano.tar.gz in parts (cat nano.tar.gz.* | tar xz). A step that fails is named in log.txt and does not stop the next.
set -u
out=$(realpath -m "${1:?usage: gpu_hour.sh OUT}")
root=$(cd "$(dirname "$0")/.." && pwd)
steps=${STEPS:-tests bench memory train}
preset=${PRESET:-lisa-7b} device=${DEVICE:-cuda} python=${PYTHON:-python3}
end=$(($(date +%s) + $(awk "BEGIN {print int(60 * ${MINUTES:-9.3})}")))
run=${RUN:-$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)/lisa_nano}
mkdir -p "$out" "$run"
cd "$root" || exit 1
exec > >(tee "$out/log.txt") 2>&1

left() { echo $((end - $(date +%s))); }
step() { # step SECONDS NAME COMMAND...: runs it for so long at most, and says how it ended
    local seconds=$1 name=$2 begin
    shift 2
    begin=$(date +%s)
    echo "== $name"
    timeout --kill-after=10 "$seconds" "$@"
    echo "== $name: exit code $?, $(($(date +%s) - begin)) s, $(left) s left"
}
wanted() { [[ " $steps " == *" $1 "* ]]; }

if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site "$WHEELS"/*.whl
    export PYTHONPATH=/tmp/site
fi
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 MUJOCO_GL=egl OMP_WAIT_POLICY=PASSIVE
# The sub-commands of the tabletop join by entry points, which a checkout that was never installed does not have.
entry=/tmp/lisa_entry/lisa_ros-0.dist-info
mkdir -p "$entry" && "$python" - "$entry" <<'PYTHON'
import pathlib, sys, tomllib
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
lines = [line for group, names in project["entry-points"].items() for line in (f"[{group}]", *(f"{n} = {t}" for n, t in names.items()))]
folder = pathlib.Path(sys.argv[1])
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lisa_ros\nVersion: {project['version']}\n")
(folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
PYTHON
export PYTHONPATH=$PYTHONPATH:/tmp/lisa_entry
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv 2> /dev/null
"$python" -c 'import os, torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__, "cores", os.cpu_count())'

# 1. Tests that skip without a GPU.
wanted tests && step 90 tests "$python" -m pytest -q -p no:cacheprovider test/engine/test_gpu.py > "$out/tests.txt" 2>&1
wanted tests && tail -n 5 "$out/tests.txt"
# 2. LISA-7B's shapes in bfloat16, int8 and fp8, on random weights.
if wanted bench; then
    : > "$out/bench.txt"
    for quantization in ${QUANTIZATIONS:-none int8 fp8}; do
        arguments=(--presets "$preset" --device "$device" --rounds 2 --lengths 20 --json "$run/bench_$quantization.json")
        [ "$quantization" = none ] && arguments+=(--plot "$out/bench.png")
        [ "$quantization" = none ] || arguments+=(--quantization "$quantization")
        echo "# $quantization" >> "$out/bench.txt"
        step 110 "bench $quantization" "$python" -m lisa_ros.cli bench "${arguments[@]}" >> "$out/bench.txt" 2>&1
        grep '^== ' "$out/bench.txt" | tail -n 1
    done
    "$python" - "$run" "$out/bench.json" <<'PYTHON'
import json, pathlib, sys
folder, target = map(pathlib.Path, sys.argv[1:])
found = {p.stem.removeprefix("bench_"): json.loads(p.read_text()) for p in sorted(folder.glob("bench_*.json"))}
target.write_text(json.dumps(found, indent=1) + "\n")
PYTHON
fi
# 3. What stays on the GPU after the node's cleanup: load, ask, let go.
wanted memory && step 60 memory "$python" - "$device" "$out/memory.json" <<'PYTHON'
import gc, json, sys
import numpy as np, torch
from lisa_ros import load_engine

device, target = sys.argv[1:]
gpu = device.startswith("cuda")
def held():
    return {"allocated_mb": torch.cuda.memory_allocated() / 2**20, "reserved_mb": torch.cuda.memory_reserved() / 2**20} if gpu else {}
report = {"before": held()}
engine = load_engine("nano", device=device)
image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
for number in range(3):
    engine.segment(image, "Where is the mug?", key=number)
report["loaded"] = held()
del engine
gc.collect()
if gpu:
    torch.cuda.empty_cache()
report["after_cleanup"] = held()
open(target, "w").write(json.dumps(report, indent=1) + "\n")
print(report)
PYTHON
# 4. The rest of the time trains nano, whose tables are rendered beside it; 25 s stay for packing.
if wanted train; then
    [ -z "${PREPARED:-}" ] || cp -r "$PREPARED"/. "$run"/
    minutes=$(awk "BEGIN {print ($(left) - 25) / 60}")
    [ "$(left)" -gt 60 ] || { echo "== train: no time is left"; exit 1; }
    step "$(($(left) - 12))" train "$python" -m lisa_ros.cli train-nano --folder "$run" --device "$device" \
        --minutes "$minutes" ${TRAIN:-}
    # a run that was cut off left its last state only: the weights of it, without the optimizer's
    [ -e "$run/checkpoint" ] || "$python" - "$run" <<'PYTHON'
import pathlib, sys
import torch
from lisa_tabletop.training.nano import PARTS
run, state = pathlib.Path(sys.argv[1]), {}
for name in (*PARTS, "train_joint"):
    if (run / f"{name}.pt").exists():
        network = torch.load(run / f"{name}.pt", map_location="cpu", weights_only=True)["network"]
        state |= {k: v.half() for k, v in network.items() if k.startswith(PARTS.get(name, ""))}
torch.save(state, run / "cut_off.pt")
PYTHON
    keep=()
    for name in checkpoint cut_off.pt log tokenizer nouns.txt; do [ -e "$run/$name" ] && keep+=("$name"); done
    tar cz -C "$run" "${keep[@]}" | split -b 15000000 - "$out/nano.tar.gz."
fi
ls -l "$out"
