"""Training a DiT: `train.py`'s data, optimisers, timesteps and files."""
