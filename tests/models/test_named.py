import pytest
import torch
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.models.named import GPT, MODELS, build, convnet, mlp, resnet
from stalegrid.partition.cutting import partition

torch.set_num_threads(1)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in MODELS if name != "gpt"])
def test_every_model_maps_images_to_class_scores(name: str) -> None:
    model = build(name, torch.zeros(1, 8, 8), 7).eval()
    scores = model(torch.zeros(2, 1, 8, 8))
    assert scores.shape == (2, 7)
    assert torch.equal(scores[0], scores[1])


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet20"])
def test_models_can_be_cut_and_stay_the_same_function(name: str) -> None:
    model = build(name, torch.zeros(1, 8, 8), 7)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    stages = partition(model, (x,), 3).stages(model)
    model.eval()
    made = x
    for stage in stages:
        stage.eval()
        made = stage(*made) if isinstance(made, tuple) else stage(made)
    assert torch.equal(made, model(x))


def test_gpt_scores_the_next_token_of_every_position_by_those_before() -> None:
    model = build("gpt", torch.zeros(6, dtype=torch.int64), 5).eval()
    x = torch.tensor([[0, 1, 2, 3, 4, 0], [0, 1, 2, 4, 4, 1]])
    scores = model(x)
    assert scores.shape == (2, 5, 6)
    assert torch.equal(scores[0, :, :3], scores[1, :, :3])
    assert not torch.equal(scores[0, :, 3], scores[1, :, 3])
    assert model(x[:, :2]).shape == (2, 5, 2)


def test_gpt_has_the_size_of_its_paper() -> None:
    # 12 blocks of width 768 on 1024 of 50257 tokens: 124M, by the weights that OpenAI gave out.
    with torch.device("meta"):
        model = GPT(50257, 1024, layers=12, heads=12, width=768)
    assert size(model) == 124_439_808
    assert model.head.weight is model.tokens.weight


@pytest.mark.parametrize("sample", [torch.zeros(6), torch.zeros(2, 3, dtype=torch.int64)])
def test_gpt_is_for_text(sample: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="gpt needs text"):
        build("gpt", sample, 5)


def test_mlp_flattens_samples_of_any_shape() -> None:
    assert build("mlp", torch.zeros(5), 3).eval()(torch.zeros(2, 5)).shape == (2, 3)
    assert build("mlp", torch.zeros(1, 2, 3), 3).eval()(torch.zeros(2, 1, 2, 3)).shape == (2, 3)


def test_mlp_has_the_asked_widths_and_dropout() -> None:
    model = mlp(5, 3, hidden=(7, 4), dropout=0.25)
    assert [(m.in_features, m.out_features) for m in model if isinstance(m, nn.Linear)] == [(5, 7), (7, 4), (4, 3)]
    assert [m.p for m in model if isinstance(m, nn.Dropout)] == [0.25, 0.25]


def test_convnet_has_the_published_size_on_cifar10() -> None:
    # 3 x (5 x 5 convolution + bias) + linear layer, by hand.
    assert size(convnet(3, 10, 32)) == (75 * 32 + 32) + (800 * 32 + 32) + (800 * 64 + 64) + (1024 * 10 + 10) == 89578


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (56, 853_018), (110, 1_727_962)])
def test_resnets_have_the_published_depths_and_sizes(depth: int, parameters: int) -> None:
    # He et al., table 6: 0.27M, 0.46M, 0.85M, 1.7M.
    model = resnet(depth)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth
    assert size(model) == parameters


def test_resnet_halves_the_image_twice() -> None:
    shapes: list[tuple[int, ...]] = []
    model = resnet(20).eval()
    for block in model[3:12]:
        block.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape[1:])))
    model(torch.zeros(1, 3, 32, 32))
    assert shapes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3


def test_resnet_shortcut_between_widths_is_strided_identity_padded_with_zero_channels() -> None:
    block = resnet(20)[6].eval()
    nn.init.zeros_(block.bn2.weight)
    nn.init.zeros_(block.bn2.bias)
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    made = block(x)
    assert torch.equal(made[:, 8:24], x[:, :, ::2, ::2])
    assert not made[:, :8].any()
    assert not made[:, 24:].any()


@pytest.mark.parametrize("depth", [2, 19, 21, 55])
def test_depths_that_are_no_resnet_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth: {depth}"):
        resnet(depth)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'resnet18'\); there are: mlp, convnet"):
        build("resnet18", torch.zeros(3, 32, 32), 10)


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 7, 8), (1, 8, 7), (1, 1, 8, 8)])
@pytest.mark.parametrize("name", ["convnet", "resnet20"])
def test_samples_that_are_no_images_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="try mlp"):
        build(name, torch.zeros(shape), 10)


def test_convnet_takes_or_refuses_images_that_are_not_square() -> None:
    try:
        model = build("convnet", torch.zeros(1, 8, 16), 10)
    except ConfigError:
        return
    assert model(torch.zeros(2, 1, 8, 16)).shape == (2, 10)
