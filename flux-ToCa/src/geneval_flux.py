"""Pictures for GenEval, in its folder layout.

    python src/geneval_flux.py evaluation_metadata.jsonl --model_name flux-dev --n_samples 4 --steps 50 --width 1024 --height 1024

Sample k of every prompt is made of seed + k, whatever the batch. The same command again goes on where an interrupted run stopped.
"""

from flux.geneval import main

if __name__ == "__main__":
    main()
