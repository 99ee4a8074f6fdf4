from opensora.models.vae.vae import OpenSoraVAE_V1_2, VideoAutoencoderKL, VideoAutoencoderPipeline
from opensora.models.vae.vae_temporal import VAE_Temporal

__all__ = ["OpenSoraVAE_V1_2", "VAE_Temporal", "VideoAutoencoderKL", "VideoAutoencoderPipeline"]
