"""What the matcher's flow costs on matched pairs against all pairs, and projections kept against made anew.

Flow: each of a picture's visible patches has one partner in each template, where the first public form asks
    for every pair of patches. Operations are counted (a multiplication with its addition as two) at the size
    of the paper, and counted and timed where all pairs fit into memory; both must agree on the matched ones.
Scores: a query against 162 templates whose projections a card keeps, against projecting the templates' tokens
    with every query.

    python -m benchmarks.bench_vpog_heads [--repeats 5] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sightline.vpog.classification_head import ClassificationHead
from sightline.vpog.flow_head import FlowHead

Run = Callable[[], Any]


class Size(NamedTuple):
    """Of a model: channels, patches of a picture's side, templates of a query."""

    dim: int
    grid: int
    templates: int


SIZES = {
    "ViT-B, 224 px, 4 templates": Size(768, 14, 4),
    "ViT-B, 224 px, 162 templates": Size(768, 14, 162),
    "tiny, 128 px, 4 templates": Size(128, 8, 4),
}
TIMED = "tiny, 128 px, 4 templates"
LIMIT = "at least 100 times fewer with a grid of 14"


def count_operations(run: Run) -> float:
    """Of one run, in GFLOP."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def make_tokens(size: Size, device: str) -> tuple[Tensor, Tensor]:
    """Of one query and its templates."""
    patches = size.grid**2
    return (
        torch.randn(1, patches, size.dim, device=device),
        torch.randn(1, size.templates, patches, size.dim, device=device),
    )


def match(query: Tensor, templates: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens of each query patch and of its partner in each template: ``(s * nq, c)`` twice."""
    chosen = templates[0].take_along_dim(partner[..., None], dim=1)
    return query.expand(templates.shape[1], -1, -1).flatten(0, 1), chosen.flatten(0, 1)


def compare_flow(repeats: int) -> None:
    """Print one line a size: operations are counted without computing anything."""
    print(f"{'flow of one query':32}{'pairs':>9}{'matched':>9}{'GFLOP':>10}{'matched':>9}{'times fewer':>13}")
    for name, size in SIZES.items():
        with torch.device("meta"):
            head = FlowHead(size.dim)
        query, templates = make_tokens(size, "meta")
        patches = size.grid**2
        partner = torch.empty(size.templates, patches, dtype=torch.int64, device="meta")
        all_pairs = count_operations(lambda: head.all_pairs(query, templates))  # noqa: B023
        matched = count_operations(lambda: head(*match(query, templates, partner)))  # noqa: B023
        pairs = size.templates * patches
        counts = f"{pairs * patches:9,}{pairs:9,}{all_pairs:10.1f}{matched:9.2f}{all_pairs / matched:13.0f}"
        print(f"{name:32}{counts}   {LIMIT if size.grid == 14 else ''}")
    time_flow(repeats)


def time_flow(repeats: int) -> None:
    """Both forms where all pairs fit into memory."""
    torch.manual_seed(0)
    size = SIZES[TIMED]
    head = FlowHead(size.dim).eval()
    torch.nn.init.normal_(head.output.weight, std=0.1)
    query, templates = make_tokens(size, "cpu")
    partner = torch.randint(size.grid**2, (size.templates, size.grid**2))
    forms: dict[str, Run] = {
        "all": lambda: head.all_pairs(query, templates),
        "matched": lambda: head(*match(query, templates, partner)),
    }
    best = best_ms(forms, repeats)
    flow, _ = forms["all"]()
    taken = flow[0].take_along_dim(partner[:, :, None, None, None, None], dim=2).flatten(0, 2)
    difference = float((taken - forms["matched"]().flow).abs().max())
    print(
        f"{TIMED}: {best['all']:.0f} ms for all pairs, {best['matched']:.1f} ms for the matched, "
        f"{best['all'] / best['matched']:.0f} times faster; largest difference {difference:.1e} patches"
    )


def compare_scores(repeats: int) -> None:
    """Print one line a size."""
    print(f"\n{'scores of 162 templates':32}{'GFLOP':>10}{'kept':>9}{'ms':>9}{'kept':>9}{'times faster':>14}")
    for name, size in {"ViT-B, 224 px": Size(768, 14, 162), "tiny, 128 px": Size(128, 8, 162)}.items():
        torch.manual_seed(0)
        head = ClassificationHead(size.dim, proj_dim=min(size.dim, 256)).eval()
        query, templates = make_tokens(size, "cpu")
        kept = head.project_templates(templates)
        forms: dict[str, Run] = {
            "anew": lambda: head(query, templates),  # noqa: B023
            "kept": lambda: head.compare(head.project_query(query), kept),  # noqa: B023
        }
        cost = {form: count_operations(run) for form, run in forms.items()}
        best = best_ms(forms, repeats)
        line = f"{cost['anew']:10.1f}{cost['kept']:9.2f}{best['anew']:9.0f}{best['kept']:9.1f}"
        print(f"{name:32}{line}{best['anew'] / best['kept']:14.1f}")


def best_ms(forms: dict[str, Run], repeats: int) -> dict[str, float]:
    """The least time of each form, the forms in turns, after one round that does not count."""
    times: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(-1, repeats):
        for form, run in forms.items():
            start = time.perf_counter()
            run()
            if turn >= 0:
                times[form].append(1e3 * (time.perf_counter() - start))
    return {form: min(values) for form, values in times.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        compare_flow(options.repeats)
        compare_scores(options.repeats)


if __name__ == "__main__":
    main()
