"""Data sets of scenes by their folders: BOP's, and web data sets of shards, as sources of crops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sightline.formats.bop_dataset import BopDataset
from sightline.formats.bop_models import ModelInfo, read_models_info
from sightline.formats.bop_webdataset import BopShards, read_object_names
from sightline.formats.frames import Frames
from sightline.synthetic.pose_crops import PoseCropSettings
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.vpog.scene_crops import DepthSource, SceneCrops
from sightline.vpog.scene_objects import SceneObjects, find_meshes


@dataclass(frozen=True, kw_only=True)
class SceneData:
    """One data set of scenes, as a recipe names it.

    Args:
        folder: a data set in BOP's layout, or of shards (MegaPose-GSO, ShapeNetCore).
        split: the folder of scenes or shards in it; shards may also lie in the folder itself.
        models: the folder of the meshes; in BOP's layout that in the data set unless given.
        model_unit_mm: millimetres in one unit of the meshes: 1 in BOP's layout, 100 for meshes of Google
            Scanned Objects and ShapeNet that are scaled into the unit sphere.
        templates: ``templates/DATASET`` as GigaPose lays it out; rendered from the meshes unless given.
        template_scale: how many times as large as in the pictures objects are in these: 10 for Google Scanned
            Objects and ShapeNet.
        depth_from: ``mesh``, or ``picture`` for rendered data sets, whose depth is exact.
        min_visible: share of an object that must be seen, more than.
        share: how often crops are of this data set, beside the others.
    """

    folder: str | Path
    split: str = "train_pbr"
    models: str | Path | None = None
    model_unit_mm: float = 1.0
    templates: str | Path | None = None
    template_scale: float = 1.0
    depth_from: DepthSource | str = "mesh"
    min_visible: float = 0.1
    share: float = 1.0

    def open(
        self, views: PoseViewSettings, crops: PoseCropSettings, *, kept: str | Path | None = None
    ) -> SceneCrops:
        """The crops of the data set.

        Args:
            views: how templates are drawn; their side is that of every crop.
            crops: what the queries are like.
            kept: where templates are kept between runs; in memory unless given.

        Returns:
            Of BOP's layout each visible instance under its number, of shards the pictures.

        Raises:
            FileNotFoundError: the data set, its meshes or templates are not there.
            ValueError: nothing in it is visible and known.
        """
        root = Path(self.folder)
        shards = next((p for p in (root / self.split, root) if any(p.glob("shard-*.tar"))), None)
        if shards is None:
            return self._open_bop(BopDataset(root, self.split), views, crops, kept)
        frames = BopShards(shards)
        meshes, infos = {}, {}
        if self.models is not None:
            meshes = find_meshes(self.models, _names_near(shards))
            infos = _infos_in(Path(self.models))
        objects = self._objects(meshes, infos, views, kept)
        return self._crops(frames, objects, crops, None)

    def _open_bop(
        self, dataset: BopDataset, views: PoseViewSettings, crops: PoseCropSettings, kept: str | Path | None
    ) -> SceneCrops:
        folder = dataset.models_folder if self.models is None else Path(self.models)
        meshes = {} if folder is None else find_meshes(folder)
        infos = dataset.models_info if self.models is None else _infos_in(Path(self.models))
        objects = self._objects(meshes, infos, views, kept)
        return self._crops(
            dataset.frames, objects, crops, _visible_places(dataset, objects, self.min_visible)
        )

    def _objects(
        self,
        meshes: dict[int, Path],
        infos: dict[int, ModelInfo],
        views: PoseViewSettings,
        kept: str | Path | None,
    ) -> SceneObjects:
        if not meshes and self.templates is None:
            raise FileNotFoundError(
                f"{self.folder}: expected a folder of models or of templates, got neither"
            )
        return SceneObjects(
            meshes,
            unit_mm=self.model_unit_mm,
            infos=infos,
            templates=self.templates,
            template_scale=self.template_scale,
            settings=views,
            folder=kept,
        )

    def _crops(
        self,
        frames: Frames,
        objects: SceneObjects,
        settings: PoseCropSettings,
        places: list[tuple[int, int]] | None,
    ) -> SceneCrops:
        try:
            return SceneCrops(
                frames,
                objects,
                settings,
                places=places,
                depth_from=self.depth_from,
                min_visible=self.min_visible,
            )
        except ValueError as error:
            raise ValueError(f"{self.folder}: {error}") from error


def _visible_places(dataset: BopDataset, objects: SceneObjects, least: float) -> list[tuple[int, int]]:
    """Frame and object of each instance of which more than that share is seen; opens no picture."""
    seen = [scene.visibility(image_id) for scene in dataset.scenes.values() for image_id in scene.image_ids]
    return [
        (row, which)
        for row, instances in enumerate(seen)
        for which, (obj_id, share) in enumerate(instances)
        if share > least and obj_id in objects
    ]


def _infos_in(models: Path) -> dict[int, ModelInfo]:
    path = models / "models_info.json"
    return read_models_info(path) if path.is_file() else {}


def _names_near(shards: Path) -> dict[int, str]:
    """What objects are called, of ``gso_models.json`` or the like beside the shards or one folder above."""
    found = next((path for place in (shards, shards.parent) for path in place.glob("*_models.json")), None)
    return {} if found is None else read_object_names(found)
