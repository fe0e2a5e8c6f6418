"""Small models that adapt: a classifier with batch and group norm, and a detector of fixed queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sightline.rtdetr_pose.ttt import AdaptSpec, Guards


class Classifier(nn.Sequential):
    def __init__(self, num_classes: int = 5, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, num_classes),
        )
        with torch.no_grad():
            self[-1].weight.mul_(2.0)
            self[1].running_mean.uniform_(-0.1, 0.1)
            self[1].running_var.uniform_(0.5, 1.5)


class Detector(nn.Module):
    """Four queries look at the four quarters of a picture."""

    def __init__(self, num_classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, num_classes)
        self.box = nn.Linear(16, 4)
        nn.init.normal_(self.head.weight, std=1.5)
        nn.init.zeros_(self.box.weight)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = nn.functional.adaptive_avg_pool2d(self.norm(self.stem(x)).relu(), 2)
        queries = features.flatten(2).transpose(1, 2)
        centers = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]).to(x)
        anchors = torch.cat([centers, torch.full((4, 2), 0.4).to(x)], -1)
        return {
            "logits": self.head(queries),
            "bbox": (anchors.logit() + self.box(queries)).sigmoid(),
            "log_z": queries[..., :1],
        }


def pictures(number: int = 4, seed: int = 1, size: int = 8) -> Tensor:
    return torch.rand(number, 3, size, size, generator=torch.Generator().manual_seed(seed))


def bare(**values: object) -> AdaptSpec:
    """A stream without guards, unless told otherwise."""
    return AdaptSpec(**{"lr": 1e-3, "reset": "stream", "guards": Guards.off(), **values})


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
