"""VSD: the BOP toolkit's numbers, and each of its decisions alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.metrics.visible_surface import BOP_SHARES, distance_from_depth, visible_mask, vsd
from tests.real_data import golden_path
from tests.tolerances import tolerance

F64 = torch.float64
FLAT = torch.tensor([[1e9, 0, 0], [0, 1e9, 0], [0, 0, 1]], dtype=F64)  # so long a lens that distance is depth


def row(*depths):
    return torch.tensor([depths], dtype=F64)


@pytest.fixture(scope="module")
def golden():
    with np.load(golden_path("bop_errors.npz")) as numbers:
        return {name: torch.from_numpy(numbers[name]) for name in numbers.files if name.startswith("vsd")}


@pytest.mark.real
def test_equals_bop_toolkit(golden):
    observed, truth, estimate = (golden[f"vsd_{name}"].double() / 1000 for name in ("observed", "gt", "est"))
    errors = vsd(observed, truth, estimate, golden["vsd_K"], golden["vsd_diameter_mm"].item() / 1000)
    torch.testing.assert_close(errors, golden["vsd_vsd"], rtol=0, atol=1e-6)
    assert golden["vsd_vsd"].std() > 0.1


@pytest.mark.real
def test_batch_equals_loop(golden):
    observed, truth, estimate = (golden[f"vsd_{name}"].double() / 1000 for name in ("observed", "gt", "est"))
    K, diameters = golden["vsd_K"], torch.linspace(0.1, 0.4, 8, dtype=F64)
    together = vsd(observed, truth, estimate, K.expand(8, 3, 3), diameters)
    for index in range(8):
        alone = vsd(observed[index], truth[index], estimate[index], K, diameters[index].item())
        assert torch.equal(together[index], alone)


def test_bop_taus():
    assert tuple(np.arange(0.05, 0.51, 0.05)) == BOP_SHARES


def test_distance_of_a_slanted_ray():
    K = torch.tensor([[100.0, 0, 1], [0, 50, 0], [0, 0, 1]], dtype=F64)
    depth = torch.full((2, 5), 2.0, dtype=F64)
    distance = distance_from_depth(depth, K)
    assert distance[0, 1].item() == 2
    assert distance[1, 4].item() == pytest.approx(2 * np.sqrt(1 + 0.03**2 + 0.02**2), rel=1e-15)
    assert distance_from_depth(torch.zeros_like(depth), K).eq(0).all()


def test_distances_are_compared_not_depths():
    # one wide pixel far off the axis: 0.1 m apart in depth is 0.1 sqrt(2) m along the ray
    K = torch.tensor([[1.0, 0, -1], [0, 1, 0], [0, 0, 1]], dtype=F64)
    errors = vsd(row(0.0), row(1.0), row(1.1), K, 1.0, taus=(0.12, 0.15))
    assert errors.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("observed", "surface", "seen"),
    [
        (1.0, 1.0, True),
        (1.0, 1.0 + 2**-6, True),  # exactly delta behind
        (1.0, 1.0 + 2**-6 + 1e-9, False),
        (1.0, 0.2, True),  # in front of everything
        (0.0, 1.0, True),  # nothing measured
        (float("nan"), 1.0, True),
        (1.0, 0.0, False),  # no object
        (0.0, 0.0, False),
    ],
)
def test_visibility(observed, surface, seen):
    assert visible_mask(row(observed), row(surface), delta=2**-6).item() is seen


def test_tau_is_strict():
    # 0.25 apart with diameter 1: wrong at tau 0.25, right just above
    errors = vsd(row(0.0), row(1.0), row(1.25), FLAT, 1.0, taus=(0.25, 0.2500001))
    assert errors.tolist() == [1, 0]


def test_tau_is_a_share_of_the_diameter():
    assert vsd(row(0.0), row(1.0), row(1.25), FLAT, 2.0, taus=(0.12, 0.13)).tolist() == [1, 0]


def test_pixels_of_one_surface_alone_are_wrong():
    truth, estimate = row(1.0, 1.0, 0.0, 0.0), row(0.0, 1.0, 1.0, 0.0)
    assert vsd(row(0.0, 0, 0, 0), truth, estimate, FLAT, 0.1, taus=(0.5,)).item() == pytest.approx(2 / 3)


def test_hidden_pixels_do_not_count():
    observed = row(0.5, 1.0, 1.0)  # something stands before the first pixel
    truth, estimate = row(1.0, 1.0, 1.0), row(1.2, 1.0, 0.0)
    assert vsd(observed, truth, estimate, FLAT, 0.1, taus=(0.5,)).item() == 0.5


def test_an_estimate_behind_the_true_surface_is_seen():
    # by depth alone 1.1 is hidden behind the observed 1.0, but that is the object itself
    observed, truth, estimate = row(1.0), row(1.0), row(1.1)
    assert vsd(observed, truth, estimate, FLAT, 1.0, taus=(0.05, 0.2)).tolist() == [1, 0]


def test_nothing_visible_is_wrong():
    assert vsd(row(1.0), row(0.0), row(0.0), FLAT, 1.0).tolist() == [1] * 10
    assert vsd(row(0.1), row(1.0), row(1.0), FLAT, 1.0).tolist() == [1] * 10


def test_equal_poses_have_no_error_and_symmetric_arguments_equal_ones():
    generator = torch.Generator().manual_seed(0)
    observed, truth, estimate = 1 + 0.1 * torch.rand(3, 20, 30, generator=generator, dtype=F64)
    truth, estimate = truth * (truth > 1.02), estimate * (estimate > 1.03)
    K = torch.tensor([[30.0, 0, 15], [0, 30, 10], [0, 0, 1]], dtype=F64)
    assert vsd(observed, truth, truth, K, 0.2).eq(0).all()
    unmeasured = torch.zeros_like(observed)  # so that both surfaces are visible everywhere
    torch.testing.assert_close(
        vsd(unmeasured, truth, estimate, K, 0.2), vsd(unmeasured, estimate, truth, K, 0.2), **tolerance(F64)
    )
