"""Which of the original timesteps a run visits."""

from __future__ import annotations


def space_timesteps(num_timesteps: int, section_counts: str | list[int]) -> list[int]:
    """Ascending original timesteps, chosen from range(num_timesteps).

    "50": 50 steps from the first to the last timestep, evenly spaced, rounded half to even. "10,15,25": the range cut into equal
    sections with so many steps each. "ddim50": an integer stride from timestep 0. "" (all of them). One step is the noisiest.
    Raises ValueError when the counts do not fit.
    """
    if section_counts == "":
        return list(range(num_timesteps))
    if isinstance(section_counts, str) and section_counts.startswith("ddim"):
        return _strided(num_timesteps, int(section_counts.removeprefix("ddim")))
    counts = [int(c) for c in section_counts.split(",")] if isinstance(section_counts, str) else list(section_counts)
    if counts == [1]:
        return [num_timesteps - 1]
    size, extra = divmod(num_timesteps, len(counts))
    timesteps, start = [], 0
    for section, count in enumerate(counts):
        length = size + (section < extra)
        if not 1 <= count <= length:
            raise ValueError(f"cannot take {count} steps from a section of {length} timesteps: choose 1 to {length}")
        stride, position = (length - 1) / (count - 1) if count > 1 else 1.0, 0.0
        for _ in range(count):
            timesteps.append(start + round(position))
            position += stride
        start += length
    return sorted(set(timesteps))


def _strided(num_timesteps: int, count: int) -> list[int]:
    for stride in range(1, num_timesteps):
        if len(range(0, num_timesteps, stride)) == count:
            return list(range(0, num_timesteps, stride))
    raise ValueError(f"no integer stride gives {count} of {num_timesteps} timesteps")
