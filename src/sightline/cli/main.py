"""``sightline VERB``: every verb is a plain function whose signature is its configuration."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from sightline.cli.adapt import adapt
from sightline.cli.calibrate import calibrate_detector, calibrate_poses
from sightline.cli.convert import convert
from sightline.cli.demo import demo
from sightline.cli.doctor import doctor
from sightline.cli.evaluate import evaluate
from sightline.cli.export import export
from sightline.cli.onboard import onboard
from sightline.cli.pose import detect, pose, track
from sightline.cli.scale import scale_calibrate, scale_check
from sightline.cli.synth import synth
from sightline.cli.train import train_refdet, train_rtdetr_pose, train_vpog

VERBS: dict[str, Any] = {
    "demo": demo,
    "onboard": onboard,
    "detect": detect,
    "pose": pose,
    "track": track,
    "adapt": adapt,
    "synth": synth,
    "evaluate": evaluate,
    "convert": convert,
    "scale-calibrate": scale_calibrate,
    "scale-check": scale_check,
    "doctor": doctor,
    "train-refdet": train_refdet,
    "train-vpog": train_vpog,
    "train-rtdetr-pose": train_rtdetr_pose,
    "calibrate-detector": calibrate_detector,
    "calibrate-poses": calibrate_poses,
    "export": export,
}
"""Every verb by its name on the command line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: what follows ``sightline`` on the command line; that of this process when not given.

    Returns:
        0; 1 when a verb that checks something finds a fault; 2 when the input is bad: one line on the
        standard error says what, where and what was expected.
    """
    from jsonargparse import auto_cli

    from sightline.cli.arguments import HyphenParser, normalise

    given = list(sys.argv[1:] if arguments is None else arguments)
    verb = given[0] if given and given[0] in VERBS else ""
    if verb:
        given = [verb, *normalise(VERBS[verb], given[1:])]
    try:
        status = auto_cli(VERBS, args=given, as_positional=False, prog="sightline", parser_class=HyphenParser)
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())
        print(f"sightline {verb}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"sightline {verb}: stopped", file=sys.stderr)
        return 130
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
