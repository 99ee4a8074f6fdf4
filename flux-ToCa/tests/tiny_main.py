"""A program on tiny components in a process of its own, as torchrun starts it: tiny_main.py sample|geneval_flux FLAGS."""

import importlib
import sys

import torch
from tiny_programs import shrink

from flux import weights
from flux.flags import parse

if __name__ == "__main__":
    torch.set_num_threads(1)
    shrink(weights.CONFIGS.__setitem__)
    program = importlib.import_module(sys.argv[1])
    program.main(parse(program.parser(), sys.argv[2:]))
