from __future__ import annotations

import copy

import pytest
import torch

from sightline.geometry.rotations import exp
from sightline.geometry.viewpoints import view_direction
from sightline.nn.rope import rope_encode
from sightline.vpog.aa_module import AAModule
from sightline.vpog.token_manager import TokenManager
from sightline.vpog.window import window_extent

ENCODINGS = ["s2rope-fixed", "s2rope-compat", "so3"]
MODES = ["joint", "asymmetric"]
GRID, DIM = 5, 32


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _module(mode: str = "joint", encoding: str = "s2rope-fixed", **options) -> AAModule:
    torch.manual_seed(0)
    module = AAModule(DIM, 3, 2, window_size=3, mode=mode, encoding=encoding, **options).double().eval()
    for name, parameter in module.named_parameters():
        # larger than at the start, so that attention is not nearly uniform
        if "weight" in name and parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return module


def _inputs(templates: int = 4, batch: int = 2, query_added: int = 1, added: int = 1) -> dict:
    manager = TokenManager(DIM, query_added, added, init_std=1.0).double().requires_grad_(False)
    places = torch.cartesian_prod(torch.arange(GRID), torch.arange(GRID))
    query, query_pos, query_mask = manager.add_query_tokens(_random(batch, GRID**2, DIM), places)
    x, pos, mask = manager.add_template_tokens(_random(batch, templates, GRID**2, DIM, seed=1), places)
    views = exp(_random(batch, templates, 3, seed=2))
    return {
        "query": query,
        "templates": x,
        "query_pos": query_pos,
        "template_pos": pos,
        "views": views,
        "reference": views[:, 0],
        "query_rope_mask": query_mask,
        "template_rope_mask": mask,
    }


def _close(a, b, atol: float = 1e-9) -> None:
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


def _dense(module: AAModule, inputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The module token by token: one sequence, one square mask for global and one for local attention."""
    query, templates = inputs["query"], inputs["templates"]
    _, count, tokens, _ = templates.shape
    x = torch.cat([query, templates.flatten(1, 2)], dim=1)
    pictures = torch.arange(1 + count).repeat_interleave(torch.tensor([query.shape[1]] + [tokens] * count))
    joint = module.mode == "joint"
    alike = pictures[:, None] == pictures[None]
    may_see = torch.ones_like(alike) if joint else alike | (pictures[:, None] == 0)
    places = torch.cat([inputs["query_pos"], inputs["template_pos"].flatten(1, 2)], dim=1)
    patches = torch.cat([inputs["query_rope_mask"], inputs["template_rope_mask"].flatten(1, 2)], dim=1)
    reference, views = inputs["reference"], inputs["views"]
    own = torch.cat([reference[:, None], views], dim=1).repeat_interleave(torch.bincount(pictures), dim=1)[
        :, :, None
    ]
    encoding = module.encoding

    def turned(heads, own_reference):
        """Tokens as pictures of one token each, so that every one has its own view."""
        prepared = encoding.prepare(places[:, :, None], own[:, :, 0], own_reference, patches[:, :, None])
        moved = encoding.rotate(heads.transpose(1, 2).unsqueeze(3), prepared)
        return moved.squeeze(3).transpose(1, 2)

    def softmax(q, k, allowed):
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
        return scores.softmax(-1)

    for block in module.blocks:
        q, k, v = block.global_heads.split(block.global_norm(x))
        weights = softmax(turned(q, reference), turned(k, reference), may_see)
        out = weights @ v
        if not joint:
            alone = softmax(turned(q, own[:, :, 0]), turned(k, own[:, :, 0]), alike) @ v
            out = torch.where((pictures == 0)[:, None], out, alone)
        x = x + block.global_heads.join(out)
        q, k, v = block.local_heads.split(block.local_norm(x))
        q, k = rope_encode(q, places, patches), rope_encode(k, places, patches)
        extent = torch.tensor(window_extent((GRID, GRID), block.window))
        window = places // extent
        same_window = (window[:, :, None] == window[:, None]).all(-1) & patches[:, :, None] & patches[:, None]
        is_added = ~patches
        allowed = alike & (same_window | is_added[:, None, :])
        outs = softmax(q, k, (allowed | is_added[:, :, None])[:, None]) @ v
        means, all_windows = 0, torch.unique(window[0], dim=0)
        for each in all_windows:
            inside = (window == each).all(-1) & patches
            seen = alike & (inside[:, None, :] | is_added[:, None, :])
            means = means + softmax(q, k, seen[:, None]) @ v / len(all_windows)
        x = x + block.local_heads.join(torch.where(is_added[:, None, :, None], means, outs))
        x = x + block.mlp(block.mlp_norm(x))
    x = module.norm(x)
    return x[:, : query.shape[1]], x[:, query.shape[1] :].unflatten(1, (count, tokens))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("mode", MODES)
def test_equals_attention_with_square_masks(mode, encoding):
    module, inputs = _module(mode, encoding), _inputs()
    _close(module(**inputs), _dense(module, inputs))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("mode", MODES)
def test_permuted_templates_give_permuted_outputs(mode, encoding):
    module, inputs = _module(mode, encoding), _inputs()
    query, templates = module(**inputs)
    order = torch.tensor([2, 0, 3, 1])
    names = ("templates", "template_pos", "views", "template_rope_mask")
    permuted = inputs | {name: inputs[name][:, order] for name in names}
    _close(module(**permuted), (query, templates[:, order]))


@pytest.mark.parametrize("mode", MODES)
def test_padded_templates_change_nothing(mode):
    module, inputs = _module(mode), _inputs(5)
    names = ("templates", "template_pos", "views", "template_rope_mask")
    fewer = inputs | {name: inputs[name][:, :3] for name in names}
    query, templates = module(**fewer)
    inputs["templates"][:, 3:] *= 1e3
    valid = (torch.arange(5) < 3).expand(2, 5)
    padded_query, padded = module(**inputs, template_valid=valid)
    _close((padded_query, padded[:, :3]), (query, templates))
    direction = view_direction(inputs["views"][:, 4])
    towards = {"reference": direction}  # the template there is padding, and says nothing
    _close(module(**(inputs | towards), template_valid=valid)[:1], module(**(fewer | towards))[:1])


@pytest.mark.parametrize(("encoding", "equivariant"), list(zip(ENCODINGS, (True, False, True), strict=True)))
@pytest.mark.parametrize("mode", MODES)
def test_frame_of_the_object_does_not_matter(mode, encoding, equivariant):
    module, inputs = _module(mode, encoding), _inputs()
    frame = exp(_random(3, seed=9))
    moved = inputs | {"views": inputs["views"] @ frame, "reference": inputs["reference"] @ frame}
    change = (module(**inputs)[0] - module(**moved)[0]).abs().max()
    assert bool(change < 1e-5) == equivariant


def test_query_sees_templates_and_joint_templates_the_query():
    inputs = _inputs()
    other = inputs | {"query": inputs["query"] + 1.0}
    other_templates = inputs | {"templates": inputs["templates"] + _random(DIM)}
    for mode in MODES:
        module = _module(mode)
        assert not torch.allclose(module(**inputs)[0], module(**other_templates)[0])
        alike = torch.equal(module(**inputs)[1], module(**other)[1])
        assert alike == (mode == "asymmetric")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_cached_equals_full(encoding, chunk):
    """In float32, with one object for three queries, each with a reference of its own."""
    module = _module("asymmetric", encoding).float()
    inputs = {k: v.float() if v.is_floating_point() else v for k, v in _inputs(4, 3).items()}
    names = ("templates", "template_pos", "views", "template_rope_mask")
    inputs |= {name: inputs[name][:1].expand_as(inputs[name]) for name in names}
    inputs["reference"] = inputs["views"][0, :3]
    cache = module.template_cache(
        inputs["templates"][:1],
        inputs["template_pos"][:1],
        inputs["views"][:1],
        template_rope_mask=inputs["template_rope_mask"][:1],
    )
    cached = module.forward_cached(
        inputs["query"],
        cache,
        inputs["query_pos"],
        inputs["reference"],
        query_rope_mask=inputs["query_rope_mask"],
        chunk=chunk,
    )
    _close(cached, module(**inputs), atol=1e-4)


def test_chosen_templates_of_a_cache():
    module, inputs = _module("asymmetric"), _inputs(5, 1)
    names = ("templates", "template_pos", "views", "template_rope_mask")
    valid = torch.tensor([[True, True, False, True, True]])
    cache = module.template_cache(
        inputs["templates"],
        inputs["template_pos"],
        inputs["views"],
        template_rope_mask=inputs["template_rope_mask"],
        template_valid=valid,
    )
    index = torch.tensor([[4, 1], [2, 3]])
    query = inputs["query"].expand(2, -1, -1)
    pos, mask = inputs["query_pos"].expand(2, -1, -1), inputs["query_rope_mask"].expand(2, -1)
    reference = inputs["reference"].expand(2, -1, -1)
    found = module.forward_cached(query, cache.select(index), pos, reference, query_rope_mask=mask)
    chosen = {name: inputs[name][0, index] for name in names}
    full = {"query": query, "query_pos": pos, "reference": reference, "query_rope_mask": mask} | chosen
    _close(found, module(**full, template_valid=valid[0, index]))
    assert cache.to("cpu", torch.bfloat16).keys.dtype == torch.bfloat16


def test_local_attention_stays_within_windows():
    module, inputs = _module(), _inputs()
    block = module.blocks[0]
    x = inputs["templates"]
    mask, views = inputs["template_rope_mask"], inputs["views"]
    places = module._places(x, inputs["template_pos"], views, views, mask, None)
    before = block.attend_locally(x, places)
    moved = x.clone()
    moved[:, :, 0] += _random(DIM)  # the patch in the upper left corner
    changed = (block.attend_locally(moved, places) - before).abs().amax(-1)[0, 0] > 1e-9
    expected = torch.zeros(GRID, GRID, dtype=torch.bool)
    expected[:3, :3] = True
    assert torch.equal(changed[:-1].view(GRID, GRID), expected)
    assert changed[-1], "the added token is in every window"
    moved = x.clone()
    moved[:, :, -1] += _random(DIM)
    assert ((block.attend_locally(moved, places) - before).abs().amax(-1) > 1e-9).all()


@pytest.mark.parametrize("window", [1, 2, 5, 7])
def test_any_window_serves_any_grid(window):
    module, inputs = _module(), _inputs()
    for block in module.blocks:
        block.window = window
    _close(module(**inputs), _dense(module, inputs))


def test_grids_need_not_be_square_nor_alike():
    module = _module()
    places = torch.cartesian_prod(torch.arange(2), torch.arange(6))
    query = _random(1, 12, DIM)
    inputs = _inputs(2, 1)
    del inputs["query_rope_mask"]
    inputs |= {"query": query, "query_pos": places}
    wide, _ = module(**inputs, query_grid=(2, 6))
    tall, _ = module(**(inputs | {"query_pos": places.flip(-1)}), query_grid=(2, 6))
    assert wide.shape == (1, 12, DIM)
    assert not torch.allclose(wide, tall)
    with pytest.raises(ValueError, match="grid 4 x 4 has more patches than the 12 tokens"):
        module(**inputs, query_grid=(4, 4))


@pytest.mark.parametrize("mode", MODES)
def test_all_parameters_learn(mode):
    module, inputs = _module(mode, drop_path=0.0), _inputs()
    query, templates = module(**inputs)
    (query.square().sum() + templates.pow(3).sum()).backward()
    silent = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


@pytest.mark.parametrize("mode", MODES)
def test_gradient(mode):
    torch.manual_seed(0)
    module = AAModule(16, 1, 1, window_size=2, mode=mode, encoding="so3", mlp_ratio=1.0).double()
    places = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    views = exp(_random(1, 2, 3))
    query = _random(1, 4, 16).requires_grad_()
    templates = _random(1, 2, 4, 16, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda q, t: module(q, t, places, places, views, views[:, 1]), (query, templates), fast_mode=True
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_is_near(mode, encoding):
    module = _module(mode, encoding)
    inputs = {k: v.float() if v.is_floating_point() else v for k, v in _inputs().items()}
    half = inputs | {name: inputs[name].bfloat16() for name in ("query", "templates")}
    query, templates = copy.deepcopy(module).bfloat16()(**half)
    exact = module.float()(**inputs)
    assert query.dtype == templates.dtype == torch.bfloat16
    for found, wanted in zip((query, templates), exact, strict=True):
        assert (found.float() - wanted).square().mean().sqrt() < 0.1
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(**inputs)
    assert (mixed[0].float() - exact[0]).square().mean().sqrt() < 0.1


def test_drop_path_rises_linearly_and_rests_in_evaluation():
    module, inputs = _module(drop_path=0.4), _inputs()
    assert [block.drop_path.rate for block in module.blocks] == [0.0, 0.2, 0.4]
    _close(module(**inputs), _module()(**inputs))
    torch.manual_seed(1)
    assert not torch.allclose(module.train()(**inputs)[0], module.eval()(**inputs)[0])


def test_directions_suffice_where_the_encoding_needs_no_more():
    inputs = _inputs()
    directions = {"views": view_direction(inputs["views"])}
    towards = {"reference": view_direction(inputs["reference"])}
    compat = _module(encoding="s2rope-compat")
    _close(compat(**(inputs | directions | towards)), compat(**inputs))
    fixed = _module(encoding="s2rope-fixed")
    _close(fixed(**(inputs | directions)), fixed(**inputs))
    _close(fixed(**(inputs | towards)), fixed(**inputs), atol=1e-6)
    with pytest.raises(ValueError, match=r"s2rope-fixed needs rotations .* of shape \(2, 4, 3\)"):
        fixed(**(inputs | directions | towards))
    with pytest.raises(ValueError, match="so3 needs rotations"):
        _module(encoding="so3")(**(inputs | directions))


def test_bad_options():
    with pytest.raises(ValueError, match="expected joint or asymmetric, got 'both'"):
        AAModule(32, 1, 2, mode="both")
    with pytest.raises(ValueError, match="must divide dim = 32, got 3"):
        AAModule(32, 1, 3)
    with pytest.raises(ValueError, match="got 0 and 7"):
        AAModule(32, 0, 2)
    with pytest.raises(ValueError, match="in mode joint templates depend on the query"):
        inputs = _inputs()
        _module().template_cache(inputs["templates"], inputs["template_pos"], inputs["views"])
