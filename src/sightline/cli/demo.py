"""``sightline demo``: the main job on the embedded example, from nothing to pictures and a table."""

from __future__ import annotations

from pathlib import Path


def demo(output: Path = Path("demo-output"), seed: int = 9, seeds: int = 1) -> None:
    """Onboard three embedded objects, find them in a generated cluttered picture, and compare with the truth.

    Writes overlay.png, detections.png (of the learned detector), report.html, poses.json and a BOP results
    CSV. With several seeds it measures how many objects with at least half their surface visible are posed
    within 2 degrees and 1 % of the distance.

    Args:
        output: folder for everything that is written; cards in it are used again.
        seed: of the generated picture.
        seeds: how many pictures, from that seed on; more than one prints the measurement only.
    """
    from rich.progress import track

    from sightline.cli.console import make_console
    from sightline.pipeline.demo import measure_demo, run_demo
    from sightline.vis.tables import pose_table

    console = make_console()
    if seeds < 1:
        raise ValueError(f"--seeds: expected at least 1, got {seeds}")
    if seeds == 1:
        with console.status("starting") as status:
            scored, boxes = run_demo(output, seed, lambda text: status.update(text))
        console.print(pose_table([one.row() for one in scored]).rich())
        console.print(boxes.words(), highlight=False)
        names = ("overlay.png", "detections.png", "report.html", "poses.json", "sightline-sift_demo-test.csv")
        console.print(f"{output}: {', '.join(names)}", highlight=False, soft_wrap=True)
        return
    with console.status("reading the cards"):
        measured = measure_demo(output, range(seed, seed + seeds))
    scored = [
        one
        for scene in track(measured, "scenes", total=seeds, console=console, transient=True)
        for one in scene
        if one.visible >= 0.5
    ]
    wrong = [one for one in scored if not one.right]
    for one in wrong:
        said = f"score {one.found.pose.score:.2f}" if one.found.pose.valid else one.found.pose.reason
        console.print(
            f"missed: seed {one.seed}, {one.found.card.name}, {one.visible:.0%} visible: {said}",
            highlight=False,
        )
    trusted = sum(one.found.pose.valid for one in wrong)
    console.print(
        f"{len(scored) - len(wrong)} of {len(scored)} objects within 2 degrees and 1 % of the distance "
        f"({1 - len(wrong) / len(scored):.1%}); {trusted} of the others were given as valid",
        highlight=False,
    )
