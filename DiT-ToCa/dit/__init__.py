"""DiT with token-wise feature caching: `spec` and `flags` need no torch; `pipeline` makes pictures of class labels."""
