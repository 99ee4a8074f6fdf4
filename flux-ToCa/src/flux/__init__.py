"""FLUX, the rectified-flow transformer of Black Forest Labs, with feature caching."""

try:
    import toca.planning  # noqa: F401
except ImportError as error:
    raise ImportError("the engine is missing: pip install -e common (PyPI's package `toca` is another one)") from error
