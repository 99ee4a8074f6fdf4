"""A program on tiny components in a process of its own, as torchrun starts it: tiny_main.py sample|geneval FLAGS."""

import sys

import torch
from tiny_programs import shrink

from flux import weights
from flux.geneval import main
from flux.runs import sample_prompts

if __name__ == "__main__":
    torch.set_num_threads(1)
    shrink(weights.CONFIGS.__setitem__)
    dict(sample=sample_prompts, geneval=main)[sys.argv[1]](sys.argv[2:])
