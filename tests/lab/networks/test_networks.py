from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from drawing import drawn, others_thorough
from torch import nn
from torch.nn import functional as F

from gence.lab import networks
from gence.lab.networks import MLP, architectures, flops, make_model, model_info, model_names, parameter_count

FLAT = tuple(name for name in model_names() if not model_info(name).smallest)
IMAGE = tuple(name for name in model_names() if name not in FLAT)
# One of each kind, small enough to be built and run for real; the others run on shapes alone (the meta device).
SMALL = ("small_cnn", "vgg5", "resnet20_he", "densenet121")

over_names = pytest.mark.parametrize("name", model_names())
over_flat = pytest.mark.parametrize("name", FLAT)
over_image = pytest.mark.parametrize("name", IMAGE)
over_some_image = pytest.mark.parametrize("name", others_thorough(IMAGE, drawn(IMAGE, 5)))
over_small = pytest.mark.parametrize("name", SMALL)


def build(name: str, seed: int = 7) -> nn.Module:
    info = model_info(name)
    return make_model(name, info.input_shape, info.n_classes, seed, dtype=torch.float32)


def on_meta(name: str, shape: tuple[int, ...], n_classes: int) -> nn.Module:
    return make_model(name, shape, n_classes, seed=0, dtype=torch.float32, device="meta")


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- Seeds, dtypes, devices ---


@pytest.mark.parametrize("name", [*FLAT, *SMALL])
def test_the_seed_alone_fixes_the_weights(name: str) -> None:
    torch.manual_seed(0)
    a = build(name)
    torch.manual_seed(1)
    torch.rand(5)
    assert torch.equal(flat(a), flat(build(name)))
    for p, q in zip(a.parameters(), build(name, seed=8).parameters(), strict=True):
        if p.dim() > 1:
            assert (p == q).double().mean() < 0.01


@pytest.mark.parametrize("name", [*FLAT, *SMALL])
def test_the_global_random_state_is_left_alone(name: str) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    build(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_default_precision_gives_the_same_weights_and_stays() -> None:
    expected = flat(make_model("mlp", 8, 3, seed=7))
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(flat(make_model("mlp", 8, 3, seed=7)), expected)
        assert torch.get_default_dtype() == torch.float64
        with pytest.raises(ValueError, match="unknown"):
            make_model("no_such_network", 8, 3, seed=7)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_random_state_of_the_gpus_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    make_model("mlp", 8, 3, seed=7)
    assert seeded == []


def test_a_default_device_changes_neither_place_nor_weights() -> None:
    with torch.device("meta"):  # any other than the CPU; this one is on every machine
        model = build("small_cnn")
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert torch.equal(flat(model), flat(build("small_cnn")))


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_the_weights_are_pytorch_s_default_in_the_dtype_asked_for(name: str) -> None:
    torch.manual_seed(7)
    layers = [(8, 64), (64, 3)] if name == "mlp" else [(8, 3)]
    expected = torch.cat([flat(nn.Linear(*sizes)) for sizes in layers])
    assert torch.equal(flat(make_model(name, 8, 3, seed=7)), expected.double())
    assert torch.equal(flat(make_model(name, 8, 3, seed=7, dtype=torch.float32)), expected)


@pytest.mark.parametrize(
    ("name", "he_init"),
    [
        ("small_cnn", None),
        ("resnet18", None),
        ("densenet121", None),
        ("resnet20_he", "fan_in"),
        ("vgg5", "fan_out"),
        ("resnet50_tiny", "fan_out"),
    ],
)
def test_the_initialisation_is_the_documented_one(name: str, he_init: str | None) -> None:
    assert model_info(name).he_init == he_init
    checked = 0
    for module in build(name).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
        if not isinstance(module, nn.Conv2d | nn.Linear) or module.weight.numel() < 4000:
            continue
        c_out, c_in = module.weight.shape[:2]
        pixels = module.weight[0, 0].numel()
        default = he_init is None or isinstance(module, nn.Linear)
        fan = c_in * pixels if default or he_init == "fan_in" else c_out * pixels
        variance = 1 / (3 * fan) if default else 2 / fan
        assert module.weight.var().item() == pytest.approx(variance, rel=0.1)
        assert (module.weight.abs().max() <= fan**-0.5) == default
        checked += 1
    assert checked >= 3


@over_small
def test_the_dtype_asked_for_is_the_dtype_of_all_floats(name: str) -> None:
    info = model_info(name)
    model = make_model(name, info.input_shape, 3, seed=0, device="meta")
    assert {t.dtype for t in model.state_dict().values()} == {torch.float64, torch.int64}


# --- Shapes ---


@over_some_image
@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (2, 33, 47), *(pytest.param((3, n, n), marks=pytest.mark.thorough) for n in (32, 64))]
)
def test_any_sensible_image_and_any_number_of_classes(name: str, shape: tuple[int, ...]) -> None:
    model = on_meta(name, shape, 7)
    assert model(torch.empty(2, *shape, device="meta")).shape == (2, 7)


@over_image
def test_a_smaller_image_than_the_smallest_is_refused(name: str) -> None:
    smallest = model_info(name).smallest
    for shape in ((3, smallest - 1, smallest), (3, smallest, smallest - 1)):
        with pytest.raises(ValueError, match=rf"'{name}' .* at least {smallest} x {smallest} pixels.*{shape[1]}"):
            make_model(name, shape, 5, seed=0)


@over_some_image
def test_the_smallest_image_uses_every_parameter_and_stretches_no_map(name: str) -> None:
    # Down to the smallest image each halving really halves, so no pixel of the last map is padding alone.
    smallest, sides = model_info(name).smallest, []
    model = on_meta(name, (3, smallest, smallest), 5)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            module.register_forward_hook(lambda m, args, out: sides.append((args[0].shape[-1], out.shape[-1])))
    model(torch.empty(8, 3, smallest, smallest, device="meta")).sum().backward()
    assert [parameter for parameter, values in model.named_parameters() if values.grad is None] == []
    assert all(out in (side, side / 2) for side, out in sides)
    assert sides[-1] == ((2, 2) if name.endswith("tiny") else (1, 1))


@pytest.mark.parametrize("shape", [8, (8,), [2, 4], torch.Size([2, 2, 2])])
@over_flat
def test_flat_models_take_any_shape(name: str, shape: object) -> None:
    model = make_model(name, shape, 3, seed=1)
    x = normal(5, 8).double()
    expected = make_model(name, 8, 3, seed=1)(x)
    torch.testing.assert_close(model(x if shape == 8 else x.reshape(5, *shape)), expected)


@pytest.mark.parametrize("shape", [64, (64,), (32, 32), (1, 3, 32, 32)])
def test_an_image_network_refuses_what_is_not_an_image(shape: object) -> None:
    with pytest.raises(
        ValueError, match=r"'resnet18' takes images.*\(C, H, W\).*64|32.*flat features are: mlp, mlp_256, linear"
    ):
        make_model("resnet18", shape, 10, seed=0)


@pytest.mark.parametrize("shape", [0, (), (3, 0, 8), -1])
@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_empty_shapes_are_refused(name: str, shape: object) -> None:
    with pytest.raises(ValueError, match=rf"at least 1, but got {re.escape(repr(shape))}"):
        make_model(name, shape, 10, seed=0)


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="n_classes must be at least 2, but got 1"):
        make_model("mlp", 8, 1, seed=0)


def test_unknown_model() -> None:
    for call in (lambda: make_model("mpl", 8, 3, seed=0), lambda: model_info("mpl")):
        with pytest.raises(
            ValueError, match=r"unknown model 'mpl'; did you mean 'mlp'\?.*mlp, mlp_256, linear.*wrn28_10.*densenet121"
        ):
            call()


# --- What the networks compute ---


def test_mlp_is_relu_between_affine_maps() -> None:
    model = MLP(5, 3, hidden=(4, 6))
    weights = [p.detach() for p in model.parameters()]
    h = x = normal(7, 5)
    for w, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        h = (h @ w.T + b).clamp_min(0)
    torch.testing.assert_close(model(x), h @ weights[-2].T + weights[-1])


def test_linear_is_affine() -> None:
    model = make_model("linear", 5, 3, seed=0)
    x, y = normal(2, 4, 5).double()
    torch.testing.assert_close(model(0.3 * x + 0.7 * y), 0.3 * model(x) + 0.7 * model(y))


@pytest.mark.parametrize("name", ["small_cnn", "vgg5", "resnet18", "resnet20_he", "densenet121", "wrn28_10"])
def test_the_gradient_reaches_every_parameter(name: str) -> None:
    smallest = model_info(name).smallest
    model = make_model(name, (3, smallest, smallest), 5, seed=0, dtype=torch.float32).eval()
    model(normal(4, 3, smallest, smallest)).square().sum().backward()
    for parameter, values in model.named_parameters():
        assert values.grad.isfinite().all() and values.grad.abs().max() > 0, parameter


@over_small
def test_a_batch_of_one_in_eval_mode(name: str) -> None:
    model, x = build(name).eval(), normal(3, *model_info(name).input_shape)
    torch.testing.assert_close(model(x[:1]), model(x)[:1], rtol=1e-4, atol=1e-5)


@over_small
def test_memory_format_does_not_change_the_logits_nor_the_call_its_input(name: str) -> None:
    model, x = build(name).eval(), normal(2, *model_info(name).input_shape)
    expected, before = model(x), x.clone()
    last = model.to(memory_format=torch.channels_last)
    for same in (x, x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT):
        torch.testing.assert_close(last(same), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(x, before)


def test_the_head_averages_cells_in_any_memory_format() -> None:
    head, x = architectures._GlobalHead(3, 4, cells=2), normal(5, 3, 6, 6)
    cells = x.reshape(5, 3, 2, 3, 2, 3).mean((3, 5)).reshape(5, 12)
    for same in (x, x.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(head(same), head.linear(cells))


@pytest.mark.parametrize("name", ["small_cnn", "vgg5", "resnet20_he"])
def test_the_network_is_one_graph_for_torch_compile(name: str) -> None:
    model, x = build(name).eval(), normal(2, *model_info(name).input_shape)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_the_zero_pad_shortcut_subsamples_pads_and_has_no_parameters() -> None:
    shortcut, x = networks.ZeroPadShortcut(2, 5, stride=2), normal(3, 2, 6, 6)
    out = shortcut(x)
    assert parameter_count(shortcut) == 0
    assert out.shape == (3, 5, 3, 3)
    assert torch.equal(out[:, :2], x[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert (out[:, 2:] == 0).all()


def test_the_shortcuts_of_he_s_networks_have_no_parameters() -> None:
    blocks = [m for m in on_meta("resnet110_he", (3, 32, 32), 10).modules() if isinstance(m, networks.ResidualBlock)]
    assert len(blocks) == 54
    assert [parameter_count(b.shortcut) for b in blocks] == [0] * 54
    assert sum(isinstance(b.shortcut, networks.ZeroPadShortcut) for b in blocks) == 2


def randomise(module: nn.Module) -> None:
    """Give BatchNorm statistics and parameters that are not those of the identity."""
    generator = torch.Generator().manual_seed(3)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for values in (m.weight, m.bias, m.running_mean):
                values.data.normal_(generator=generator)
            m.running_var.uniform_(0.5, 2, generator=generator)
    module.eval()


def in_order(module: nn.Module, kind: type) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, kind)]


@pytest.mark.parametrize(("c_in", "width", "stride"), [(4, 4, 1), (3, 6, 1), (3, 6, 2)])
def test_the_wide_block_activates_before_it_convolves(c_in: int, width: int, stride: int) -> None:
    block, x = networks.PreActivationBlock(c_in, width, stride), normal(2, c_in, 6, 6)
    randomise(block)
    norms, convs = in_order(block, nn.BatchNorm2d), in_order(block, nn.Conv2d)
    activated = norms[0](x).clamp_min(0)
    inner = F.conv2d(activated, convs[0].weight, stride=stride, padding=1)
    expected = F.conv2d(norms[1](inner).clamp_min(0), convs[1].weight, padding=1)
    expected = expected + (x if c_in == width else F.conv2d(activated, convs[2].weight, stride=stride))
    torch.testing.assert_close(block(x), expected)


def test_the_wide_block_is_the_identity_when_its_last_convolution_is_zero() -> None:
    # Signs survive only if nothing is activated after the addition, which is what pre-activation is for.
    block, x = networks.PreActivationBlock(4, 4, 1), normal(2, 4, 6, 6)
    nn.init.zeros_(in_order(block, nn.Conv2d)[-1].weight)
    assert torch.equal(block(x), x)
    after = architectures.basic_block(4, 4, 1)
    nn.init.zeros_(in_order(after, nn.Conv2d)[-1].weight)
    assert torch.equal(after(x), x.clamp_min(0))


def test_only_the_wide_network_of_the_paper_is_pre_activated() -> None:
    for name, blocks in (("wrn28_10", networks.PreActivationBlock), ("wrn28_10_reference", networks.ResidualBlock)):
        model = on_meta(name, (3, 32, 32), 10)
        assert len(in_order(model, blocks)) == 12
        first, last = [type(m) for m in model.features][:2], [type(m) for m in model.features][-2:]
        assert first == [nn.Conv2d, blocks if name == "wrn28_10" else nn.BatchNorm2d]
        assert last == ([nn.BatchNorm2d, nn.ReLU] if name == "wrn28_10" else [blocks] * 2)


def test_a_dense_layer_appends_to_its_input() -> None:
    layer, x = networks.DenseLayer(5, growth=3).eval(), normal(2, 5, 4, 4)
    out = layer(x)
    assert out.shape == (2, 8, 4, 4)
    assert torch.equal(out[:, :5], x)


def test_densenet_s_widths() -> None:
    model, widths = on_meta("densenet121", (3, 32, 32), 10), []
    for module in model.features:
        if isinstance(module, networks.DenseLayer):
            module.register_forward_hook(lambda m, args, out: widths.append((args[0].shape[1], out.shape[1])))
    model(torch.empty(2, 3, 32, 32, device="meta"))
    expected = []
    for start, depth in ((64, 6), (128, 12), (256, 24), (512, 16)):
        expected += [(start + 32 * i, start + 32 * (i + 1)) for i in range(depth)]
    assert widths == expected
    assert model.head.linear.in_features == 512 + 16 * 32


# --- Sizes: (parameters, FLOP) of each layer by hand, from the papers and the reference code ---

Size = tuple[int, int]


def conv(c_in: int, c_out: int, kernel: int, side: int, bias: bool = False) -> Size:
    return c_in * c_out * kernel**2 + bias * c_out, 2 * c_in * c_out * kernel**2 * side**2


def norm(channels: int) -> Size:
    return 2 * channels, 0


def linear(c_in: int, c_out: int) -> Size:
    return c_in * c_out + c_out, 2 * c_in * c_out


def basic(stem: int, widths: tuple[int, ...], depths: tuple[int, ...], projection: bool = True) -> Iterator[Size]:
    yield from (conv(3, stem, 3, 32), norm(stem))
    c, side = stem, 32
    for stage, (w, depth) in enumerate(zip(widths, depths, strict=True)):
        side //= 2 if stage else 1
        for i in range(depth):
            yield from (conv(c, w, 3, side), norm(w), conv(w, w, 3, side), norm(w))
            if projection and i == 0 and (stage or c != w):
                yield from (conv(c, w, 1, side), norm(w))
            c = w
    yield linear(c, 10)


def bottleneck(depths: tuple[int, ...], image: int = 32, cells: int = 1, n_classes: int = 10) -> Iterator[Size]:
    yield from (conv(3, 64, 3, image), norm(64))
    c, side = 64, image
    for stage, depth in enumerate(depths):
        w, before, side = 64 * 2**stage, side, side // (2 if stage else 1)
        for i in range(depth):
            yield from (conv(c, w, 1, before if i == 0 else side), norm(w), conv(w, w, 3, side), norm(w))
            yield from (conv(w, 4 * w, 1, side), norm(4 * w))
            if i == 0:
                yield from (conv(c, 4 * w, 1, side), norm(4 * w))
            c = 4 * w
    yield linear(c * cells**2, n_classes)


def wide() -> Iterator[Size]:
    yield conv(3, 16, 3, 32)
    for c, w, side in ((16, 160, 32), (160, 320, 16), (320, 640, 8)):
        yield from (norm(c), conv(c, w, 3, side), norm(w), conv(w, w, 3, side), conv(c, w, 1, side))
        yield from (norm(w), conv(w, w, 3, side), norm(w), conv(w, w, 3, side)) * 3
    yield from (norm(640), linear(640, 10))


def dense() -> Iterator[Size]:
    yield conv(3, 64, 3, 32)
    for c, depth, side in ((64, 6, 32), (128, 12, 16), (256, 24, 8), (512, 16, 4)):
        for i in range(depth):
            width = c + 32 * i
            yield from (norm(width), conv(width, 128, 1, side), norm(128), conv(128, 32, 3, side))
        if side > 4:
            yield from (norm(c + 32 * depth), conv(c + 32 * depth, (c + 32 * depth) // 2, 1, side))
    yield from (norm(1024), linear(1024, 10))


def vgg() -> Iterator[Size]:
    c = 1
    for side, w, depth in ((28, 64, 2), (14, 128, 2), (7, 256, 3), (3, 256, 3)):
        for _ in range(depth):
            yield from (conv(c, w, 3, side, bias=True), norm(w))
            c = w
    yield from (linear(256, 512), norm(512), linear(512, 26))


def small(first: int = 32) -> Iterator[Size]:
    c = 3
    for w, side in ((first, 32), (2 * first, 16), (4 * first, 8), (8 * first, 4)):
        yield from (conv(c, w, 3, side), norm(w))
        c = w
    yield linear(c, 10)


LAYERS = {
    "linear": [linear(64, 10)],
    "mlp": [linear(64, 64), linear(64, 10)],
    "mlp_256": [linear(64, 256), linear(256, 10)],
    "small_cnn": list(small()),
    "small_cnn_half": list(small(16)),
    "vgg5": list(vgg()),
    "resnet18": list(basic(64, (64, 128, 256, 512), (2, 2, 2, 2))),
    "resnet50": list(bottleneck((3, 4, 6, 3))),
    "resnet110_reference": list(bottleneck((3, 4, 26, 3))),
    "resnet50_tiny": list(bottleneck((3, 4, 6, 3), image=64, cells=2, n_classes=200)),
    "resnet110_tiny": list(bottleneck((3, 4, 26, 3), image=64, cells=2, n_classes=200)),
    "resnet20_he": list(basic(16, (16, 32, 64), (3, 3, 3), projection=False)),
    "resnet56_he": list(basic(16, (16, 32, 64), (9, 9, 9), projection=False)),
    "resnet110_he": list(basic(16, (16, 32, 64), (18, 18, 18), projection=False)),
    "wrn28_10": list(wide()),
    "wrn28_10_reference": list(basic(16, (160, 320, 640), (4, 4, 4))),
    "densenet121": list(dense()),
}


@pytest.mark.claim("network-sizes")
@over_names
def test_parameters_and_flops(name: str) -> None:
    info = model_info(name)
    model = on_meta(name, info.input_shape, info.n_classes)
    assert name in LAYERS, f"count the layers of {name!r} in LAYERS: (parameters, FLOP) of each, by hand"
    n_parameters, n_flops = (sum(column) for column in zip(*LAYERS[name], strict=True))
    assert parameter_count(model) == n_parameters
    assert flops(model, info.input_shape) == n_flops
    if info.parameters is not None:
        digits = len(str(info.parameters).split(".")[1])
        assert round(n_parameters / 1e6, digits) == info.parameters
    if info.gflops is not None:
        assert round(n_flops / 1e9, 2) == info.gflops
    assert (info.parameters is None) == (info.published_in == "")


def test_flops_of_a_pixel_count_and_leave_the_model_alone() -> None:
    model = build("resnet20_he")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    small_image, large_image = flops(model, (3, 16, 16)), flops(model, (3, 32, 32))
    head = 2 * 64 * 10
    assert large_image - head == 4 * (small_image - head)
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@over_names
def test_every_source_is_in_the_bibliography(name: str) -> None:
    bibliography = Path(__file__).parents[3].joinpath("book", "references.bib").read_text()
    for key in model_info(name).sources:
        assert bibliography.count(f"{{{key},") == 1


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("resnet18", "resnet18"), ("resnet50", "resnet50"), ("densenet121", "densenet121")],
)
def test_torchvision_s_network_with_our_stem_gives_the_same_logits(name: str, theirs: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    other = getattr(torchvision.models, theirs)(num_classes=10)
    if name == "densenet121":
        other.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        other.features.norm0 = other.features.relu0 = other.features.pool0 = nn.Identity()
    else:
        other.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        other.maxpool = nn.Identity()
    ours = build(name)
    randomise(ours)
    assert parameter_count(other) == parameter_count(ours)
    other.load_state_dict(dict(zip(other.state_dict(), ours.state_dict().values(), strict=True)))
    x = normal(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), other.eval()(x), rtol=1e-3, atol=1e-4)
