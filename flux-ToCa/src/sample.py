"""One picture, or several, for every line of a prompt file.

    python src/sample.py --prompt_file prompts.txt --model_name flux-dev --width 1024 --height 1024 --num_steps 50 --add_sampling_metadata

Picture i is made of seed + i, whatever the batch. The same command again goes on where an interrupted run stopped.
"""

from flux.runs import sample_prompts

if __name__ == "__main__":
    sample_prompts()
