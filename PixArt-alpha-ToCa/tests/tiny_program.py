"""python tiny_program.py scripts/inference.py flags: a program as it is, on models that are tiny."""

import runpy
import sys

if __name__ == "__main__":
    from pathlib import Path

    fork = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(fork), str(fork / "tests")]
    import torch
    from tiny_parts import TINY

    import pixart.spec

    torch.set_num_threads(1)
    pixart.spec.CONFIGS.update(TINY)
    sys.argv = sys.argv[1:]
    runpy.run_path(str(fork / sys.argv[0]), run_name="__main__")
