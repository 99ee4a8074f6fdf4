"""One picture of one prompt, to a file.

    python sample.py --model_name flux-dev --width 1024 --height 1024 --prompt "a fox in the snow"
    python sample.py --model_name flux-dev --preset fora3 --output fora3.png --prompt "a fox in the snow"

For many prompts there is src/sample.py; for a loop of prompts, `python -m flux --loop`.
"""

from flux.cli_picture import main

if __name__ == "__main__":
    main()
