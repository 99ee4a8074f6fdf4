"""Open-Sora 1.2 with feature caching: text, images and videos to video."""

try:
    import toca.planning  # noqa: F401
except ImportError as error:
    raise ImportError("the engine is missing: pip install -e common (PyPI's package `toca` is another one)") from error
