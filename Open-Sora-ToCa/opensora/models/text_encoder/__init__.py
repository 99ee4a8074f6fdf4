from opensora.models.text_encoder.t5 import T5Encoder

__all__ = ["T5Encoder"]
