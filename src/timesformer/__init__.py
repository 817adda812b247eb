"""TimeSformer: video understanding by self-attention over space and time (Bertasius, Wang and Torresani, ICML 2021)."""

from timesformer.model.image_init import init_from_vit
from timesformer.model.timesformer import ModelConfig, TimeSformer
from timesformer.model.variants import create_model
from timesformer.model.weights import load_model
from timesformer.predictor import VideoClassifier

__version__ = "0.1.0"
__all__ = ["ModelConfig", "TimeSformer", "VideoClassifier", "create_model", "init_from_vit", "load_model"]
