"""The gradient of a whole batch from micro-batches, for losses that couple the samples of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gence.losses._column_scores import without_autocast

__all__ = ["accumulated_backward"]

# Kernels with and without gradient may round differently, but by less than this; another dropout mask changes more.
SAME = 0.05


def accumulated_backward(
    network: nn.Module,
    micro_batches: Sequence,
    targets: Sequence[Tensor],
    loss: Callable[..., Tensor],
    *,
    forward: Callable[..., Tensor] | None = None,
    sample_weights: Sequence[Tensor] | None = None,
    scale: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Add the gradient of the loss of all micro-batches together, as one batch, to the ``grad`` of the parameters.

    The mean of GenCE over micro-batches is another loss: each would have column sums of its own. Here a first pass
    computes all logits without gradient, the loss of them all is differentiated with respect to them, and a second
    pass takes that gradient through the network. That costs one more forward pass than plain accumulation, and the
    memory of one micro-batch's activations and of all logits.

    The second pass repeats the first, with the same random numbers of torch (CPU and CUDA) and from the same buffers:
    dropout draws the same masks, and running statistics move once. Batch-norm normalises over each micro-batch, as in
    plain accumulation. Works under autocast.

    Args:
        network: maps a micro-batch to logits, (n, K) or (n, K, d1, ...), unless `forward` does.
        micro_batches: what `network` or `forward` takes, for example tensors, tuples or dicts, of any sizes.
        targets: for each micro-batch its target, as the loss takes it.
        loss: of the whole batch, with reduction ``"mean"`` or ``"sum"``; called once.
        forward: a function that calls the network, for example ``lambda batch: network(**batch).logits``.
        sample_weights: for each micro-batch its sample weights.
        scale: applied to the loss before it is differentiated, for example ``torch.amp.GradScaler().scale``.

    Returns:
        The loss of the whole batch, not scaled and without gradient.

    Raises:
        ValueError: no micro-batches, not as many targets or sample weights, logits without a batch dimension, or a
            loss that is not one number.
        TypeError: `network` is no module, or what should be logits no tensor.
        RuntimeError: the second pass gave other logits, so the gradients are wrong: do not take the step.

    Source: the gradient cache of Gao, Zhang, Han and Callan (2021), arXiv:2101.06983.

    Example:
        >>> import torch
        >>> from gence.losses import GenCELoss
        >>> network, x, y = torch.nn.Linear(5, 3), torch.randn(8, 5), torch.arange(8) % 3
        >>> value = accumulated_backward(network, x.split(2), y.split(2), GenCELoss())
        >>> whole = GenCELoss()(network(x), y)
        >>> gradient = torch.autograd.grad(whole, network.weight)[0]
        >>> torch.allclose(value, whole), torch.allclose(network.weight.grad, gradient, atol=1e-6)
        (True, True)
    """
    if not isinstance(network, nn.Module):  # a function would hide the buffers
        kind = type(network).__name__
        raise TypeError(f"network must be a module, but is a {kind}. Give the module, and a function as forward=...")
    forward = network if forward is None else forward
    micro_batches = list(micro_batches)
    _check_numbers(len(micro_batches), targets=targets, sample_weights=sample_weights)
    states, leaves = [], []
    with torch.no_grad(), _buffers_put_back(network):
        for batch in micro_batches:
            states.append(_random_state())
            leaves.append(_checked(forward(batch)).detach().requires_grad_())
    torch.clear_autocast_cache()  # or some versions of torch would give the second pass weights without gradient
    options = {} if sample_weights is None else {"sample_weight": torch.cat(list(sample_weights))}
    value = loss(torch.cat(leaves), torch.cat(list(targets)), **options)
    if value.dim() > 0:
        shape = tuple(value.shape)
        raise ValueError(f"the loss must be one number, but has the shape {shape}. Use reduction='mean' or 'sum'.")
    with without_autocast(value):
        (value if scale is None else scale(value)).backward()

    changes = []
    for batch, state, leaf in zip(micro_batches, states, leaves, strict=True):
        torch.set_rng_state(state[0])
        torch.cuda.set_rng_state_all(state[1])
        logits = forward(batch)
        with without_autocast(logits):
            logits.backward(leaf.grad)
        changes.append(_change(logits.detach(), leaf.detach()))
    worst = torch.stack(changes).amax().item()  # one look, at the end: a GPU waits for each
    if worst > SAME:
        raise RuntimeError(
            f"the network gave other logits in the second pass (relative change {worst:.2g}), so the gradients are "
            "wrong: set them to zero. What is random must come from torch, and what it remembers be in buffers."
        )
    return value.detach()


def _check_numbers(n: int, **lists: Sequence[Tensor] | None) -> None:
    if n == 0:
        raise ValueError("there are no micro-batches. Give one or more, for example x.split(32).")
    for name, values in lists.items():
        if values is not None and len(values) != n:
            raise ValueError(
                f"{n} micro-batches need {n} {name}, one tensor each, but there are {len(values)}. "
                "Split both in the same way, for example x.split(32) and y.split(32)."
            )


def _checked(logits: Tensor) -> Tensor:
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"logits must be a tensor, but are a {type(logits).__name__}. "
            "Use a function that picks them, for example forward=lambda batch: network(batch).logits."
        )
    if logits.dim() < 2:
        raise ValueError(
            f"a micro-batch must give logits (n, K) or (n, K, d1, ...), but gave the shape {tuple(logits.shape)}. "
            "Give a list of micro-batches, for example x.split(32), not a tensor."
        )
    return logits


@contextmanager
def _buffers_put_back(network: nn.Module) -> Iterator[None]:
    kept = [
        (module, name, buffer, buffer.clone())
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if not nn.parameter.is_lazy(buffer)
    ]
    try:
        yield
    finally:
        for module, name, buffer, value in kept:
            setattr(module, name, buffer.copy_(value))


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _change(again: Tensor, first: Tensor) -> Tensor:
    """Of logits, relative to their size; masked classes (-inf) and NaN aside."""
    change, size = (x.float().nan_to_num(0.0, 0.0, 0.0).norm() for x in (again - first, first))
    return change / size.clamp_min(torch.finfo(torch.float32).tiny)
