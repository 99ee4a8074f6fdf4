"""The main job in one command: DiT-mini uncached and with every caching method, from the same noise, as one picture and one table.

python demo.py                        # a few seconds per method on a CPU; no downloads
python demo.py --images 1000          # a steady comparison, and the judge's accuracy
"""

from __future__ import annotations

from collections.abc import Sequence

from dit.flags import demo_parser
from toca.console import interruptible


def main(argv: Sequence[str] | None = None) -> None:
    args = demo_parser(__doc__).parse_args(argv)
    from dit.demo import demonstrate  # late, because torch takes seconds: a wrong flag is answered at once

    demonstrate(args)


if __name__ == "__main__":
    with interruptible():
        main()
