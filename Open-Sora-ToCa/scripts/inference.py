"""Videos of prompts.

    python scripts/inference.py configs/opensora-v1-2/inference/sample.py \\
        --num-frames 2s --resolution 480p --aspect-ratio 9:16 --prompt "a beautiful waterfall"

Under torchrun every process takes its share of the videos; the same command again goes on where an interrupted one stopped.
"""

from opensora.flags import parse
from opensora.runs import main
from toca.runs.programs import program_errors

if __name__ == "__main__":
    with program_errors("try a smaller --batch-size, --resolution or --num-frames, or --dtype bf16"):
        main(*parse())
