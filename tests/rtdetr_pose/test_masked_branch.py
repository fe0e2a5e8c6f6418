"""Masked reconstruction: what is hidden, what it is told from, and that nothing else notices."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.depth import create_geom_input
from sightline.rtdetr_pose.masked_branch import DecoderMIM, RenderTeacher, cell_geometry, resize_mask
from sightline.rtdetr_pose.masking import ADVISED_RATIO, generate_mask, prepare_geometry
from sightline.rtdetr_pose.model import RTDETRPose
from sightline.rtdetr_pose.reconstruction_losses import mim_reconstruction_loss

SMALL = {"backbone_config": {"hidden_sizes": [16, 16, 24, 32], "embedding_size": 16}, "num_denoising": 20}


def small_model(enable_mim: bool = True, **options) -> RTDETRPose:
    torch.manual_seed(0)
    return RTDETRPose(4, 32, 12, enable_mim, backbone="tiny", detector=SMALL, **options)


def geometry(batch: int = 2, channels: int = 2) -> torch.Tensor:
    mask = (torch.rand(batch, 16, 24) > 0.5).float()
    depth = torch.rand(batch, 16, 24) + 1
    return create_geom_input(mask, depth, with_validity=channels == 3)


def test_parameters_of_the_seeds_networks():
    count = {cls: sum(p.numel() for p in cls().parameters()) for cls in (RenderTeacher, DecoderMIM)}
    assert count == {RenderTeacher: 370_688, DecoderMIM: 1_246_464}


@pytest.mark.parametrize("training", [False, True])
def test_without_return_mim_the_branch_changes_nothing(training):
    plain, branched = small_model(False).train(training), small_model(True).train(training)
    picture = torch.rand(2, 3, 64, 96)
    for name in ("logits", "bbox", "log_z", "rot6d", "offsets", "k_delta"):
        assert torch.equal(plain(picture)[name], branched(picture)[name]), name


def test_the_branch_draws_no_random_number_of_others():
    small_model(False)
    without = torch.rand(4)
    small_model(True)
    assert torch.equal(torch.rand(4), without)


def test_predictions_see_masked_features_only_on_request():
    model = small_model().eval()
    picture, mask = torch.rand(2, 3, 64, 96), generate_mask(0.6, (3, 2), seed=1)
    with torch.no_grad():
        plain = model(picture)
        unmasked = model(picture, geometry(), mask, return_mim=True)
        masked = model(picture, geometry(), mask, return_mim=True, masked_predictions=True)
    assert torch.equal(plain["logits"], unmasked["logits"])
    assert not torch.allclose(plain["logits"], masked["logits"])
    assert torch.equal(masked["mim"]["recon_feat"], unmasked["mim"]["recon_feat"])


def test_shapes_of_masks_agree():
    model, picture = small_model().eval(), torch.rand(2, 3, 64, 96)
    mask = generate_mask(0.5, (3, 2), seed=2)
    forms = [mask, mask.expand(2, 2, 3), mask.expand(2, 1, 2, 3), mask.float(), mask.repeat_interleave(32, 0)]
    with torch.no_grad():
        found = [model(picture, None, form, return_mim=True)["mim"] for form in forms]
    for each in found:
        assert each["mask"].shape == (2, 2, 3)
        assert each["teacher_feat"] is None
        assert torch.equal(each["mask"], found[0]["mask"])
        assert torch.equal(each["recon_feat"], found[0]["recon_feat"])


@pytest.mark.parametrize("size", [(32, 96), (96, 32), (32, 32)])
def test_a_single_row_or_column_of_cells(size):
    width, height = size
    model = small_model().train()
    cells = (width // 32, height // 32)
    outputs = model(torch.rand(2, 3, height, width), geometry(), generate_mask(1.0, cells), return_mim=True)
    mim = outputs["mim"]
    assert mim["mask"].shape == (2, *cells[::-1])
    assert mim_reconstruction_loss(mim["recon_feat"], mim["teacher_feat"], mim["mask"]).isfinite()


@pytest.mark.parametrize("shape", [(3, 2, 3), (2, 2, 2, 3), (6,)])
def test_masks_of_other_shapes(shape):
    with pytest.raises(ValueError, match="feature_mask: expected"):
        resize_mask(torch.ones(shape), 2, (2, 3))


def test_no_mask_hides_nothing():
    mim = small_model().eval()(torch.rand(1, 3, 64, 64), geometry(1), return_mim=True)["mim"]
    assert not mim["mask"].any()
    assert mim_reconstruction_loss(mim["recon_feat"], mim["teacher_feat"], mim["mask"]).item() == 0
    assert mim["entropy"].requires_grad


def test_a_model_without_the_branch_says_so():
    with pytest.raises(ValueError, match="enable_mim=True"):
        small_model(False)(torch.rand(1, 3, 64, 64), return_mim=True)


def test_the_teacher_stands_still():
    model = small_model()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    before = {name: value.clone() for name, value in model.mim.teacher.state_dict().items()}
    for _ in range(2):
        model.train()
        mim = model(torch.rand(2, 3, 64, 96), geometry(), generate_mask(0.6, (3, 2), seed=3), True)["mim"]
        assert not mim["teacher_feat"].requires_grad
        (
            mim_reconstruction_loss(mim["recon_feat"], mim["teacher_feat"], mim["mask"]) + mim["entropy"]
        ).backward()
        optimiser.step()
    assert not model.mim.teacher.training
    assert all(torch.equal(value, before[name]) for name, value in model.mim.teacher.state_dict().items())
    assert model.mim.token.grad is not None


def test_masked_statistics_are_not_remembered():
    model, picture = small_model().train(), torch.rand(2, 3, 64, 96)
    other = small_model().train()
    model(picture)
    other(picture, geometry(), generate_mask(0.6, (3, 2), seed=3), True)
    for (name, one), two in zip(
        model.detector.encoder.named_buffers(), other.detector.encoder.buffers(), strict=True
    ):
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(one, two), name


def test_hidden_cells_get_no_gradient():
    model = small_model().eval()
    coarsest = torch.randn(1, 32, 2, 3, requires_grad=True)
    mask = torch.tensor([[[True, False, True], [False, True, False]]])
    model.mim.decoder(model.mim.hide(coarsest, mask)).square().sum().backward()
    assert coarsest.grad is not None
    reached = coarsest.grad.abs().sum(1)[0] > 0
    assert torch.equal(reached, ~mask[0])


def test_the_encoder_fills_in_what_is_hidden():
    """The loss reaches attention and the visible cells, so it is not only a convolution that fills in."""
    model = small_model().train()
    mim = model(torch.rand(2, 3, 64, 96), geometry(), generate_mask(0.5, (3, 2), seed=4), True)["mim"]
    mim_reconstruction_loss(mim["recon_feat"], mim["teacher_feat"], mim["mask"]).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert "detector.encoder.aifi.0.layers.0.self_attn.q_proj.weight" in reached
    assert any(name.startswith("detector.backbone") for name in reached)


@pytest.mark.parametrize("target", ["teacher", "cells"])
@pytest.mark.parametrize("channels", [2, 3])
def test_targets(target, channels):
    model = small_model(mim_target=target, mim_geom_channels=channels).eval()
    geom = geometry(channels=3)
    mim = model(torch.rand(2, 3, 64, 96), geom, generate_mask(0.5, (3, 2), seed=4), True)["mim"]
    assert mim["recon_feat"].shape == mim["teacher_feat"].shape
    if target == "cells":
        torch.testing.assert_close(mim["teacher_feat"], cell_geometry(geom, (2, 3)))


def test_geometry_of_cells_leaves_missing_depth_out():
    mask = torch.ones(1, 4, 4)
    depth = torch.full((1, 4, 4), 2.0)
    depth[0, 0, 0], depth[0, 0, 1], depth[0, 3, 3] = 8.0, torch.nan, 0.0
    geom = create_geom_input(mask, depth, with_validity=True)
    occupancy, mean, edge = cell_geometry(geom, (2, 2))[0]
    assert occupancy.tolist() == [[1, 1], [1, 1]]
    assert edge.abs().max() == 0
    torch.testing.assert_close(mean, torch.tensor([[math.log(4.0) / 3, 0.0], [0.0, 0.0]]))
    assert cell_geometry(torch.full((1, 2, 4, 4), torch.nan)[:, :2], (2, 2))[:, 1].isfinite().all()


def test_all_or_nothing_is_hidden():
    assert not generate_mask(0.0, (10, 10)).any()
    assert generate_mask(1.0, (10, 10)).all()


def test_share_of_hidden_cells():
    shares = [generate_mask(0.6, (10, 10), seed=seed).float().mean().item() for seed in range(40)]
    assert all(abs(share - 0.6) < 0.147 + 0.06 for share in shares)
    assert sum(shares) / len(shares) == pytest.approx(0.6, abs=0.147 / 40**0.5 * 1.2)
    assert ADVISED_RATIO[0] <= 0.6 <= ADVISED_RATIO[1]


def test_masks_are_the_seeds_own():
    one, two = (generate_mask(0.6, (7, 5), batch=3, seed=9) for _ in range(2))
    assert one.shape == (3, 5, 7)
    assert torch.equal(one, two)
    assert torch.equal(one, generate_mask(0.6, (7, 5), batch=3, generator=torch.Generator().manual_seed(9)))
    assert not torch.equal(one[0], one[1])


def test_patches_hide_cells_whole():
    pixels = generate_mask(0.5, (150, 100), patch=64, seed=0)
    assert pixels.shape == (100, 150)
    cells = generate_mask(0.5, (160, 96), patch=64, seed=0).view(3, 32, 5, 32).float().mean((1, 3))
    assert set(cells.unique().tolist()) <= {0.0, 1.0}
    full = generate_mask(0.5, (160, 96), patch=32, seed=5)
    assert torch.equal(resize_mask(full, 1, (3, 5))[0], full[::32, ::32])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prob": 1.2}, "probability"),
        ({"size": (0, 3)}, "at least 1"),
        ({"seed": 1, "generator": torch.Generator()}, "not both"),
    ],
)
def test_masks_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_mask(**arguments)


def test_prepared_geometry_keeps_depths_relative_to_each_other():
    """Two objects of 2 and 4 m differ by ln 2; pixels off the objects and holes hold nothing."""
    mask, depth = torch.zeros(1, 1, 64, 64), torch.full((1, 1, 64, 64), 9.0)
    mask[..., :32, :32], mask[..., 32:, 32:] = 1, 1
    depth[..., :32, :32], depth[..., 32:, 32:], depth[..., 40:48, 40:48] = 2, 4, 0
    geom = prepare_geometry(torch.rand(1, 3, 64, 64), mask=mask, depth=depth, stride=8)[0]
    near, far = geom[1, 1, 1].item(), geom[1, 7, 7].item()
    assert far - near == pytest.approx(math.log(2))
    assert geom[:, 5, 5].tolist() == [1, 0, 0]
    assert geom[:, 0, 7].tolist() == [0, 0, 0]
    same = prepare_geometry(torch.rand(1, 3, 64, 64), mask=mask, depth=depth * 7, stride=8)[0]
    torch.testing.assert_close(same, geom)


def test_geometry_of_another_size():
    with pytest.raises(ValueError, match="depth: expected"):
        prepare_geometry(torch.rand(1, 3, 64, 64), mask=torch.ones(64, 64), depth=torch.ones(32, 32))


def test_the_fast_path_is_the_same_reconstruction():
    model, picture = small_model().eval(), torch.rand(2, 3, 64, 96)
    mask, geom = generate_mask(0.6, (3, 2), seed=1), geometry()
    with torch.no_grad():
        features = model.encode_backbone(picture)
        whole = model(picture, geom, mask, return_mim=True)
        fast = model.reconstruct(features, geom, mask)
        again = model.forward_from_features(features, geom, mask, True)
    for name in ("recon_feat", "teacher_feat", "mask"):
        assert torch.equal(whole["mim"][name], fast[name])
    assert torch.equal(whole["logits"], again["logits"])


def test_a_decoder_learns_more_than_the_best_constant():
    """Held-out pictures whose halves have one depth each: what is hidden follows from what is seen."""
    model = small_model(mim_target="cells").train()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        near = torch.rand(count, 1, 1, 1, generator=generator) > 0.5
        left = (torch.arange(96) < 48)[None, None, None].expand(count, 1, 64, 96) == near
        return left.float().expand(-1, 3, -1, -1), torch.cat([left.float(), left * 0.5 - 0.25 * left], 1)

    for _ in range(40):
        picture, geom = draw(8)
        mask = generate_mask(0.5, (3, 2), batch=8, generator=generator)
        found = model.reconstruct(model.encode_backbone(picture), geom, mask)
        loss = mim_reconstruction_loss(found["recon_feat"], found["teacher_feat"], found["mask"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    picture, geom = draw(64)
    mask = generate_mask(0.5, (3, 2), batch=64, generator=generator)
    with torch.no_grad():
        found = model.reconstruct(model.encode_backbone(picture), geom, mask)
    truth = found["teacher_feat"]
    constant = (
        truth.flatten(2).permute(1, 0, 2).flatten(1).median(1).values.view(1, -1, 1, 1).expand_as(truth)
    )
    own, best = (
        mim_reconstruction_loss(guess, truth, found["mask"]).item()
        for guess in (found["recon_feat"], constant)
    )
    assert own < 0.5 * best
