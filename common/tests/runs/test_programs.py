from __future__ import annotations

import errno
import os
import signal

import pytest
import torch

from toca.runs.programs import device_from, program_errors


@pytest.mark.parametrize("error", [ValueError("a\nb"), FileNotFoundError("a b")])
def test_user_errors_are_one_line(error):
    @program_errors()
    def main():
        raise error

    with pytest.raises(SystemExit, match=r"^error: a b$"):
        main()


def test_other_errors_keep_their_traceback():
    with pytest.raises(KeyError), program_errors():
        raise KeyError


def test_exhausted_memory_and_an_interruption_are_one_line_too(capsys):
    with pytest.raises(SystemExit, match=r"^error: out of memory: buy more \(tried 2 GB\)$"), program_errors("buy more"):
        raise torch.OutOfMemoryError("tried 2 GB\nlong story")
    with pytest.raises(SystemExit, match="130"), program_errors(""):
        raise KeyboardInterrupt
    assert "the same command goes on" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^error: a$"), program_errors(""):
        raise ValueError("a")


@pytest.mark.parametrize("shape", [(2**40,), (2**40, 2**40)])
def test_exhausted_host_memory_is_one_line_too(shape: tuple[int, ...]) -> None:
    with pytest.raises(SystemExit, match=r"^error: out of memory: buy more"), program_errors("buy more"):
        torch.empty(shape)


def test_a_program_that_is_terminated_ends_with_143(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), program_errors():
        os.kill(os.getpid(), signal.SIGTERM)
    assert capsys.readouterr().out.startswith("terminated: ") and signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_is_called_one() -> None:
    with pytest.raises(SystemExit, match=r"^error: the disk is full .*finished files stay"), program_errors():
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["meta", "xla", "cuda:99", "mps", "toaster", "cpu:-1"])
def test_devices_that_are_not_here(name: str) -> None:
    with pytest.raises(ValueError, match=f"^--device {name}: "):
        device_from(name)
