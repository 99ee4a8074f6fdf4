"""The named models and where their published files are: given, named by an environment variable, in `checkpoints/`, or on the hub.

Free of torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flux.spec import CONFIGS as PARAMS
from flux.spec import FluxParams, txt_tokens
from toca.console import announce

HOME = Path(__file__).resolve().parents[2]  # the fork's folder, in a checkout of the source
CHECKPOINTS = (HOME if (HOME / "pyproject.toml").is_file() else Path()) / "checkpoints"


@dataclass(frozen=True)
class Source:
    """A file of a hub repository, or with file=None a repository that is a folder of transformers.

    variables: environment variables that name it, the first that is set wins. flag: the command-line flag that does.
    others: names that it may have besides, inside a folder; folders of diffusers among them.
    hint: what to give where nothing is published.
    """

    repo: str
    file: str | None
    variables: tuple[str, ...]
    flag: str
    others: tuple[str, ...] = ()
    hint: str = ""

    def find(self, given: str | None = None) -> Path:
        """The path of the file, or of a folder of diffusers.

        given: one of these, a folder that holds it, a hub repository, or repository/file.

        Raises FileNotFoundError that says where to get it and where to put it.
        """
        variable = next((name for name in self.variables if os.environ.get(name)), None)
        asked = given or (os.environ[variable] if variable else None)
        if asked is None:
            local = CHECKPOINTS / self.file
            return local if local.is_file() else self._fetch(self.repo, self.file)
        for path in (Path(asked), *(Path(asked) / name for name in (self.file, *self.others)), CHECKPOINTS / asked):
            if path.is_file() or next(path.glob(f"{DIFFUSERS}*"), None):
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
        asked = given or next((os.environ[name] for name in self.variables if os.environ.get(name)), default)
        inside = (str(Path(asked) / name) for name in self.others if (Path(asked) / name / "config.json").is_file())
        return next(inside, asked)

    def advice(self) -> str:
        """Where to get it, and where to put it."""
        if self.hint:
            return self.hint
        place = CHECKPOINTS / (self.file or self.repo.rsplit("/", 1)[1])
        return f"get it from https://huggingface.co/{self.repo}, and put it at {place}, or set {self.variables[0]} or {self.flag}"

    def _fetch(self, repo: str, file: str) -> Path:
        """From the hub's cache on this machine, else from the hub."""
        from huggingface_hub import hf_hub_download

        try:
            try:
                return Path(hf_hub_download(repo, file, local_files_only=True))
            except FileNotFoundError:
                if not os.environ.get("HF_HUB_OFFLINE"):
                    announce(f"fetching {file} from {repo}")
                return Path(hf_hub_download(repo, file))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise FileNotFoundError(f"no {file} of {repo}: {self.advice()} ({reason})") from error


HUB = "black-forest-labs/FLUX.1-"
DIFFUSERS = "diffusion_pytorch_model"  # how the files of a network's folder begin
ANY_LORA = Source(
    "",
    "pytorch_lora_weights.safetensors",
    (),
    "--lora",
    ("adapter_model.safetensors",),
    hint="--lora wants a LoRA of FLUX in its own, kohya's, diffusers' or PEFT's layout",
)


@dataclass(frozen=True)
class Config:
    """A named model: its network, its files, and what its commands use when nothing else is said."""

    params: FluxParams
    flow: Source
    lora: Source | None = None
    num_steps: int = 50
    guidance: float = 3.5
    t5_length: int = 512  # text tokens

    @property
    def adapter(self) -> Source:
        """Where a LoRA is: the model's own, or any that is given."""
        return self.lora or ANY_LORA

    @property
    def shifted(self) -> bool:
        """Whether the schedule depends on the size of the picture: for all models but the distilled one."""
        return self.params.guidance_embed


def _flow(repo: str, file: str, *variables: str) -> Source:
    return Source(f"{HUB}{repo}", f"{file}.safetensors", (*variables, "FLUX_MODEL"), "--ckpt", ("transformer",))


DEV = _flow("dev", "flux1-dev", "FLUX_DEV")


def _lora(kind: str) -> Source:
    repo, file = f"{HUB}{kind.capitalize()}-dev-lora", f"flux1-{kind}-dev-lora.safetensors"
    return Source(repo, file, (f"FLUX_DEV_{kind.upper()}_LORA", "FLUX_LORA"), "--lora")


SCHNELL = _flow("schnell", "flux1-schnell", "FLUX_SCHNELL")
KREA = _flow("Krea-dev", "flux1-krea-dev", "FLUX_DEV_KREA")
FILL = _flow("Fill-dev", "flux1-fill-dev", "FLUX_DEV_FILL")
CANNY = _flow("Canny-dev", "flux1-canny-dev", "FLUX_DEV_CANNY")
DEPTH = _flow("Depth-dev", "flux1-depth-dev", "FLUX_DEV_DEPTH")


def _config(name: str, flow: Source, lora: Source | None = None, **defaults: float) -> Config:
    return Config(PARAMS[name], flow, lora, t5_length=txt_tokens(name), **defaults)


CONFIGS: dict[str, Config] = {
    "flux-dev": _config("flux-dev", DEV),
    "flux-schnell": _config("flux-schnell", SCHNELL, num_steps=4),
    "flux-dev-krea": _config("flux-dev-krea", KREA),
    "flux-dev-fill": _config("flux-dev-fill", FILL, guidance=30.0),
    "flux-dev-canny": _config("flux-dev-canny", CANNY, guidance=30.0),
    "flux-dev-depth": _config("flux-dev-depth", DEPTH, guidance=10.0),
    "flux-dev-canny-lora": _config("flux-dev-canny-lora", DEV, _lora("canny"), guidance=30.0),
    "flux-dev-depth-lora": _config("flux-dev-depth-lora", DEV, _lora("depth"), guidance=10.0),
}
AE = Source(f"{HUB}schnell", "ae.safetensors", ("AE", "FLUX_AE"), "--ae", ("vae",))
T5 = Source("google/t5-v1_1-xxl", None, ("FLUX_T5",), "--t5", ("text_encoder_2",))
REDUX = Source(f"{HUB}Redux-dev", "flux1-redux-dev.safetensors", ("FLUX_REDUX",), "--redux")
SIGLIP = Source("google/siglip-so400m-patch14-384", None, ("FLUX_SIGLIP",), "--siglip")
CLIP = Source("openai/clip-vit-large-patch14", None, ("FLUX_CLIP",), "--clip", ("text_encoder",))
