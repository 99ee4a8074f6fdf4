"""PixArt-alpha with feature caching: text to image."""

try:
    import toca.planning  # noqa: F401
except ImportError as error:
    raise ImportError("the engine is missing: pip install -e common (PyPI's package `toca` is another one)") from error
