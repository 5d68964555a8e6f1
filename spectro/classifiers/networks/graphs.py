"""Training steps as CUDA graphs: with small batches a GPU waits for Python, but not in a captured step."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

log = logging.getLogger("spectro")

# What a training step is: images, labels -> the loss.
Step = Callable[[Tensor, Tensor], Tensor]
_WARM_UPS = 3


class CapturedStep:
    """A training step that is captured once for each size of batch and then replayed.

    The step must keep all its tensors on the device and its optimizer must be capturable. Where capturing fails, steps
    run one operation at a time, after a warning.

    Args:
        step: Computes the loss and its gradients and changes the weights of the network and the optimizer's state.
    """

    def __init__(self, step: Step, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device):
        self._step, self._network, self._optimizer, self._device = step, network, optimizer, device
        self._captured: dict[int, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}
        self._failed = False

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step; the loss is overwritten by the next one."""
        if self._failed:
            return self._step(images, labels)
        if len(images) not in self._captured:
            try:
                self._captured[len(images)] = self._capture(images, labels)
            except RuntimeError as error:
                self._failed = True
                log.warning(
                    "the training step could not be captured as a CUDA graph and runs slower (%s)",
                    str(error).strip().split("\n")[0],
                )
                return self._step(images, labels)
        graph, inputs, loss = self._captured[len(images)]
        for static, tensor in zip(inputs, (images, labels), strict=True):
            static.copy_(tensor)
        graph.replay()
        return loss

    def _capture(self, *tensors: Tensor) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]:
        """Runs the step a few times and records it, and then restores what that has changed."""
        inputs = tuple(tensor.clone() for tensor in tensors)
        changed = [*self._network.parameters(), *self._network.buffers(), *self._state()]
        before = [tensor.detach().clone() for tensor in changed]
        rng_state = torch.cuda.get_rng_state(self._device)
        try:
            stream = torch.cuda.Stream(self._device)
            stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    self._step(*inputs)
            torch.cuda.current_stream(self._device).wait_stream(stream)
            # Gradients that are None at the capture are written by each replay, others would be added to.
            self._optimizer.zero_grad(set_to_none=True)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loss = self._step(*inputs).detach()
        finally:
            torch.cuda.synchronize(self._device)
            with torch.no_grad():
                for tensor, value in zip(changed, before, strict=True):
                    tensor.copy_(value)
                known = {id(tensor) for tensor in changed}
                for tensor in self._state():
                    # State that the warm-up steps created starts from zero: moments, and the number of steps.
                    if id(tensor) not in known:
                        tensor.zero_()
            torch.cuda.set_rng_state(rng_state, self._device)
        return graph, inputs, loss

    def _state(self) -> list[Tensor]:
        return [t for values in self._optimizer.state.values() for t in values.values() if isinstance(t, Tensor)]
