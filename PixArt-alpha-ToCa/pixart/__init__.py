"""PixArt-alpha with feature caching: text to image."""
