"""FLUX, the rectified-flow transformer of Black Forest Labs, with feature caching."""
