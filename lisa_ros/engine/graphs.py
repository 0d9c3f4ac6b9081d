"""CUDA graphs: a function of tensors that costs one launch instead of hundreds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

KEPT = 32  # graphs of one function; the least recently used are dropped


@dataclass(eq=False)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor


class Graphed:
    """A function that is captured once per input shape and replayed afterwards.

    The function must not synchronise, and must read and write the same memory each time. Its output
    is overwritten by the next call with the same shapes. Each `Graphed` has a memory pool of its
    own, so that two of them may run on two streams.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self.function, self.device = function, device
        self.captured: OrderedDict[Hashable, _Captured] = OrderedDict()
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, *inputs: Tensor, key: Hashable = None) -> Tensor:
        """The function of the inputs; `key` tells apart what shapes do not: other memory."""
        with torch.cuda.device(self.device):
            return self._replay(inputs, key)

    def _replay(self, inputs: tuple[Tensor, ...], key: Hashable) -> Tensor:
        name = (key, tuple((t.shape, t.dtype) for t in inputs))
        found = self.captured.get(name)
        if found is None:
            found = self.captured[name] = self._capture(inputs)
            if len(self.captured) > KEPT:
                self.captured.popitem(last=False)
        self.captured.move_to_end(name)
        for static, given in zip(found.inputs, inputs, strict=True):
            static.copy_(given, non_blocking=True)
        found.graph.replay()
        return found.output

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Captured:
        static = [t.clone() for t in inputs]
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):  # the first runs choose kernels and allocate their workspaces
            for _ in range(2):
                self.function(*static)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            output = self.function(*static)
        return _Captured(graph, static, output)
