"""What every program does at its ends: numerics and device before, one line and an exit status for whatever stops it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from safetensors import SafetensorError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AVAILABLE = {"cpu": lambda: True, "mps": torch.backends.mps.is_available, "xpu": torch.xpu.is_available}  # beside CUDA
GOES_ON = "finished files stay, and the same command goes on with the others"


class Terminated(BaseException):
    """SIGTERM."""


@contextmanager
def program_errors(memory_advice: str = "try a smaller size or batch", after: str = GOES_ON) -> Iterator[None]:
    """For the entry of a program: whatever stops it ends it with one line instead of a traceback.

    Status 1: a wrong flag, a missing or damaged file, a full disk (ValueError, OSError, SafetensorError), exhausted memory of any device.
    130, 143: Ctrl-C, SIGTERM. memory_advice: what takes less memory. after: what an interrupted run leaves.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # not the main thread of its process: whoever started it answers
        before = None
    try:
        yield
    except (ValueError, OSError, SafetensorError) as error:
        if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left" in str(error):
            raise SystemExit(f"error: the disk is full ({_line(error)}); {after}") from error
        raise SystemExit(f"error: {_line(error)}") from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SystemExit(f"error: out of memory: {memory_advice} ({reason})") from error
    except KeyboardInterrupt as error:
        print(f"interrupted: {after}", flush=True)
        raise SystemExit(130) from error
    except Terminated as error:
        print(f"terminated: {after}", flush=True)
        raise SystemExit(143) from error
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether memory of a device or of the host ran out; torch's CPU allocator says so in words alone."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed", "numel: integer multi")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in str(error) for word in words)


def reproducible_matmuls() -> None:
    """Let MKL round a row of a product alike in batches of any size, so that on a CPU no picture depends on its batch.

    Read by MKL at its first product. Costs large products nothing, and does nothing to CUDA or to machines without MKL.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def device_from(name: str | None, flag: str = "--device") -> torch.device:
    """The device of a flag, by default CUDA where there is one. Raises ValueError if there is no such device."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"{flag} {name}: no such kind of device, try cpu or cuda") from error
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"{flag} {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    elif device.type not in AVAILABLE or not AVAILABLE[device.type]():
        raise ValueError(f"{flag} {name}: this machine has none; programs run on cpu, cuda, mps or xpu")
    return device
