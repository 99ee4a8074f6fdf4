"""Where a published file is: given, named by an environment variable, in `checkpoints/`, or on the hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from toca.console import main_process

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


@dataclass(frozen=True)
class Source:
    """A file of a hub repository, or with file=None a repository that is a folder of transformers.

    variables: environment variables that name it, the first that is set wins. flag: the command-line flag that does.
    """

    repo: str
    file: str | None
    variables: tuple[str, ...]
    flag: str

    def find(self, given: str | None = None) -> Path:
        """The file's path; given: a file, a folder that holds it, a hub repository, or repository/file.

        Raises FileNotFoundError that says where to get it and where to put it.
        """
        variable = next((name for name in self.variables if os.environ.get(name)), None)
        asked = given or (os.environ[variable] if variable else None)
        if asked is None:
            local = CHECKPOINTS / self.file
            return local if local.is_file() else self._fetch(self.repo, self.file)
        for path in (Path(asked), Path(asked) / self.file, CHECKPOINTS / asked):
            if path.is_file():
                return path
        owner, _, rest = asked.partition("/")
        repo, _, file = rest.partition("/")
        if owner in ("", ".", "..", "~") or not repo or Path(asked).exists() or (Path(owner).exists() and not file):
            where = self.flag if given else f"environment variable {variable}"
            raise FileNotFoundError(f"{where} names {asked}, where there is no {self.file}: {self.advice()}")
        return self._fetch(f"{owner}/{repo}", file or self.file)

    def folder(self, given: str | None = None) -> str:
        """A folder or hub name of transformers; which one it is, transformers finds out."""
        local = CHECKPOINTS / self.repo.rsplit("/", 1)[1]
        default = str(local) if local.is_dir() else self.repo
        return given or next((os.environ[name] for name in self.variables if os.environ.get(name)), default)

    def advice(self) -> str:
        """Where to get it, and where to put it."""
        place = CHECKPOINTS / (self.file or self.repo.rsplit("/", 1)[1])
        return f"get it from https://huggingface.co/{self.repo}, and put it at {place}, or set {self.variables[0]} or {self.flag}"

    def _fetch(self, repo: str, file: str) -> Path:
        """From the hub's cache on this machine, else from the hub."""
        from huggingface_hub import hf_hub_download

        try:
            try:
                return Path(hf_hub_download(repo, file, local_files_only=True))
            except FileNotFoundError:
                if main_process() and not os.environ.get("HF_HUB_OFFLINE"):
                    print(f"fetching {file} from {repo}", flush=True)
                return Path(hf_hub_download(repo, file))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise FileNotFoundError(f"no {file} of {repo}: {self.advice()} ({reason})") from error
