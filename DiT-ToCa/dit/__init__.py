"""DiT with token-wise feature caching: `spec` and `flags` need no torch; `pipeline` makes pictures of class labels."""

try:
    import toca.planning  # noqa: F401
except ImportError as error:
    raise ImportError("the engine is missing: pip install -e common (PyPI's package `toca` is another one)") from error
