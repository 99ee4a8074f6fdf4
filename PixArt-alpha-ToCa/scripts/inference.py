"""Sample a picture for every line of a text file.

    python scripts/inference.py --txt_file asset/samples.txt --bs 100 --preset toca3-r70
    python scripts/inference.py --image_size 1024 --txt_file prompts.txt --method none

Pictures are numbered by line; prompts.jsonl beside them says which is which. The same command again goes on where a killed run stopped.
"""

from pixart.runs import main

if __name__ == "__main__":
    main(__doc__)
