"""Gaussian diffusion: DDPM with learned variance (Nichol & Dhariwal 2021), DDIM (Song et al. 2021), and the training loss of DiT.

Step i counts down from S - 1 (most noise) to 0. With kept timesteps tau_i: abar_i = abar(tau_i), beta_i = 1 - abar_i / abar_{i-1}.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

Model = Callable[..., Tensor]  # (R, C, H, W), (R,) original timesteps -> (R, 2C, H, W): noise and variance interpolation
NoiseFunction = Callable[[int, torch.Size], Tensor]  # (step index i, shape) -> standard normal draws
Step = dict[str, Any]


def linear_betas(num_timesteps: int) -> np.ndarray:
    """Ho et al.'s schedule, 1e-4 to 0.02 over 1000 timesteps, with the ends scaled for other counts. float64."""
    scale = 1000 / num_timesteps
    return np.linspace(scale * 1e-4, scale * 0.02, num_timesteps, dtype=np.float64)


def squaredcos_betas(num_timesteps: int) -> np.ndarray:
    """Nichol & Dhariwal's cosine schedule, betas capped at 0.999."""
    abar = np.cos((np.arange(num_timesteps + 1) / num_timesteps + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - abar[1:] / abar[:-1], 0.999)


class GaussianDiffusion:
    """The sampler over a subset of the original timesteps.

    timestep_map: original timestep of every step i, ascending. Tables are float64 numpy arrays; they become float32 tensors once per
    device, so that the sampling loop never waits for the host.
    """

    def __init__(self, betas: np.ndarray, timestep_map: Sequence[int]) -> None:
        self.timestep_map = list(timestep_map)
        self.num_timesteps = len(self.timestep_map)
        self.alphas_cumprod = np.cumprod(1 - betas)[self.timestep_map]
        self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])
        self.betas = 1 - self.alphas_cumprod / self.alphas_cumprod_prev
        self.posterior_variance = self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)
        clipped = np.append(self.posterior_variance[min(1, self.num_timesteps - 1)], self.posterior_variance[1:])
        self.posterior_log_variance_clipped = np.log(np.maximum(clipped, 1e-20))
        self.posterior_mean_coef1 = self.betas * np.sqrt(self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)
        self.posterior_mean_coef2 = (1 - self.alphas_cumprod_prev) * np.sqrt(1 - self.betas) / (1 - self.alphas_cumprod)
        self.sqrt_alphas_cumprod = np.sqrt(self.alphas_cumprod)
        self.sqrt_one_minus_alphas_cumprod = np.sqrt(1 - self.alphas_cumprod)
        self.sqrt_recip_alphas_cumprod = np.sqrt(1 / self.alphas_cumprod)
        self.sqrt_recipm1_alphas_cumprod = np.sqrt(1 / self.alphas_cumprod - 1)
        self._tensors: dict[tuple[str, torch.device], Tensor] = {}

    def at(self, table: str, t: Tensor) -> Tensor:
        """Entries of a named table at step indices t (R,), as float32 (R, 1, 1, 1)."""
        key = (table, t.device)
        if key not in self._tensors:
            values = np.asarray(self.timestep_map if table == "timestep_map" else getattr(self, table))
            self._tensors[key] = torch.from_numpy(values if table == "timestep_map" else values.astype(np.float32)).to(t.device)
        return self._tensors[key][t].view(-1, 1, 1, 1)

    def predict_xstart(self, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return self.at("sqrt_recip_alphas_cumprod", t) * x - self.at("sqrt_recipm1_alphas_cumprod", t) * eps

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise"""
        return self.at("sqrt_alphas_cumprod", t) * x_start + self.at("sqrt_one_minus_alphas_cumprod", t) * noise

    def posterior_mean(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return self.at("posterior_mean_coef1", t) * x_start + self.at("posterior_mean_coef2", t) * x_t

    def log_variance(self, v: Tensor, t: Tensor) -> Tensor:
        """Learned interpolation between the posterior's log variance (v = -1) and ln beta (v = 1)."""
        low, high = self.at("posterior_log_variance_clipped", t), self.at("betas", t).log()
        return low + (v + 1) / 2 * (high - low)

    # ---- sampling -----------------------------------------------------------------------------------------------------------------

    def p_sample_loop(self, model: Model, shape: torch.Size, noise: Tensor | None = None, **options: Any) -> Tensor:
        """DDPM. Returns the final latents (R, C, H, W); for the options see `p_sample_loop_progressive`."""
        return _last(self.p_sample_loop_progressive(model, shape, noise, **options))

    def ddim_sample_loop(self, model: Model, shape: torch.Size, noise: Tensor | None = None, **options: Any) -> Tensor:
        """DDIM. Returns the final latents (R, C, H, W); for the options see `ddim_sample_loop_progressive`."""
        return _last(self.ddim_sample_loop_progressive(model, shape, noise, **options))

    def p_sample_loop_progressive(self, model: Model, shape: torch.Size, noise: Tensor | None = None, **options: Any) -> Iterator[Step]:
        """One dict per step: `i`, `model_out`, `pred_xstart`, `sample`.

        Options: clip_denoised (x_0 into [-1, 1]), model_kwargs, device, progress, noise_fn (draws for step i; default torch.randn),
        upstream_noise (draw at the last step too, although nothing reads it, as upstream's random stream has it).
        """

        def update(x: Tensor, t: Tensor, pred: Tensor, v: Tensor, draws: Tensor | None) -> Tensor:
            mean = self.posterior_mean(pred, x, t)
            return mean if draws is None else mean + (0.5 * self.log_variance(v, t)).exp() * draws

        return self._loop(update, model, shape, noise, noisy=True, **options)

    def ddim_sample_loop_progressive(
        self, model: Model, shape: torch.Size, noise: Tensor | None = None, eta: float = 0.0, **options: Any
    ) -> Iterator[Step]:
        """As `p_sample_loop_progressive`; eta 0 is deterministic and draws nothing (unless upstream_noise), eta 1 is like DDPM."""

        def update(x: Tensor, t: Tensor, pred: Tensor, v: Tensor, draws: Tensor | None) -> Tensor:
            eps = (self.at("sqrt_recip_alphas_cumprod", t) * x - pred) / self.at("sqrt_recipm1_alphas_cumprod", t)
            previous, variance = self.at("alphas_cumprod_prev", t), eta**2 * self.at("posterior_variance", t)
            mean = previous.sqrt() * pred + (1 - previous - variance).sqrt() * eps
            return mean if draws is None else mean + variance.sqrt() * draws

        return self._loop(update, model, shape, noise, noisy=eta > 0, **options)

    def _loop(
        self,
        update: Callable[..., Tensor],
        model: Model,
        shape: torch.Size,
        noise: Tensor | None,
        *,
        noisy: bool,
        clip_denoised: bool = False,
        model_kwargs: dict | None = None,
        device: torch.device | None = None,
        progress: bool = False,
        noise_fn: NoiseFunction | None = None,
        upstream_noise: bool = False,
    ) -> Iterator[Step]:
        device = noise.device if noise is not None else device
        draw_noise = noise_fn or (lambda i, shape: torch.randn(*shape, device=device))
        x = noise if noise is not None else draw_noise(self.num_timesteps, torch.Size(shape))
        for i in tqdm(range(self.num_timesteps - 1, -1, -1), disable=not progress, desc="sampling"):
            t = torch.full((shape[0],), i, device=x.device)
            with torch.no_grad():
                out = model(x, self.at("timestep_map", t).flatten(), **(model_kwargs or {}))
                eps, v = out.float().chunk(2, dim=1)
                pred = self.predict_xstart(x, t, eps)
                pred = pred.clamp(-1, 1) if clip_denoised else pred
                draws = draw_noise(i, x.shape) if upstream_noise or (noisy and i > 0) else None
                x = update(x, t, pred, v, draws if noisy and i > 0 else None)
            yield dict(i=i, model_out=out, pred_xstart=pred, sample=x)

    # ---- training -----------------------------------------------------------------------------------------------------------------

    def training_losses(
        self, model: Model, x_start: Tensor, t: Tensor, model_kwargs: dict | None = None, noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Per-image `loss` = `mse` + `vb` (R,): noise error plus the variational term in bits per dimension, for the variance only.

        x_start: (R, C, H, W); t: (R,) step indices; noise: the normal draws, fresh by default.
        """
        noise = torch.randn_like(x_start) if noise is None else noise
        x_t = self.q_sample(x_start, t, noise)
        eps, v = model(x_t, self.at("timestep_map", t).flatten(), **(model_kwargs or {})).float().chunk(2, dim=1)
        mse = (noise - eps).square().flatten(1).mean(dim=1)
        vb = self._variational_bound(x_start, x_t, t, eps.detach(), v)
        return dict(loss=mse + vb, mse=mse, vb=vb)

    def _variational_bound(self, x_start: Tensor, x_t: Tensor, t: Tensor, eps: Tensor, v: Tensor) -> Tensor:
        mean, log_variance = self.posterior_mean(self.predict_xstart(x_t, t, eps), x_t, t), self.log_variance(v, t)
        true_mean, true_log_variance = self.posterior_mean(x_start, x_t, t), self.at("posterior_log_variance_clipped", t)
        kl = normal_kl(true_mean, true_log_variance, mean, log_variance)
        nll = -discretised_gaussian_log_likelihood(x_start, mean, 0.5 * log_variance)
        return torch.where(t == 0, nll.flatten(1).mean(dim=1), kl.flatten(1).mean(dim=1)) / math.log(2)


def normal_kl(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
    """KL(N(mean1, exp logvar1) || N(mean2, exp logvar2)) in nats, elementwise."""
    return 0.5 * (logvar2 - logvar1 - 1 + (logvar1 - logvar2).exp() + (mean1 - mean2).square() * (-logvar2).exp())


def discretised_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """ln of the mass that N(mean, exp(log_scale)^2) puts on the 1/255-wide bin around x; the bins beyond +-0.999 are open."""

    def cdf(z: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    inverse = (-log_scale).exp()
    above, below = cdf(inverse * (x - mean + 1 / 255)), cdf(inverse * (x - mean - 1 / 255))
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return mass.clamp_min(1e-12).log()


def _last(steps: Iterator[Step]) -> Tensor:
    return deque(steps, maxlen=1).pop()["sample"]
