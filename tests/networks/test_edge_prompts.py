"""Edge prompt generator: its size, its formulas written a second time, where its weights start, other encoders."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.networks.edge_prompts import EdgePromptGenerator, EdgePrompts, image_gradient
from medmargin.networks.evidence import opinion
from medmargin.networks.prompt_encoder import FourierPositions, PromptEncoder
from medmargin.networks.taps import TapLayout, Tapped

GRID, DIM, CHANNELS = 4, 24, 16
PLAIN = TapLayout((12,) * 4, (1.0,) * 4)
SMALL = {"dim": DIM, "channels": CHANNELS, "tokens": 3, "mask_channels": 8}


def _encoded(layout: TapLayout, grid: int = GRID, dim: int = DIM) -> Tapped:
    maps = tuple(torch.randn(2, w, int(s * grid), int(s * grid)) for w, s in zip(*layout, strict=True))
    return Tapped(torch.randn(2, dim, grid, grid), maps)


def _norm2d(x: Tensor, norm: nn.Module) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], norm.weight, norm.bias, 1e-6).permute(0, 3, 1, 2)


def _reference(g: EdgePromptGenerator, image: Tensor, encoded: Tapped, positions: FourierPositions) -> EdgePrompts:
    """Compute the generator of a plain transformer, term by term, from its weights alone."""

    def conv(x: Tensor, part: nn.Module, **form: int) -> Tensor:
        return F.conv2d(x, part.weight, part.bias, **form)

    def up(x: Tensor, part: nn.Module) -> Tensor:
        return F.conv_transpose2d(x, part.weight, part.bias, stride=2)

    def fuse(x: Tensor, part: nn.Sequential) -> Tensor:
        return F.gelu(F.group_norm(conv(x, part[0], padding=1), 8, part[1].weight, part[1].bias))

    def gate(e: Tensor) -> Tensor:
        return 1 + 1 / (1 + torch.exp(e[:, :1] - e[:, 1:]))

    def double(x: Tensor) -> Tensor:
        return F.interpolate(x, (2 * x.shape[-2], 2 * x.shape[-1]), mode="bilinear", align_corners=False)

    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])[None, None] / 8
    grey = image.mean(1, keepdim=True)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    change = (F.conv2d(padded, sobel) ** 2 + F.conv2d(padded, sobel.transpose(2, 3)) ** 2 + 1e-6).sqrt()
    s = torch.cat([grey, change], 1)
    for first in (0, 3):
        s = conv(s, g.stem[first], stride=2, padding=1)
        s = F.gelu(F.group_norm(s, 8, g.stem[first + 1].weight, g.stem[first + 1].bias))
    (t1, t2, t3, t4), z = encoded.maps, encoded.features
    a1, a2, a3, a4 = g.laterals
    l4 = F.gelu(_norm2d(conv(t4, a4[0]), a4[1])) + conv(z, g.embedding_lateral)
    l3 = F.gelu(_norm2d(conv(t3, a3[0]), a3[1]))
    l2 = F.gelu(_norm2d(up(t2, a2[0]), a2[1]))
    l1 = up(F.gelu(_norm2d(up(t1, a1[0]), a1[1])), a1[3])
    u4 = fuse(l4, g.fuse[3])
    e4 = conv(u4, g.side[3])
    u3 = fuse(u4 * gate(e4) + l3, g.fuse[2])
    e3 = conv(u3, g.side[2])
    u2 = fuse(double(u3 * gate(e3)) + l2, g.fuse[1])
    e2 = conv(u2, g.side[1])
    u1 = fuse(double(u2 * gate(e2)) + l1 + s, g.fuse[0])
    edges = conv(u1, g.side[0])

    alpha = F.softplus(edges) + 1
    strength = alpha.sum(1, keepdim=True)
    p_edge, u_edge = alpha[:, 1:] / strength, 2 / strength
    d = g.dense.downscaling
    m = torch.cat([edges[:, 1:] - edges[:, :1], p_edge * (1 - u_edge)], 1)
    m = F.gelu(_norm2d(conv(m, d[0], stride=2), d[1]))
    m = F.gelu(_norm2d(conv(m, d[3], stride=2), d[4]))
    dense = g.dense.gamma[None, :, None, None] * conv(m, d[6])

    p = g.sparse
    pooled, nearby = F.adaptive_avg_pool2d(u1, GRID), F.adaptive_max_pool2d(p_edge, GRID)
    tokens = torch.empty(len(image), len(p.queries), DIM)
    for b in range(len(image)):
        for j, query in enumerate(p.queries):
            cells = [(row, column) for row in range(GRID) for column in range(GRID)]
            keys = [F.linear(pooled[b, :, r, c], p.key.weight, p.key.bias) for r, c in cells]
            scores = [
                query @ k / DIM**0.5 + torch.log(nearby[b, 0, r, c] + 1e-3)
                for k, (r, c) in zip(keys, cells, strict=True)
            ]
            share = torch.stack(scores).softmax(0)
            values = torch.stack([F.linear(pooled[b, :, r, c], p.value.weight, p.value.bias) for r, c in cells])
            centres = torch.tensor([[(c + 0.5) / GRID, (r + 0.5) / GRID] for r, c in cells])
            tokens[b, j] = positions(share @ centres) + F.linear(share @ values, p.out.weight, p.out.bias) + p.kind
    return EdgePrompts(tokens, dense, edges, (e4, e3, e2))


def test_the_design_has_the_stated_number_of_weights() -> None:
    with torch.device("meta"):
        generator = EdgePromptGenerator(TapLayout((768,) * 4, (1.0,) * 4))
    assert sum(weight.numel() for weight in generator.parameters()) == 1_012_740
    assert sum(weight.numel() for weight in generator.state_dict().values()) == 1_012_740


def test_it_computes_the_formulas_of_the_design(randomise) -> None:
    generator, positions = randomise(EdgePromptGenerator(PLAIN, **SMALL)), FourierPositions(DIM)
    image, encoded = torch.rand(2, 3, 64, 64), _encoded(PLAIN)
    found, expected = generator(image, encoded, positions), _reference(generator, image, encoded, positions)
    for name in ("edges", "dense", "tokens"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-4, msg=name)
    for own, theirs in zip(found.deep, expected.deep, strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-4)
    sides = [GRID, GRID, 2 * GRID, 4 * GRID]
    assert [logits.shape[-1] for logits in (*found.deep, found.edges)] == sides


def test_weights_start_where_the_design_says() -> None:
    prompts = PromptEncoder(dim=DIM, grid=GRID, image_size=64, mask_channels=8)
    generator = EdgePromptGenerator(PLAIN, **{**SMALL, "tokens": 64})
    generator.dense.start_from(prompts.mask_downscaling)
    assert (generator.dense.gamma == 0.1).all()
    assert (generator.sparse.kind == 0).all()
    assert generator.sparse.queries.std().item() == pytest.approx(0.02, rel=0.1)
    for own, theirs in ((generator.dense.downscaling[i], prompts.mask_downscaling[i]) for i in (0, 3, 6)):
        assert torch.equal(own.weight[:, : theirs.in_channels], theirs.weight)
        assert torch.equal(own.bias, theirs.bias)
    assert (generator.dense.downscaling[0].weight[:, 1] == 0).all()


def test_the_dense_prompt_starts_as_the_encoded_mask_of_the_edge() -> None:
    prompts = PromptEncoder(dim=DIM, grid=GRID, image_size=64, mask_channels=8)
    generator = EdgePromptGenerator(PLAIN, **SMALL)
    generator.dense.start_from(prompts.mask_downscaling)
    found = generator(torch.rand(2, 3, 64, 64), _encoded(PLAIN), prompts.pe_layer)
    as_mask = prompts.mask_downscaling(found.edges[:, 1:] - found.edges[:, :1])
    torch.testing.assert_close(found.dense, 0.1 * as_mask)


def test_tokens_point_at_the_edge() -> None:
    """Without a query, a token's place is the centre of gravity of the edge probability (plus 1e-3)."""
    generator = EdgePromptGenerator(PLAIN, **SMALL)
    places: list[Tensor] = []
    with torch.no_grad():
        generator.sparse.queries.zero_()
        edges = torch.zeros(1, 2, 16, 16)
        edges[:, 0], edges[:, 1] = 5e3, 0
        edges[0, :, 5, 14] = torch.tensor([0.0, 5e3])  # row 5, column 14: cell (row 1, column 3)

        def remember(place: Tensor) -> Tensor:
            places.append(place)
            return torch.zeros(*place.shape[:-1], DIM)

        generator.sparse(torch.randn(1, CHANNELS, 16, 16), opinion(edges), remember)
    torch.testing.assert_close(places[0], torch.tensor([[[3.5 / 4, 1.5 / 4]] * 3]), atol=0.02, rtol=0)


def test_image_gradient_of_a_ramp_is_its_slope() -> None:
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) * 0.1
    grey, change = image_gradient(ramp)[0]
    assert torch.equal(grey, ramp[0, 0])
    torch.testing.assert_close(change[:, 1:-1], torch.full((8, 6), 0.1), atol=1e-4, rtol=0)
    torch.testing.assert_close(image_gradient(torch.ones(1, 3, 8, 8))[0, 1], torch.full((8, 8), 1e-3))


@pytest.mark.parametrize(
    ("layout", "pixels_per_edge"),
    [
        (TapLayout((4, 8, 8, 12), (4.0, 2.0, 1.0, 1.0)), 1),  # TinyViT
        (TapLayout((4, 8, 12, 10), (4.0, 2.0, 1.0, 0.5)), 1),  # compact
        (TapLayout((4, 8, 8, 12), (8.0, 4.0, 2.0, 1.0)), 2),  # maps finer than they are wanted
        (TapLayout((12,) * 4, (0.5,) * 4), 4),
    ],
)
def test_maps_of_any_width_and_grid_are_brought_to_theirs(layout: TapLayout, pixels_per_edge: int) -> None:
    generator = EdgePromptGenerator(layout, pixels_per_edge=pixels_per_edge, **SMALL)
    image = torch.rand(2, 3, 16 * pixels_per_edge, 16 * pixels_per_edge)
    found = generator(image, _encoded(layout), FourierPositions(DIM))
    assert found.edges.shape == (2, 2, 16, 16)
    assert found.dense.shape == (2, DIM, GRID, GRID)
    assert found.tokens.shape == (2, 3, DIM)
    assert [tuple(side.shape) for side in found.deep] == [(2, 2, 4, 4), (2, 2, 4, 4), (2, 2, 8, 8)]


def test_a_map_on_its_grid_already_gets_one_point_wise_convolution() -> None:
    layout = TapLayout((4, 8, 8, 12), (4.0, 2.0, 1.0, 1.0))
    convolutions = [part for part in EdgePromptGenerator(layout, **SMALL).laterals.modules() if hasattr(part, "stride")]
    assert [(part.kernel_size, type(part)) for part in convolutions] == [((1, 1), nn.Conv2d)] * 4


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_featureless_images_and_maps_stay_finite(value: float) -> None:
    generator = EdgePromptGenerator(PLAIN, **SMALL)
    encoded = Tapped(torch.full((1, DIM, 4, 4), value), (torch.full((1, 12, 4, 4), value),) * 4)
    found = generator(torch.full((1, 3, 64, 64), value), encoded, FourierPositions(DIM))
    (found.tokens.sum() + found.dense.sum()).backward()
    assert all(part.isfinite().all() for part in (found.tokens, found.dense, found.edges, *found.deep))
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in generator.parameters())


def test_autocast_moves_no_token() -> None:
    """Places are found in float32; half precision would round them to 1/256 of the image."""
    generator = EdgePromptGenerator(PLAIN, **SMALL)
    seen: list[Tensor] = []

    def remember(place: Tensor) -> Tensor:
        seen.append(place)
        return torch.zeros(*place.shape[:-1], DIM)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        generator(torch.rand(2, 3, 64, 64), _encoded(PLAIN), remember)
    assert seen[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"channels": 20}, "edge_channels is 20: expected a multiple of 8"),
        ({"tokens": 0}, "edge_tokens is 0"),
        ({"pixels_per_edge": 8}, "8 times as large as the masks"),
    ],
)
def test_sizes_that_are_not_possible_are_refused(changes: dict[str, int], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        EdgePromptGenerator(PLAIN, **{**SMALL, **changes})
