"""Teach a small latent model to insert one object into rooms, with and without the depth-aware scale term.

A can of 30 cm stands in generated rooms. Of each training room there is one picture without it (the
context), one with it (the target), and a depth map of the empty room. The model gets the context's latents,
a place to fill, the spot where the object shall stand, inverse depth and focal length, and predicts the
target's latents. How large the can must be drawn is written nowhere: it follows from depth and focal length.

In the pairs the can stands near, as in pictures that somebody took of it; on held-out rooms it stands near
and far. Each step also offers places at all distances in the training rooms, for which no target exists. The
depth term needs none: it asks there for the size that depth implies. The arms differ in nothing else:

    without        the recipe with a depth weight of 0
    with           the recipe with the depth term
    shuffled       the depth term reads another room's depth and focal length (control: it must lose the gain)
    truth          the true targets, judged in the same way: what the measurement itself costs

    python examples/insert_object.py --seeds 3 --output insert_object

prints the table and writes table.json, errors.png (the distribution of the size error on held-out rooms) and
pictures.png (rooms, truth, and what each arm draws).
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.depth_scale import ScaleOptions, estimate_k_obj_from_dataset, measure_scale
from sightline.depth_scale.insertion import InsertionLoss
from sightline.formats.images import write_image
from sightline.formats.json_files import write_json
from sightline.synthetic import make_object
from sightline.synthetic.insertion import InsertionScene, make_insertion_scene
from sightline.vis import plot_errors

PATCH, CHANNELS, PICTURE = 4, 16, 128
NUM_HELD_OUT, FREE_PLACES = 160, 3
PAIRED_M = (0.7, 1.2)  # how far the can stands in the pairs; on held-out rooms 0.7 to 2.2 m
ARMS = {"without": 0.0, "with": 1.0, "shuffled": 1.0}  # weight of the depth term
CHANGE_MASK = "graded"
OPACITY_BIAS = 2.0  # an untrained model leaves the room nearly as it is


class Rooms(NamedTuple):
    """A data set in latent resolution: ``n`` rooms with ``p`` places, the first of which has a target."""

    context: Tensor  # (n, c, h, w) latents
    target: Tensor  # (n, c, h, w) latents
    mask: Tensor  # (n, 1, h, w) share of each cell that the object covers
    places: Tensor  # (n, p, h, w)
    feet: Tensor  # (n, p, h, w)
    depth: Tensor  # (n, 1, h, w) metres, of the empty room
    focal: Tensor  # (n,) pixels


class PatchCoder:
    """A linear autoencoder of picture patches: their principal components, of unit variance on average."""

    def __init__(self, pictures: Tensor) -> None:
        patches = functional.pixel_unshuffle(pictures, PATCH).permute(0, 2, 3, 1).flatten(0, 2)
        self.mean = patches.mean(0)
        _, variances, axes = torch.linalg.svd(patches - self.mean, full_matrices=False)
        self.axes = axes[:CHANNELS]
        self.scale = variances[:CHANNELS].square().mean().div(len(patches)).sqrt()

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures ``(b, 3, h, w)`` in [0, 1] to latents ``(b, 16, h / 4, w / 4)``."""
        patches = functional.pixel_unshuffle(pictures, PATCH).movedim(1, -1) - self.mean
        return (patches @ self.axes.T / self.scale).movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents back to pictures, as far as the components reach."""
        patches = latents.movedim(1, -1) @ self.axes * self.scale + self.mean
        return functional.pixel_shuffle(patches.movedim(-1, 1), PATCH).clamp(0, 1)


class Inserter(nn.Module):
    """A small U-Net, four cells of the latents to one of its own, that lays the object over the context."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4 * (CHANNELS + 4), width, 3, padding=1)
        widths = [width, 2 * width, 2 * width]
        steps = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in steps)
        self.up = nn.ModuleList(_block(a + b, a) for a, b in reversed(steps))
        self.head = nn.Conv2d(width, 4 * (CHANNELS + 1), 3, padding=1)

    def forward(self, context: Tensor, place: Tensor, foot: Tensor, depth: Tensor, focal: Tensor) -> Tensor:
        """Latents of the room with the object; all maps ``(b, 1, h, w)``, focal ``(b,)`` in pixels."""
        zoom = (focal / PICTURE).log().view(-1, 1, 1, 1).expand_as(place)
        x = self.stem(functional.pixel_unshuffle(torch.cat([context, place, foot, 1 / depth, zoom], 1), 2))
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        for block in self.up:
            x = block(torch.cat([functional.interpolate(x, scale_factor=2), skips.pop()], 1))
        thing, opacity = functional.pixel_shuffle(self.head(x), 2).split([CHANNELS, 1], 1)
        return torch.lerp(context, thing, (opacity - OPACITY_BIAS).sigmoid())


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


def make_rooms(scenes: list[InsertionScene], coder: PatchCoder) -> Rooms:
    """Bring scenes to latent resolution."""

    def shrink(maps: list[Tensor]) -> Tensor:
        return functional.avg_pool2d(torch.stack(maps).float(), PATCH)

    return Rooms(
        coder.encode(_pictures([s.context for s in scenes])),
        coder.encode(_pictures([s.target for s in scenes])),
        shrink([s.mask[None] for s in scenes]),
        shrink([s.places for s in scenes]),
        shrink([s.feet for s in scenes]),
        shrink([s.context_depth[None] for s in scenes]),
        torch.tensor([float(s.camera.K[0, 0]) for s in scenes]),
    )


def _pictures(images: list[Tensor]) -> Tensor:
    return torch.stack(images).movedim(-1, 1) / 255


def train(rooms: Rooms, arm: str, seed: int, *, steps: int, batch: int = 12) -> nn.Module:
    """Train one arm: half of each batch has targets, the other half is free places in the same rooms."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Inserter()
    average = copy.deepcopy(model)
    criterion = InsertionLoss(
        weight_depth=ARMS[arm],
        depth_start_step=steps // 4,
        depth_ramp_steps=steps // 8,
        change_mask=CHANGE_MASK,
        scale=ScaleOptions(depth_mode="depth", border_policy="one_sided"),
    )
    k_obj = estimate_k_obj_from_dataset(
        rooms.mask, rooms.depth, rooms.focal, "depth", depth_mask01=rooms.feet[:, :1], image_width_px=PICTURE
    )
    # The control: each place believes in the depth and the focal length of another room.
    n = len(rooms.focal)
    other = torch.randperm(n, generator=generator) if arm == "shuffled" else torch.arange(n)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    has_target = torch.arange(2 * batch) < batch
    for step in range(steps):
        room = torch.randint(n, (2 * batch,), generator=generator)
        spot = torch.randint(1, rooms.places.shape[1], (2 * batch,), generator=generator)
        spot = torch.where(has_target, 0, spot)
        place, foot = rooms.places[room, spot][:, None], rooms.feet[room, spot][:, None]
        context, depth, focal = rooms.context[room], rooms.depth[room], rooms.focal[room]
        predicted = model(context, place, foot, depth, focal)
        terms = criterion(
            predicted,
            rooms.target[room],
            context,
            rooms.mask[room],
            depth=rooms.depth[other[room]],
            f_px=rooms.focal[other[room]],
            k_obj=k_obj,
            depth_mask01=foot,
            image_width_px=PICTURE,
            place=place,
            has_target=has_target,
            step=step,
        )
        optimiser.zero_grad()
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        decay = min(0.99, step / (step + 10))
        for kept, new in zip(average.parameters(), model.parameters(), strict=True):
            kept.data.lerp_(new.data, 1 - decay)
    return average.eval()


@torch.no_grad()
def predict(model: nn.Module, rooms: Rooms) -> Tensor:
    """Latents with the object in the first place of each room."""
    return model(rooms.context, rooms.places[:, :1], rooms.feet[:, :1], rooms.depth, rooms.focal)


def find_threshold(rooms: Rooms) -> float:
    """The change of latents that best separates the object in true targets; every arm is judged with it."""
    change = (rooms.target - rooms.context).norm(dim=1, keepdim=True)
    choices = torch.linspace(0.2, 3.0, 57)
    overlaps = torch.stack([_iou(change > choice, rooms.mask > 0.5).mean() for choice in choices])
    return float(choices[int(overlaps.argmax())])


def judge(latents: Tensor, rooms: Rooms, threshold: float) -> tuple[Tensor, Tensor]:
    """``log(size / true size)`` and the mask's IoU for each room."""
    found = (latents - rooms.context).norm(dim=1, keepdim=True) > threshold
    size, true = (measure_scale(m.float()).flatten() for m in (found, rooms.mask))
    return (size / true).log(), _iou(found, rooms.mask > 0.5)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp_min(1)


def summarise(log_ratios: Tensor, ious: Tensor) -> dict[str, float]:
    """The figures of one row of the table."""
    errors = log_ratios.abs()
    return {
        "p95": float(errors.quantile(0.95)),
        "median": float(errors.median()),
        "bias": float(log_ratios.median()),
        "iou": float(ious.mean()),
    }


def make_data(seed: int, num_training: int, num_held_out: int) -> tuple[Rooms, Rooms, PatchCoder]:
    """Rooms to learn from, rooms to be judged in, and the coder that was fitted to the former."""
    thing, first = make_object("can", 3), 10_000 * seed
    training = [
        make_insertion_scene(thing, first + i, num_free_places=FREE_PLACES, stands_m=PAIRED_M)
        for i in range(num_training)
    ]
    unseen = [make_insertion_scene(thing, first + 5_000 + i, num_free_places=0) for i in range(num_held_out)]
    coder = PatchCoder(_pictures([s.target for s in training]))
    return make_rooms(training, coder), make_rooms(unseen, coder), coder


def main() -> None:
    """Run every arm for every seed; print the table, write the table, the plot and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="draws of rooms and weights (default: 3)")
    parser.add_argument("--steps", type=int, default=500, help="steps of training an arm (default: 500)")
    parser.add_argument("--rooms", type=int, default=128, help="training rooms (default: 128)")
    parser.add_argument("--output", type=Path, default=Path("insert_object"), help="folder for the results")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    judged: dict[str, list[tuple[Tensor, Tensor]]] = {}
    rows, start = [], time.perf_counter()
    for seed in range(options.seeds):
        rooms, unseen, coder = make_data(seed, options.rooms, min(NUM_HELD_OUT, 2 * options.rooms))
        threshold = find_threshold(rooms)
        drawn = {"truth": unseen.target}
        for arm in ARMS:
            drawn[arm] = predict(train(rooms, arm, seed, steps=options.steps), unseen)
            print(f"seed {seed}, {arm}: trained, {time.perf_counter() - start:.0f} s since the start")
        for arm, latents in drawn.items():
            judged.setdefault(arm, []).append(judge(latents, unseen, threshold))
            rows.append({"seed": seed, "arm": arm, **summarise(*judged[arm][-1])})
        if seed == 0:
            write_image(options.output / "pictures.png", contact_sheet(drawn, unseen, coder))
    pooled = {arm: [torch.cat(part) for part in zip(*parts, strict=True)] for arm, parts in judged.items()}
    rows += [{"seed": "all", "arm": arm, **summarise(*parts)} for arm, parts in pooled.items()]
    write_json(options.output / "table.json", rows)
    errors = {arm: ratios.abs() for arm, (ratios, _) in pooled.items()}
    plot = plot_errors(errors, unit="|log(size / true size)|", largest=0.8, title="Size on held-out rooms")
    write_image(options.output / "errors.png", plot)
    print_table(rows)
    print(f"{options.output}: table.json, errors.png, pictures.png")


def print_table(rows: list[dict]) -> None:
    """One line a seed and arm, then the pooled ones."""
    print(f"{'seed':>4}  {'arm':9} {'p95 |log s/s*|':>14} {'median':>7} {'bias':>7} {'mask IoU':>8}")
    for row in rows:
        figures = f"{row['p95']:14.3f} {row['median']:7.3f} {row['bias']:7.3f} {row['iou']:8.3f}"
        print(f"{row['seed']:>4}  {row['arm']:9} {figures}")


def contact_sheet(drawn: dict[str, Tensor], rooms: Rooms, coder: PatchCoder, count: int = 6) -> np.ndarray:
    """A row a room: the context with its place, the truth, and what each arm draws."""
    context = coder.decode(rooms.context[:count])
    place = functional.interpolate(rooms.places[:count, :1], scale_factor=PATCH)
    columns = [context * (0.5 + 0.5 * place), *(coder.decode(z[:count]) for z in drawn.values())]
    return (torch.cat(columns, -1).movedim(1, -1).flatten(0, 1) * 255).round().byte().numpy()


if __name__ == "__main__":
    main()
