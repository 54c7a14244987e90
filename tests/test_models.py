from __future__ import annotations

import pytest
import torch

from gence.models import MLP, make_model, model_names

over_names = pytest.mark.parametrize("name", model_names())


def flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@over_names
def test_the_seed_alone_fixes_the_weights(name: str) -> None:
    torch.manual_seed(0)
    a = make_model(name, 8, 3, seed=7)
    torch.manual_seed(1)
    torch.rand(5)
    b = make_model(name, 8, 3, seed=7)
    assert torch.equal(flat(a), flat(b))
    assert not torch.isclose(flat(a), flat(make_model(name, 8, 3, seed=8))).any()


@over_names
def test_the_global_random_state_is_left_alone(name: str) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    make_model(name, 8, 3, seed=7)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_random_state_of_the_gpus_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    make_model("mlp", 8, 3, seed=7)
    assert seeded == []


@over_names
def test_the_weights_are_pytorch_s_default_in_the_dtype_asked_for(name: str) -> None:
    torch.manual_seed(7)
    layers = [(8, 64), (64, 3)] if name == "mlp" else [(8, 3)]
    expected = torch.cat([flat(torch.nn.Linear(*sizes)) for sizes in layers])
    assert torch.equal(flat(make_model(name, 8, 3, seed=7)), expected.double())
    assert torch.equal(flat(make_model(name, 8, 3, seed=7, dtype=torch.float32)), expected)


def test_mlp_is_relu_between_affine_maps() -> None:
    model = MLP(5, 3, hidden=(4, 6))
    weights = [p.detach() for p in model.parameters()]
    h = x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    for w, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        h = (h @ w.T + b).clamp_min(0)
    torch.testing.assert_close(model(x), h @ weights[-2].T + weights[-1])


def test_linear_is_affine() -> None:
    model = make_model("linear", 5, 3, seed=0)
    x, y = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(0.3 * x + 0.7 * y), 0.3 * model(x) + 0.7 * model(y))


def test_unknown_model() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'mpl'.*mlp, linear"):
        make_model("mpl", 8, 3, seed=0)
