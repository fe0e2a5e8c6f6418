"""Picture and cards in, verified poses out: match, solve, match again where the pose says, verify."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.boxes import clip, iou
from sightline.geometry.cameras import Camera
from sightline.geometry.pnp import solve_pnp
from sightline.geometry.poses import transform
from sightline.objects.alignment import align_pose
from sightline.objects.card import ObjectCard
from sightline.objects.checks import check_depth, raise_faults
from sightline.objects.depth_refinement import settle_on_depth
from sightline.objects.pose_errors import ErrorModel
from sightline.objects.verification import Verification, verify_pose
from sightline.pipeline.ambiguity import with_alternatives
from sightline.pipeline.depth_candidates import poses_by_depth
from sightline.pipeline.matcher import BoxFinder, Matcher, PictureFeatures
from sightline.records import Correspondences, PoseEstimate, TriangleMesh

_WORTH_ALIGNING = 0.2  # a pose that scores less is not a few pixels off but wrong
_FEWEST_INLIERS = 5  # of a first guess, before matching again
_SURE = 0.65  # a pose that scores more ends the search for a better one


@dataclass(frozen=True, eq=False)
class FoundObject:
    """One object in one picture: its pose and why it is, or is not, believed.

    Args:
        card: the object.
        pose: its pose; ``pose.score`` is the verification score.
        box: ``(4,)`` float64 ``xyxy`` pixels of the projected object, clipped to the picture; NaN if invalid.
        correspondences: what the pose was solved from; ``pose.inliers`` selects among them.
        verification: the rendered comparison; None for a card without a mesh.
        seconds: time spent by step.
        from_prior: whether an expected pose led to it.
    """

    card: ObjectCard
    pose: PoseEstimate
    box: Float[Tensor, "4"]
    correspondences: Correspondences | None = None
    verification: Verification | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    from_prior: bool = False


class PoseEstimator:
    """Finds the objects of some cards in pictures.

    Args:
        cards: the objects.
        matcher: makes correspondences.
        min_score: the lowest verification score of a valid pose.
        min_inliers: the lowest number of supporting correspondences of a valid pose.
        max_instances: of one object in one picture.
        box_finder: says where to look for an object of which no box is given; without it the matcher looks
            everywhere.
        errors: how far poses are really off, by which their covariances are widened; not at all unless given.
    """

    def __init__(
        self,
        cards: Sequence[ObjectCard],
        matcher: Matcher,
        *,
        min_score: float = 0.4,
        min_inliers: int = 6,
        max_instances: int = 1,
        box_finder: BoxFinder | None = None,
        errors: ErrorModel | None = None,
    ) -> None:
        self.cards = list(cards)
        self.matcher = matcher
        self.min_score = min_score
        self.min_inliers = min_inliers
        self.max_instances = max_instances
        self.box_finder = box_finder
        self.errors = errors

    def grow(self, card: ObjectCard) -> None:
        """Put a card that has grown by one template in the place of its former state."""
        self.cards = [card if card.name == old.name else old for old in self.cards]
        self.matcher.extend(card)

    def find(
        self,
        image: NDArray[np.uint8],
        camera: Camera,
        *,
        depth: Float[Tensor, "h w"] | None = None,
        boxes: dict[str, Float[Tensor, "4"]] | None = None,
        priors: dict[str, Float[Tensor, "4 4"]] | None = None,
    ) -> list[FoundObject]:
        """Find all objects in a picture.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            camera: its camera.
            depth: ``(h, w)`` metres, 0 or NaN where missing; what a card with a mesh is moved onto, and
                verified by.
            boxes: where to look for an object, by name; ``xyxy`` pixels.
            priors: where an object is expected, by name, metres; tried before blind matching.

        Returns:
            At least one entry a card: its instances, best first, or one invalid pose that says why.
        """
        if depth is not None:
            raise_faults(check_depth(depth, camera))
        started = time.perf_counter()
        features = self.matcher.describe(image)
        describing = time.perf_counter() - started
        picture = _Picture(image, camera, features, depth)
        tracked = {
            name: replace(one, from_prior=True)
            for name, one in self._tracked(picture, priors or {}).items()
            if one.pose.valid
        }
        places, detecting = self._places(picture, boxes or {}, set(tracked))
        found: list[FoundObject] = []
        for card in self.cards:
            if card.name in tracked:
                ones = [tracked[card.name]]
            else:
                ones = self._search(picture, card, places[card.name])
            found += [
                replace(one, seconds={"features": describing, **detecting, **one.seconds}) for one in ones
            ]
        return _drop_contradictions(found)

    def _tracked(self, picture: _Picture, priors: dict[str, Tensor]) -> dict[str, FoundObject]:
        """What is found from where it is expected, by name."""
        return {
            card.name: self._follow(picture, card, priors[card.name])
            for card in self.cards
            if card.name in priors
        }

    def _places(
        self, picture: _Picture, boxes: dict[str, Tensor], tracked: set[str]
    ) -> tuple[dict[str, list[Tensor | None]], dict[str, float]]:
        """Where to look for each object that is not found yet, None for everywhere; and the time it took."""
        places: dict[str, list[Tensor | None]] = {
            card.name: [boxes[card.name]] if card.name in boxes else [None] for card in self.cards
        }
        unknown = [card for card in self.cards if card.name not in boxes and card.name not in tracked]
        if self.box_finder is None or not unknown:
            return places, {}
        started = time.perf_counter()
        seen = self.box_finder.find_boxes(picture.image, unknown)
        places |= {card.name: list(seen[card.name]) for card in unknown}
        return places, {"detect": time.perf_counter() - started}

    def _search(self, picture: _Picture, card: ObjectCard, places: list[Tensor | None]) -> list[FoundObject]:
        """The instances of one object, or one invalid pose that says why there is none."""
        if not places:
            return [_not_found(card, "the detector sees it nowhere", {})]
        candidates: list[FoundObject] = []
        for box in places:
            candidates += self._candidates(picture, card, box)
            candidates.sort(key=lambda c: (c.pose.valid, c.pose.score), reverse=True)
            if len(_sure(candidates)) >= self.max_instances:
                break
        valid = _distinct([c for c in candidates if c.pose.valid])[: self.max_instances]
        return [_with_alternatives(one, candidates) for one in valid] or candidates[:1]

    def _candidates(self, picture: _Picture, card: ObjectCard, box: Tensor | None) -> list[FoundObject]:
        """Poses of one object in one place, until there are enough that are sure."""
        candidates = self._by_depth(picture, card, box)
        if len(_sure(candidates)) >= self.max_instances:
            return candidates
        started = time.perf_counter()
        groups = self.matcher.match(picture.features, card, box=box, max_groups=4 + 2 * self.max_instances)
        matching = time.perf_counter() - started
        candidates = [replace(one, seconds={"match": matching, **one.seconds}) for one in candidates]
        if not (groups or candidates):
            return [_not_found(card, "too few matches agree on a place", {"match": matching})]
        for group in groups:
            one = self._solve_group(picture, card, group)
            candidates.append(replace(one, seconds={"match": matching, **one.seconds}))
            if len(_sure(candidates)) >= self.max_instances:
                break
        return candidates

    def _by_depth(self, picture: _Picture, card: ObjectCard, box: Tensor | None) -> list[FoundObject]:
        """Poses that the depth picture suggests in a box, whatever the matcher sees there."""
        if picture.depth is None or box is None or card.mesh is None:
            return []
        started = time.perf_counter()
        poses = poses_by_depth(card.mesh, picture.image, picture.camera, picture.depth, box, name=card.name)
        seconds = {"depth": time.perf_counter() - started}
        return [self._believed(picture, card, pose, check, None, seconds) for pose, check in poses]

    def _follow(self, picture: _Picture, card: ObjectCard, prior: Tensor) -> FoundObject:
        """From an expected pose: matches within a wide, then a narrow reach."""
        return self._refine(picture, card, prior, reaches=(12.0, 3.0), seconds={})

    def _solve_group(self, picture: _Picture, card: ObjectCard, group: Correspondences) -> FoundObject:
        started = time.perf_counter()
        first = solve_pnp(
            group.points_2d,
            group.points_3d,
            picture.camera,
            weights=group.weights,
            max_error_px=2 * picture.tolerance_px,
            # a handful may be right: the rendered comparison decides, not the count
            min_inliers=_FEWEST_INLIERS,
        )
        seconds = {"solve": time.perf_counter() - started}
        if not first.valid:
            return _not_found(card, first.reason, seconds)
        return self._refine(picture, card, first.cam_from_obj, reaches=(4.0, 2.0), seconds=seconds)

    def _refine(
        self,
        picture: _Picture,
        card: ObjectCard,
        cam_from_obj: Tensor,
        *,
        reaches: tuple[float, ...],
        seconds: dict[str, float],
    ) -> FoundObject:
        started = time.perf_counter()
        for reach in reaches:
            matches = self.matcher.rematch(
                picture.features, card, picture.camera, cam_from_obj, radius_px=reach * picture.tolerance_px
            )
            if len(matches) < self.min_inliers:
                return _not_found(card, f"{len(matches)} matches support the pose", seconds)
            result = solve_pnp(
                matches.points_2d,
                matches.points_3d,
                picture.camera,
                weights=matches.weights,
                max_error_px=picture.tolerance_px,
                min_inliers=self.min_inliers,
            )
            if not result.valid:
                return _not_found(card, result.reason, seconds)
            cam_from_obj = result.cam_from_obj
        refined = time.perf_counter()
        seconds = {**seconds, "refine": refined - started}
        pose = PoseEstimate(
            R=result.R,
            t=result.t,
            score=0.0,
            valid=True,
            covariance=result.covariance * self.matcher.errors_in_common,
            inliers=result.inliers,
            residual_px=result.residual_px,
            reason=result.reason,
            name=card.name,
        )
        return self._verify(picture, card, pose, matches, seconds)

    def _verify(
        self,
        picture: _Picture,
        card: ObjectCard,
        pose: PoseEstimate,
        matches: Correspondences,
        seconds: dict[str, float],
    ) -> FoundObject:
        started = time.perf_counter()
        check = None
        score = 1.0 - float(np.exp(-pose.num_inliers / 20.0))
        reason = "not verified: the card has no mesh"
        if card.mesh is not None:
            pose, check = self._align(picture, card.mesh, pose)
            score, reason = check.score, pose.reason
        seconds = {**seconds, "verify": time.perf_counter() - started}
        return self._believed(
            picture, card, replace(pose, score=score, reason=reason), check, matches, seconds
        )

    def _believed(
        self,
        picture: _Picture,
        card: ObjectCard,
        pose: PoseEstimate,
        check: Verification | None,
        matches: Correspondences | None,
        seconds: dict[str, float],
    ) -> FoundObject:
        """A verified pose, or an invalid one that says what is against it."""
        doubt = ""
        if matches is not None and pose.num_inliers < self.min_inliers:
            doubt = f"{pose.num_inliers} inliers, at least {self.min_inliers} are asked for"
        elif pose.score < self.min_score:
            doubt = (
                f"the picture does not bear the pose out: score {pose.score:.2f} below {self.min_score:.2f}"
            )
        if doubt:
            nothing = PoseEstimate.failure(doubt, name=card.name)
            pose = replace(nothing, score=pose.score, inliers=pose.inliers, residual_px=pose.residual_px)
        else:
            pose = self._widened(picture, card, pose)
        box = projected_box(card, pose.cam_from_obj, picture.camera)
        return FoundObject(card, pose, box, matches, check, seconds)

    def _widened(self, picture: _Picture, card: ObjectCard, pose: PoseEstimate) -> PoseEstimate:
        """A pose whose covariance says how far off such poses are."""
        if self.errors is None or pose.covariance is None:
            return pose
        errors = self.errors.picture if picture.depth is None else self.errors.depth
        size = torch.tensor(card.diameter, dtype=torch.float64)
        covariance = errors.widen(pose.covariance, pose.cam_from_obj, card.center.double(), size, pose.score)
        return replace(pose, covariance=covariance, covariance_freedom=errors.freedom)

    def _align(
        self, picture: _Picture, mesh: TriangleMesh, pose: PoseEstimate
    ) -> tuple[PoseEstimate, Verification]:
        """Verify a pose, and move it onto the picture, and onto its depth, where that is better borne out."""
        image, camera, depth = picture.image, picture.camera, picture.depth
        check = verify_pose(mesh, pose.cam_from_obj, image, camera, depth=depth)
        if check.score >= _WORTH_ALIGNING:
            moved = align_pose(mesh, pose.cam_from_obj, image, camera, covariance=pose.covariance)
            better = verify_pose(mesh, moved, image, camera, depth=depth)
            if better.score > check.score:
                pose, check = replace(pose, R=moved[:3, :3], t=moved[:3, 3]), better
        if depth is None:
            return pose, check
        return settle_on_depth(mesh, pose, check, image, camera, depth)


@dataclass(frozen=True, eq=False)
class _Picture:
    image: NDArray[np.uint8]
    camera: Camera
    features: PictureFeatures
    depth: Tensor | None

    @property
    def tolerance_px(self) -> float:
        """How far an inlier may lie off: a two-hundredth of the picture's diagonal."""
        return max(2.0, float(np.hypot(self.camera.width, self.camera.height)) / 200)


def projected_box(card: ObjectCard, cam_from_obj: Float[Tensor, "4 4"], camera: Camera) -> Float[Tensor, "4"]:
    """The ``xyxy`` box around the projected object, clipped to the picture, pixels."""
    points = card.mesh.vertices if card.mesh is not None else torch.cartesian_prod(*card.bounds.T)
    pixels = camera.project(transform(cam_from_obj, points.double()))
    pixels = pixels[pixels.isfinite().all(1)]
    if len(pixels) == 0:
        return torch.full((4,), torch.nan, dtype=torch.float64)
    return clip(torch.cat([pixels.amin(0), pixels.amax(0)]), camera.image_size)


def _not_found(card: ObjectCard, reason: str, seconds: dict[str, float]) -> FoundObject:
    nothing = torch.full((4,), torch.nan, dtype=torch.float64)
    return FoundObject(card, PoseEstimate.failure(reason, name=card.name), nothing, seconds=seconds)


def _sure(candidates: list[FoundObject]) -> list[FoundObject]:
    """Those that need no better one, each place once."""
    return _distinct([c for c in candidates if c.pose.valid and c.pose.score > _SURE])


def _distinct(candidates: list[FoundObject]) -> list[FoundObject]:
    """The best of those that lie on each other."""
    kept: list[FoundObject] = []
    for one in candidates:
        if all(_overlap(one, other) < 0.5 for other in kept):
            kept.append(one)
    return kept


def _with_alternatives(one: FoundObject, candidates: list[FoundObject]) -> FoundObject:
    """One of them, with what else the picture bears out at its place."""
    others = [c.pose for c in candidates if c is not one and _overlap(one, c) >= 0.5]
    return replace(one, pose=with_alternatives(one.pose, others, one.card.symmetries))


def _drop_contradictions(found: list[FoundObject]) -> list[FoundObject]:
    """Where two objects claim the same place, the one that the picture bears out better stays."""
    order = sorted((f for f in found if f.pose.valid), key=lambda f: f.pose.score, reverse=True)
    kept = _distinct(order)
    result = []
    for one in found:
        if not one.pose.valid or any(one is k for k in kept):
            result.append(one)
        elif not any(k.card.name == one.card.name for k in kept):
            rival = next(k for k in kept if _overlap(one, k) >= 0.5)
            reason = f"{rival.card.name} fits better at the same place"
            result.append(_not_found(one.card, reason, one.seconds))
    return result


def _overlap(a: FoundObject, b: FoundObject) -> float:
    return float(iou(a.box, b.box))
