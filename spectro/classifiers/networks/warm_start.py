"""The head as a regularised logistic regression on the features that a network has before training."""

import numpy as np
import torch
from torch import Tensor

from spectro.classifiers.inner_cv import choose
from spectro.classifiers.networks.losses import LossFunction
from spectro.classifiers.networks.module import Network

# Inverse regularisation strengths, for features of a total variance of 1, the simplest model first.
_CANDIDATES = (1.0, 10.0, 100.0)
_STEPS = 200


def warm_start(
    network: Network, features: Tensor, labels: Tensor, groups: np.ndarray, loss: LossFunction, *, seed: int
) -> None:
    """Sets the head to the minimum of the loss of all training records and a ridge, and the ridge of the network.

    With cross-entropy that is logistic regression: loss + |W|^2 / (2 C n). C is chosen by cross-validation within the
    records. The minimum is that of training too, as long as features stay as they are.

    Args:
        features: Of the training records ``(n, d)``.
        labels: Column numbers ``(n,)``.
        groups: What stays together in a fold ``(n,)``.
    """
    n, n_classes = len(features), network.head.out_features
    mean = features.mean(dim=0)
    centred = (features - mean).double()
    variance = centred.square().sum().item() / n or 1.0
    # Solutions are combinations of records: as many coordinates as there are records are enough, whatever d is.
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    seen = values > 1e-9 * values[-1].clamp_min(1e-30)
    roots = values[seen].sqrt()
    coordinates, back = (vectors[:, seen] * roots).float(), centred.T @ (vectors[:, seen] / roots)

    def fitted(C: float, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(rows).to(features.device)
        x, y, ridge = coordinates[index], labels[index], variance / (2 * C * len(rows))
        weight = torch.zeros(n_classes, x.shape[1], device=x.device, requires_grad=True)
        bias = torch.zeros(n_classes, device=x.device, requires_grad=True)
        solver = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            solver.zero_grad()
            value = loss(x @ weight.T + bias, y) + ridge * weight.square().sum()
            value.backward()
            return value

        solver.step(closure)
        return weight.detach(), bias.detach()

    def predict(C: float, train: np.ndarray, new: np.ndarray) -> np.ndarray:
        weight, bias = fitted(C, train)
        scores = coordinates[torch.from_numpy(new).to(features.device)] @ weight.T + bias
        return scores.argmax(dim=1).cpu().numpy()

    C = choose(_CANDIDATES, predict, labels.cpu().numpy(), groups, seed)
    weight, bias = fitted(C, np.arange(n))
    weight = (weight.double() @ back.T).float()
    with torch.no_grad():
        network.head.weight.copy_(weight)
        network.head.bias.copy_(bias - weight @ mean)
        network.ridge.fill_(variance / (2 * C * n))
