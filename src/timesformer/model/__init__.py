"""The model: attention schemes, the Transformer, the named variants, weights on disk."""
