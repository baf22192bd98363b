"""LeNet's training in PyTorch: the only import of it."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from genokit.errors import MissingDependency
from genokit.train.digits import Digits
from genokit.train.network import SHAPES, Weights, crops, in_parts, padded
from genokit.train.parameters import Parameters


class TorchEngine:
    """The network as a function of its eight weights, with MXNet's rule of momentum; on a GPU one CUDA graph a step."""

    def __init__(self, p: Parameters, digits: Digits, weights: Weights, momentum: Weights) -> None:
        self.torch = torch = load()
        if p.device == "gpu" and not torch.cuda.is_available():
            raise MissingDependency(
                "device='gpu', but PyTorch finds no GPU that it can use. Check nvidia-smi and torch.version.cuda, use "
                "device='cpu', or send the training to a GPU machine with train.submit(..., queue='gpu', gpus=1)."
            )
        torch.set_num_threads(p.threads)
        torch.backends.cudnn.deterministic = True
        if p.workers > 1:
            torch.distributed.init_process_group("nccl" if p.device == "gpu" else "gloo")
            atexit.register(torch.distributed.destroy_process_group)
        self.parameters = p
        self.device = torch.device("cuda" if p.device == "gpu" else "cpu")
        self.images = self._there(padded(digits.images, p.shift))  # uint8
        self.side = torch.arange(28, device=self.device) + p.shift
        self.labels = self._there(digits.labels.astype(np.int64))
        self.own = [self._there(weights[name]).requires_grad_() for name in SHAPES]
        self.moments = [self._there(momentum[name]) for name in SHAPES]
        self.totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        self._graphed: Callable[[Any, Any, float], None] | None = None

    def step(self, rows: np.ndarray, shifts: np.ndarray | None, rate: float, batch: int) -> None:
        there = self.torch.from_numpy(rows).to(self.device)
        moved = None if shifts is None else self.torch.from_numpy(shifts).to(self.device)
        if self.device.type == "cuda" and batch == self.parameters.batch_size:
            self._graphed = self._graphed or self._captured(there, moved)
            self._graphed(there, moved, rate)
        else:
            self._update(there, moved, self.torch.tensor(rate, device=self.device), batch)

    def _update(self, rows: Any, shifts: Any, rate: Any, batch: int) -> None:
        torch, p = self.torch, self.parameters
        labels = self.labels[rows]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=p.precision == "bfloat16"):
            out = self._forward(crops(self.images, rows, shifts, self.side))  # (B, 10)
        loss = torch.nn.functional.cross_entropy(out.float(), labels, reduction="sum")
        gradients = torch.autograd.grad(loss, self.own)
        with torch.no_grad():
            if p.workers > 1:  # in one message
                flat = torch.cat([each.flatten() for each in gradients])
                torch.distributed.all_reduce(flat)
                parts = flat.split([each.numel() for each in gradients])
                gradients = [part.view_as(each) for part, each in zip(parts, gradients, strict=True)]
            # As MXNet's sgd_mom_update: the learning rate goes into the momentum.
            torch._foreach_div_(gradients, batch)
            torch._foreach_add_(gradients, self.own, alpha=p.weight_decay)
            torch._foreach_mul_(gradients, rate)
            torch._foreach_mul_(self.moments, p.momentum)
            torch._foreach_sub_(self.moments, gradients)
            torch._foreach_add_(self.own, self.moments)
            self.totals += torch.stack([torch.ones_like(labels).sum(), loss, (out.argmax(1) == labels).sum()])

    def _captured(self, rows: Any, shifts: Any) -> Callable[[Any, Any, float], None]:
        """The step as one CUDA graph, which costs one launch instead of some fifty."""
        torch, p = self.torch, self.parameters
        still = [each.clone() for each in (*self.own, *self.moments, self.totals)]
        at, moved, rate = rows.clone(), None if shifts is None else shifts.clone(), torch.zeros((), device=self.device)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):  # cuDNN and cuBLAS choose and reserve before the capture
                self._update(at, moved, rate, p.batch_size)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._update(at, moved, rate, p.batch_size)
        with torch.no_grad():
            for each, was in zip((*self.own, *self.moments, self.totals), still, strict=True):
                each.copy_(was)

        def replay(rows: Any, shifts: Any, now: float) -> None:
            at.copy_(rows)
            rate.fill_(now)
            if moved is not None:
                moved.copy_(shifts)
            graph.replay()

        return replay

    def _forward(self, images: Any) -> Any:
        """uint8 (B, 28, 28) -> float32 (B, 10)."""
        f = self.torch.nn.functional
        x = images[:, None].float() * (1 / 255)
        w1, b1, w2, b2, w3, b3, w4, b4 = self.own
        x = f.max_pool2d(f.conv2d(x, w1, b1).tanh(), 2)  # (B, 20, 12, 12)
        x = f.max_pool2d(f.conv2d(x, w2, b2).tanh(), 2)  # (B, 50, 4, 4)
        return f.linear(f.linear(x.flatten(1), w3, b3).tanh(), w4, b4)

    def sums(self) -> np.ndarray:
        sums = self.totals.cpu().numpy().copy()
        self.totals.zero_()
        return np.asarray(sums)

    def total(self, numbers: np.ndarray) -> np.ndarray:
        if self.parameters.workers == 1:
            return numbers
        there = self._there(numbers)
        self.torch.distributed.all_reduce(there)
        return np.asarray(there.cpu().numpy())

    def weights(self) -> Weights:
        return {name: one.detach().cpu().numpy().copy() for name, one in zip(SHAPES, self.own, strict=True)}

    def momentum(self) -> Weights:
        return {name: one.cpu().numpy().copy() for name, one in zip(SHAPES, self.moments, strict=True)}

    def logits(self, images: np.ndarray) -> np.ndarray:
        with self.torch.no_grad():
            return in_parts(lambda part: self._forward(self._there(part)).cpu().numpy(), images)

    def _there(self, array: np.ndarray) -> Any:
        return self.torch.from_numpy(array.copy()).to(self.device)


def load() -> ModuleType:
    """PyTorch; raises MissingDependency where it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(
            "engine='torch' needs PyTorch, which is not installed here. Install it with: pip install 'genokit[torch]', "
            "or use engine='mxnet'."
        ) from error
    return torch  # type: ignore[no-any-return]
