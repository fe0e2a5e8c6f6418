"""The classical room: RootSIFT of the templates, lifted to the object, matched, grouped and guided.

``features`` describes one picture, ``bank`` all templates of an object, ``matching`` pairs them,
``hypotheses`` groups pairs into instances, ``inference`` is the door; ``structure`` makes a card from posed
photographs without a mesh.
"""

from sightline.sift.bank import FeatureBank, build_bank
from sightline.sift.features import Features, extract_features
from sightline.sift.inference import SiftMatcher
from sightline.sift.structure import onboard_photos

__all__ = ["FeatureBank", "Features", "SiftMatcher", "build_bank", "extract_features", "onboard_photos"]
