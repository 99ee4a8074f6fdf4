#!/usr/bin/env bash
# The videos that VBench rates: five of every prompt, named {prompt}-{0..4}.mp4. The same command again makes what is missing.
#
#   bash eval/vbench/launch.sh CKPT NUM_FRAMES MODEL_NAME [RES RATIO [STEPS [FLOW [LLM]]]] [flags of scripts/inference.py]
#   bash eval/vbench/launch.sh checkpoints/OpenSora-STDiT-v3 51 opensora-ToCa 480p 9:16
#   bash eval/vbench/launch.sh checkpoints/OpenSora-STDiT-v3 51 opensora-FORA 480p 9:16 --preset fora
#
# Environment: GPUS, processes to start (default: one per GPU); VBENCH_INFO, VBench_full_info.json where the package vbench is not
# installed; CONFIG, another configuration; PROMPTS, another prompt file; SAVE_DIR, another folder; PYTHON.
set -euo pipefail

positional=()
while (($#)) && [[ $1 != --* ]]; do
    positional+=("$1")
    shift
done
set -- "${positional[@]}" -- "$@"
if ((${#positional[@]} < 3 || ${#positional[@]} > 8)); then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
checkpoint=$1 frames=$2 name=$3
resolution=${positional[3]:-} ratio=${positional[4]:-} steps=${positional[5]:-} flow=${positional[6]:-} llm=${positional[7]:-}
shift $((${#positional[@]} + 1))
if [[ -n $resolution && -z $ratio ]]; then
    echo "error: RES needs a RATIO, such as 480p 9:16" >&2
    exit 2
fi

# Paths are those of where the command was given, but for the fork's own files.
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python}
config=${CONFIG:-$root/configs/opensora-v1-2/inference/vbench.py}
prompts=${PROMPTS:-$root/assets/texts/VBench/all_dimension.txt}
save_dir=${SAVE_DIR:-samples/samples_${name}_$(basename "$checkpoint")_vbench}
gpus=${GPUS:-$("$python" -c "import torch; print(max(torch.cuda.device_count(), 1))")}

[[ -f $prompts ]] || "$python" "$root/eval/vbench/prompts.py" "$prompts" ${VBENCH_INFO:+"$VBENCH_INFO"}

size=(--image-size 240 426)
[[ -n $resolution ]] && size=(--resolution "$resolution" --aspect-ratio "$ratio")
flags=("${size[@]}" --num-frames "$frames" --ckpt-path "$checkpoint" --prompt-path "$prompts" --save-dir "$save_dir")
[[ -n $steps ]] && flags+=(--num-sampling-steps "$steps")
[[ -n $flow ]] && flags+=(--flow "$flow")
[[ -n $llm ]] && flags+=(--llm-refine "$llm")

exec "$python" -m torch.distributed.run --standalone --nproc_per_node "$gpus" "$root/scripts/inference.py" "$config" "${flags[@]}" "$@"
