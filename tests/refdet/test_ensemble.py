"""Several opinions on one picture: fused as the paper says, and brought back exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.formats.refdet_templates import TemplatePicture
from sightline.nn.checkpoint import save_model
from sightline.objects.card_files import save_card
from sightline.objects.onboard import onboard_mesh
from sightline.refdet.bank_detector import DetectorSettings
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.ensemble import DetectorEnsemble, fuse
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.selection import Proposals
from sightline.synthetic import make_object

SETTINGS = DetectorSettings((96, 64), (64, 64), score_threshold=0.001)
HERE, NEAR, THERE = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [30.0, 0.0, 40.0, 10.0]


def proposals(*boxes_and_scores: tuple[list[float], float]) -> Proposals:
    boxes = torch.tensor([box for box, _ in boxes_and_scores], dtype=torch.float64).view(-1, 4)
    return Proposals(boxes, torch.tensor([score for _, score in boxes_and_scores], dtype=torch.float64))


def small_model(seed: int) -> ConvNeXtRefDet:
    torch.manual_seed(seed)
    return ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,)).eval()


@pytest.fixture(scope="module")
def single() -> ReferenceDetector:
    return ReferenceDetector(small_model(0), SETTINGS, name="one")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (70, 110, 3), dtype=np.uint8)


def test_weighted_fusion_by_hand():
    fused = fuse([proposals((HERE, 0.6), (THERE, 0.4)), proposals((NEAR, 0.2)), Proposals.none()])
    expected = [0.0, 0.0, 10.0, (0.6 * 10 + 0.2 * 8) / 0.8]
    torch.testing.assert_close(fused.boxes, torch.tensor([expected, THERE], dtype=torch.float64))
    torch.testing.assert_close(fused.scores, torch.tensor([0.8 / 3, 0.4 / 3], dtype=torch.float64))


def test_an_opinion_counts_once_at_a_place():
    fused = fuse([proposals((HERE, 0.6), (NEAR, 0.5)), proposals((HERE, 0.4))])
    assert fused.scores.tolist() == pytest.approx([0.5])
    assert fused.boxes.tolist() == [HERE]


@pytest.mark.parametrize("fusion", ["weighted", "matrix"])
def test_the_order_of_opinions_does_not_matter(fusion):
    opinions = [proposals((HERE, 0.6), (THERE, 0.4)), proposals((NEAR, 0.2)), proposals((THERE, 0.7))]
    there, back = fuse(opinions, fusion=fusion), fuse(opinions[::-1], fusion=fusion)
    torch.testing.assert_close(there.boxes, back.boxes)
    torch.testing.assert_close(there.scores, back.scores)


def test_fusion_of_one_or_of_nothing():
    assert fuse([proposals((HERE, 0.6))]).boxes.tolist() == [HERE]
    assert not len(fuse([Proposals.none(), Proposals.none()]).scores)
    flat = fuse([proposals(([5.0, 5.0, 5.0, 9.0], 0.5)), proposals((HERE, 0.0))])
    assert flat.boxes.isfinite().all()
    with pytest.raises(ValueError, match="fusion must be weighted or matrix"):
        fuse([Proposals.none()], fusion="mean")


def test_an_ensemble_of_one_opinion_is_the_detector(single, image):
    ensemble = DetectorEnsemble([single])
    template = [TemplatePicture(image[:40, :40])]
    expected = single.detect(image, {"a": single.onboard(template)})
    found = ensemble.detect(image, {"a": ensemble.onboard(template)})
    assert len(expected) > 0
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize("size", [(70, 110), (71, 63)])
def test_a_mirrored_picture_is_searched_with_mirrored_templates(single, size):
    """Everything mirrored gives the same boxes, mirrored: with flip, picture and mirror image are alike."""
    image = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    ensemble = DetectorEnsemble([single], flip=True)
    mask = np.zeros(size, bool)
    mask[5:40, 3:30] = True
    template = TemplatePicture(image, mask)
    mirrored = TemplatePicture(image[:, ::-1].copy(), mask[:, ::-1].copy())
    (there,) = ensemble.propose(image, [ensemble.onboard([template])])
    (back,) = ensemble.propose(image[:, ::-1].copy(), [ensemble.onboard([mirrored])])
    assert len(there.scores) > 3
    width = size[1]
    again = torch.stack(
        [width - 1 - back.boxes[:, 2], back.boxes[:, 1], width - 1 - back.boxes[:, 0], back.boxes[:, 3]], 1
    )
    count = min(len(there.scores), len(back.scores), 3)
    torch.testing.assert_close(there.scores[:count], back.scores[:count], atol=1e-3, rtol=0)
    torch.testing.assert_close(there.boxes[:count], again[:count], atol=0.1, rtol=0)


def test_the_bank_of_a_mirror_is_another_one(single, image):
    template = [TemplatePicture(image[:40, :40])]
    bank = DetectorEnsemble([single], flip=True).onboard(template)
    plain, mirrored = (each[0].to_tensors()["level8.kernel"] for each in bank)
    assert not torch.allclose(plain, mirrored, atol=1e-3)
    assert DetectorEnsemble([single]).onboard(template).mirrored == ()


def test_scales_and_weights_are_opinions(image, tmp_path):
    paths = []
    for seed, size in ((0, [96, 64]), (1, [128, 96])):
        model = small_model(seed)
        paths.append(tmp_path / f"w{seed}.safetensors")
        save_model(paths[-1], model, model.config, {"search_size": size, "template_size": [64, 64]})
    ensemble = DetectorEnsemble.from_checkpoints(
        paths, flip=True, scales=(1.0, 1.5), score_threshold=0.001, tiles="auto"
    )
    assert len(ensemble.opinions) == 8
    assert ensemble.name == "w0+w1"
    assert [each.settings.search_size for each in ensemble.detectors] == [(96, 64), (128, 96)]
    assert {each.settings.tiles for each in ensemble.detectors} == {"auto"}
    bank = ensemble.onboard([TemplatePicture(image[:40, :40])])
    assert len(bank.plain) == len(bank.mirrored) == 2
    found = ensemble.detect(image, {"a": bank}, negatives=[bank])
    assert len(found) > 0
    assert found.boxes.isfinite().all()
    region = torch.tensor([49.5, 29.5, 97.5, 61.5])
    inside = ensemble.detect(image, {"a": bank}, region=region)
    assert len(inside) > 0
    assert inside.boxes[:, 0].min() > 49.5
    assert inside.boxes[:, 2].max() < 97.5


def test_a_card_keeps_both_banks(single, tmp_path):
    card = save_card(onboard_mesh(make_object("can", 0).mesh, name="can", num_views=42), tmp_path / "can")
    ensemble = DetectorEnsemble([single], flip=True)
    bank = ensemble.onboard_card(card, max_templates=2)
    names = sorted(path.stem for path in (tmp_path / "can" / "features").iterdir())
    assert len(names) == 2
    assert names[1] == f"{names[0]}-mirrored"
    again = ensemble.onboard_card(card, max_templates=2)
    assert torch.equal(
        bank.mirrored[0].to_tensors()["level8.kernel"], again.mirrored[0].to_tensors()["level8.kernel"]
    )


def test_what_cannot_be_an_ensemble(single, tmp_path: Path):
    with pytest.raises(ValueError, match="detectors: expected at least one"):
        DetectorEnsemble([])
    with pytest.raises(ValueError, match="scales: expected positive numbers"):
        DetectorEnsemble([single], scales=(1.0, 0.0))
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        DetectorEnsemble.from_checkpoints([tmp_path / "none.safetensors"])
