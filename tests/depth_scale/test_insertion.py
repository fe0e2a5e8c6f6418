"""The insertion loss: its terms, samples without target, schedule, and what it must never do."""

import copy
import math

import pytest
import torch

from sightline.depth_scale.change_mask import ChangeMaskForm, soft_change_mask_from_latents
from sightline.depth_scale.distance import signed_distance
from sightline.depth_scale.insertion import InsertionLoss
from sightline.depth_scale.latent_losses import background_preservation_mse_latent, weighted_masked_mse_latent
from sightline.depth_scale.latents import geometry_weight
from sightline.depth_scale.loss import depth_aware_scale_loss
from sightline.depth_scale.mask_losses import area_loss, boundary_loss, depth_consistency_loss, dice_loss
from sightline.depth_scale.options import Invalid, ScaleOptions
from sightline.depth_scale.regions import dilate

SIZE = 32
# An insertion that has hardly begun is a small mask.
pytestmark = pytest.mark.filterwarnings("ignore:.*fewer than 16 cells")
TERMS = ("mse", "bg", "dice", "area", "bnd", "depth", "depth_consistency")
METRIC = ScaleOptions(depth_mode="depth", border_policy="one_sided")


def _batch(batch=4, dtype=torch.float32, amplitude=0.4, seed=0):
    """Half-grown insertions of squares, and a ground that comes nearer downwards."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.zeros(batch, 1, SIZE, SIZE, dtype=dtype)
    for i in range(batch):
        mask[i, 0, 10 : 20 + i, 8 : 18 + i] = 1.0
    z_ctx = torch.randn(batch, 4, SIZE, SIZE, generator=g, dtype=dtype)
    z_tgt = z_ctx + mask * torch.randn(batch, 4, 1, 1, generator=g, dtype=dtype)
    z_pred = torch.lerp(z_ctx, z_tgt, amplitude) + 0.1 * torch.randn(z_ctx.shape, generator=g, dtype=dtype)
    depth = torch.linspace(4, 2, SIZE, dtype=dtype)[:, None].expand(batch, 1, SIZE, SIZE)
    latents = {"z_pred": z_pred.requires_grad_(), "z_tgt": z_tgt, "z_ctx": z_ctx, "mask": mask}
    return latents | {"depth": depth.clone(), "f_px": 100.0, "k_obj": 0.5}


def _gradient(criterion, batch):
    terms = criterion(**batch)
    return terms, torch.autograd.grad(terms["loss"], batch["z_pred"])[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_terms_are_those_of_the_single_losses(dtype):
    batch = _batch(dtype=dtype)
    z_pred, z_tgt, z_ctx, mask, depth = (batch[n] for n in ("z_pred", "z_tgt", "z_ctx", "mask", "depth"))
    t = torch.tensor([0.0, 0.3, 0.6, 1.0])
    noisy = depth + 0.2 * torch.rand(depth.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    terms = InsertionLoss(scale=METRIC)(**batch, t=t, pred_depth=noisy, target_depth=depth)
    weight = geometry_weight(t)
    changed, _, _ = soft_change_mask_from_latents(z_pred, z_ctx, mask)
    expected = {
        "mse": weighted_masked_mse_latent(z_pred, z_tgt, mask).loss,
        "bg": background_preservation_mse_latent(z_pred, z_ctx, mask).loss,
        "dice": dice_loss(changed, mask, sample_weight=weight).loss,
        "area": area_loss(changed, mask, sample_weight=weight).loss,
        "bnd": boundary_loss(changed, mask, sample_weight=weight).loss,
        "depth": depth_aware_scale_loss(changed, depth, 100.0, 0.5, **vars(METRIC), sample_weight=weight)[0],
        "depth_consistency": depth_consistency_loss(noisy, depth, mask, sample_weight=weight).loss,
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[f"loss_{name}"], value)
        assert terms[f"loss_{name}"].ndim == 0
        assert terms["valid"][name].all()
    weights = dict(zip(TERMS, (1.0, 0.6, 0.9, 0.2, 0.4, 0.1, 0.0), strict=True))
    total = sum(weights[name] * expected[name] for name in TERMS)
    torch.testing.assert_close(terms["loss"], total)
    torch.testing.assert_close(terms["change_mask"], changed)


def test_gradient_is_the_sum_of_the_terms():
    batch = _batch(dtype=torch.float64)
    criterion = InsertionLoss(scale=METRIC)
    _, whole = _gradient(criterion, batch)
    parts = torch.zeros_like(whole)
    for name in TERMS:
        single = copy.copy(criterion)
        single.weights = {n: w * (n == name) for n, w in criterion.weights.items()}
        parts += _gradient(single, batch)[1]
    torch.testing.assert_close(whole, parts)


def test_numerical_gradient():
    # The original form does not detach its statistics, so that finite differences see the same function.
    batch = _batch(batch=2, dtype=torch.float64)
    criterion = InsertionLoss(change_mask="original", scale=METRIC)
    _, gradient = _gradient(criterion, batch)
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    values = []
    for step in (1e-6, -1e-6):
        moved = batch | {"z_pred": batch["z_pred"].detach() + step * direction}
        values.append(criterion(**moved)["loss"])
    torch.testing.assert_close(
        (values[0] - values[1]) / 2e-6, (gradient * direction).sum(), rtol=1e-6, atol=1e-8
    )


def test_perfect_insertion_costs_little_and_training_goes_there():
    batch = _batch(amplitude=0.0)
    criterion = InsertionLoss(scale=METRIC)
    batch["k_obj"] = 0.35  # about right: 11 cells at 3 m
    z = batch["z_pred"]
    optimiser = torch.optim.Adam([z], 0.05)
    first = criterion(**batch)
    for _ in range(120):
        optimiser.zero_grad()
        terms = criterion(**batch)
        terms["loss"].backward()
        optimiser.step()
    assert first["loss_dice"] > 0.7
    assert terms["loss_dice"] < 0.1
    assert terms["loss_area"] < 0.02
    assert terms["loss_mse"] < 0.15 * first["loss_mse"]


def test_sample_without_target_learns_background_and_scale_alone():
    batch = _batch()
    place = dilate(batch["mask"], 3)
    has_target = torch.tensor([True, False, True, False])
    batch["z_tgt"][1] = torch.nan
    criterion = InsertionLoss(scale=METRIC)
    terms, gradient = _gradient(criterion, batch | {"has_target": has_target, "place": place})
    for name in ("mse", "dice", "area", "bnd"):
        assert terms["valid"][name].tolist() == [True, False, True, False]
    for name in ("bg", "depth"):
        assert terms["valid"][name].all()
    alone = {n: v[[0, 2]] if isinstance(v, torch.Tensor) else v for n, v in batch.items()}
    expected = criterion(**alone, place=place[[0, 2]])
    for name in ("mse", "dice", "area", "bnd"):
        torch.testing.assert_close(terms[f"loss_{name}"], expected[f"loss_{name}"])
    assert gradient.isfinite().all()
    without = InsertionLoss(scale=METRIC, weight_depth=0.0)
    inside = dilate(place, 1)[1, 0] > 0
    rest = _gradient(without, batch | {"has_target": has_target, "place": place})[1]
    # In its place nothing but the depth term moves it, and outside the background is held.
    assert not rest[1][:, inside].any()
    assert gradient[1][:, inside].any()
    assert rest[1][:, ~inside].any()


def test_nothing_outside_the_place_may_change_but_inside_it_may():
    batch = _batch()
    place = dilate(batch["mask"], 4)
    criterion = InsertionLoss()
    base = criterion(**batch, place=place)["loss_bg"]
    moved = batch | {"z_pred": (batch["z_pred"] + 3.0 * place * (1 - batch["mask"])).detach()}
    torch.testing.assert_close(criterion(**moved, place=place)["loss_bg"], base)
    assert criterion(**moved)["loss_bg"] > base + 0.1


@pytest.mark.parametrize("broken", ["z_pred", "z_ctx", "z_tgt", "mask", "depth", "f_px"])
def test_a_broken_sample_is_counted_and_spoils_nothing(broken):
    batch = _batch()
    batch["f_px"] = torch.full((4,), 100.0)
    criterion = InsertionLoss(scale=METRIC)
    rest = {n: v[[0, 1, 3]] if isinstance(v, torch.Tensor) else v for n, v in batch.items()}
    expected = criterion(**rest)
    with torch.no_grad():
        batch[broken][2, ...] = torch.nan
    terms, gradient = _gradient(criterion, batch)
    assert gradient.isfinite().all()
    touched = {
        "z_pred": ("mse", "bg", "dice", "area", "bnd", "depth"),
        "z_ctx": ("bg", "dice", "area", "bnd", "depth"),
        "z_tgt": ("mse",),
        "mask": ("mse", "dice", "area", "bnd", "depth"),
        "depth": ("depth",),
        "f_px": ("depth",),
    }[broken]
    for name in touched:
        if broken == "mask" and name == "depth":
            continue  # without its mask the sample's background is all of it; the depth term still counts
        assert terms["valid"][name].tolist() == [True, True, False, True]
        torch.testing.assert_close(terms[f"loss_{name}"], expected[f"loss_{name}"])
    if broken in ("z_pred", "z_ctx"):
        assert terms["info"].reason.tolist() == [0, 0, Invalid.MASK_NOT_FINITE, 0]
        assert not gradient[2].any() or broken == "z_ctx"


def test_every_sample_broken_is_zero():
    batch = _batch()
    batch["z_ctx"][:] = torch.inf
    batch["z_tgt"][:] = torch.nan
    terms, gradient = _gradient(InsertionLoss(scale=METRIC), batch)
    assert terms["loss"] == 0
    assert not gradient.any()


@pytest.mark.parametrize("kind", ["empty", "full", "pixel"])
def test_extreme_masks(kind):
    batch = _batch()
    mask = torch.full_like(batch["mask"], float(kind == "full"))
    if kind == "pixel":
        mask[..., 4, 4] = 1.0
    terms, gradient = _gradient(InsertionLoss(scale=METRIC), batch | {"mask": mask})
    assert terms["loss"].isfinite()
    assert gradient.isfinite().all()
    assert terms["valid"]["bnd"].all() == (kind == "pixel")
    # A picture without background has nothing that a change could be told from.
    assert terms["valid"]["depth"].all() == (kind != "full")


def test_kept_distance_is_the_same():
    batch = _batch()
    criterion = InsertionLoss()
    kept = criterion(**batch, signed_distance=signed_distance(batch["mask"]))
    torch.testing.assert_close(kept["loss"], criterion(**batch)["loss"])
    other = InsertionLoss(boundary_convention="kervadec", normalise_boundary=True)(**batch)["loss_bnd"]
    phi = signed_distance(batch["mask"], convention="kervadec", normalise=True)
    torch.testing.assert_close(other, criterion(**batch, signed_distance=phi)["loss_bnd"])


def test_schedule_of_the_depth_term():
    batch = _batch()
    criterion = InsertionLoss(weight_depth=0.2, depth_start_step=10, depth_ramp_steps=20, scale=METRIC)
    full = criterion(**batch)
    for step, share in ((0, 0.0), (10, 0.0), (15, 0.25), (30, 1.0), (99, 1.0)):
        terms = criterion(**batch, step=step)
        difference = (full["loss"] - terms["loss"]) / (0.2 * full["loss_depth"])
        assert difference.item() == pytest.approx(1 - share, abs=1e-4)
        torch.testing.assert_close(terms["loss_depth"], full["loss_depth"])
    sudden = InsertionLoss(depth_start_step=3)
    assert [sudden.depth_factor(step) for step in (2, 3)] == [0.0, 1.0]


def test_sizes_in_image_pixels():
    batch = _batch()
    criterion = InsertionLoss(scale=METRIC)
    cells = criterion(**batch)["info"]
    pixels = criterion(**batch, image_width_px=8 * SIZE)["info"]
    torch.testing.assert_close(pixels.s_pred, 8 * cells.s_pred)


def test_table_of_objects():
    batch = _batch()
    batch["k_obj"] = torch.tensor([0.5, 1.0])
    info = InsertionLoss(scale=METRIC)(**batch, object_id=torch.tensor([0, 1, 0, 1]))["info"]
    single = InsertionLoss(scale=METRIC)(**(batch | {"k_obj": 0.5}))["info"]
    ratio = (info.s_exp / single.s_exp).flatten().tolist()
    assert ratio == pytest.approx([1, 2, 1, 2])


def test_border_only_bounds_from_above():
    batch = _batch(amplitude=1.0)
    cut = torch.zeros_like(batch["mask"])
    cut[..., 20:, :6] = 1.0
    change = 2.0 * cut
    batch |= {
        "mask": cut,
        "z_tgt": batch["z_ctx"] + change,
        "z_pred": (batch["z_ctx"] + change).requires_grad_(),
    }
    assert InsertionLoss().scale.border_policy == "one_sided"
    small = InsertionLoss(scale=METRIC)(**(batch | {"k_obj": 5.0}))
    large = InsertionLoss(scale=METRIC)(**(batch | {"k_obj": 0.01}))
    assert small["loss_depth"] == 0
    assert large["loss_depth"] > 1


def test_depth_is_optional():
    batch = {n: v for n, v in _batch().items() if n not in ("depth", "f_px", "k_obj")}
    terms, _ = _gradient(InsertionLoss(), batch)
    assert terms["info"] is None
    assert terms["loss_depth"] == 0
    assert not terms["valid"]["depth"].any()


def test_half_precision_is_raised_even_in_autocast():
    batch = _batch()
    expected = InsertionLoss(scale=METRIC)(**batch)["loss"]
    rounded = {n: v.detach().bfloat16() if n.startswith("z_") else v for n, v in batch.items()}
    reference = {n: v.float() if n.startswith("z_") else v for n, v in rounded.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = InsertionLoss(scale=METRIC)(**rounded)["loss"]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, InsertionLoss(scale=METRIC)(**reference)["loss"])
    torch.testing.assert_close(got, expected, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("form", ["unbiased", "graded", "original", ChangeMaskForm(robust=True)])
def test_no_value_is_read_on_another_device(form):
    batch = {n: v.detach().to("meta") if isinstance(v, torch.Tensor) else v for n, v in _batch().items()}
    batch["z_pred"].requires_grad_()
    depths = {"pred_depth": batch["depth"], "target_depth": batch["depth"]}
    flags = {"has_target": torch.ones(4, dtype=torch.bool, device="meta"), "t": torch.rand(4, device="meta")}
    criterion = InsertionLoss(change_mask=form, scale=METRIC, normalise_boundary=True)
    terms = criterion(**batch, **depths, **flags, place=batch["mask"], step=3)
    terms["loss"].backward()
    assert batch["z_pred"].grad.shape == batch["z_pred"].shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_no_host_synchronisation_on_cuda():
    expected = InsertionLoss(scale=METRIC)(**_batch())["loss"]
    batch = {n: v.detach().cuda() if isinstance(v, torch.Tensor) else v for n, v in _batch().items()}
    batch["z_pred"].requires_grad_()
    criterion = InsertionLoss(scale=METRIC)
    criterion(**batch)["loss"].backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        terms = criterion(**batch)
        terms["loss"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(terms["loss"].cpu(), expected, rtol=1e-4, atol=1e-5)


def _unchecked(**options):
    InsertionLoss.__init__.__wrapped__(InsertionLoss(), **options)


def test_bad_input_is_named():
    batch = _batch()
    with pytest.raises(ValueError, match="weight_dice: expected a number that is not negative, got -1"):
        InsertionLoss(weight_dice=-1.0)
    with pytest.raises(ValueError, match="depth_ramp_steps"):
        InsertionLoss(depth_ramp_steps=-5)
    with pytest.raises(ValueError, match=r"w_band: .* got inf"):
        InsertionLoss(w_band=math.inf)
    with pytest.raises(ValueError, match="depth: expected f_px and k_obj beside it"):
        InsertionLoss()(**(batch | {"f_px": None}))
    with pytest.raises(ValueError, match="pred_depth, target_depth: expected both or none"):
        InsertionLoss()(**batch, pred_depth=batch["depth"])
    with pytest.raises(ValueError, match="f_px: expected a positive number, got -3"):
        InsertionLoss()(**(batch | {"f_px": -3.0}))
    with pytest.raises(ValueError, match="place: expected a mask for"):
        InsertionLoss()(**batch, place=torch.zeros(5, 5))
    with pytest.raises(ValueError, match="boundary_convention: expected one of"):
        _unchecked(boundary_convention="inner")
    with pytest.raises(ValueError, match="geometry_weighting: expected one of linear, snr"):
        _unchecked(geometry_weighting="hard")
