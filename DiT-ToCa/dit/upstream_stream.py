"""The random stream of the published programs, so that their images can be made again."""

from __future__ import annotations

import torch
from torch import Tensor

from dit.sampler import Sampler


class UpstreamStream:
    """One generator for everything, as one process of upstream has it.

    Per iteration it gives the latents (n, C, H, W), then (unless the labels are given) labels (n,), then at every step one normal draw for
    every row of the batch, both guidance halves, also where nothing reads it: at the last step, and in DDIM. So an image depends on the
    batch size, the number of processes and the device. Token selection (cache types random, compress) draws elsewhere, unlike upstream's.

    always_guided: upstream's sample.py runs two rows per image even at guidance 1.
    """

    def __init__(self, sampler: Sampler, seed: int, batch: int, device: torch.device, always_guided: bool = False) -> None:
        self.sampler, self.device = sampler, device
        self.generator = torch.Generator(device).manual_seed(seed % 2**64)
        self.latents = (batch, *sampler.input_shape)
        self.rows = 2 * batch if sampler.guided or always_guided else batch
        self.iteration = 0

    def sample(self, iteration: int = 0, labels: Tensor | None = None) -> Tensor:
        """Latents (n, C, H, W) of an iteration. Those before it that were not sampled draw their numbers all the same.

        Raises ValueError if the stream is past that iteration.
        """
        if iteration < self.iteration:
            raise ValueError(f"the stream is past iteration {iteration}")
        while self.iteration < iteration:
            self._begin(labels)
            for _ in range(self.sampler.diffusion.num_timesteps):
                self._noise()
            self.iteration += 1
        z, labels = self._begin(labels)
        self.iteration += 1
        return self.sampler.run(labels, z, noise=lambda step: self._noise(), upstream_noise=True)

    def _begin(self, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        z = torch.randn(self.latents, generator=self.generator, device=self.device)
        if labels is None:
            classes = self.sampler.model.num_classes
            labels = torch.randint(0, classes, (len(z),), generator=self.generator, device=self.device)
        return z, labels

    def _noise(self) -> Tensor:
        draws = torch.randn(self.rows, *self.latents[1:], generator=self.generator, device=self.device)
        return draws[: self.latents[0]]  # the rest belongs to the unconditional half, which never reaches the image
