"""The material and texture files that a mesh leans on, found as people really name them.

Imported only when a mesh is read, because trimesh loads slowly.
"""

from __future__ import annotations

from pathlib import Path

from trimesh.resolvers import FilePathResolver

from sightline.formats.images import open_upright

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tga", ".tif", ".tiff", ".webp")


class SidecarResolver(FilePathResolver):
    """Find the files that a mesh names, and remember what went wrong: trimesh itself goes on without them.

    Understands options before the name (``map_Kd -s 1 1 1 wood.png``), backslashes, and absolute paths of
    another machine (the file beside the mesh is taken).

    Args:
        mesh_path: the mesh file.
    """

    def __init__(self, mesh_path: Path) -> None:
        super().__init__(str(mesh_path))
        self.mesh_path = mesh_path
        self.problem: Exception | None = None

    def get(self, name: str) -> bytes:
        """The content of a file that the mesh names.

        Raises:
            FileNotFoundError: it is not there; kept in ``problem`` too.
            ValueError: it is a damaged picture; kept in ``problem`` too.
        """
        try:
            path = self._locate(name)
            if path.suffix.lower() in _PICTURES:
                open_upright(path)
            return path.read_bytes()
        except (OSError, ValueError) as error:
            self.problem = error
            raise

    def _locate(self, name: str) -> Path:
        plain = name.strip().replace("\\", "/")
        if plain.startswith("-"):
            plain = plain.split()[-1]
        folder = self.mesh_path.parent
        for candidate in (folder / plain, folder / Path(plain).name):
            if candidate.is_file():
                return candidate
        raise FileNotFoundError(
            f"{self.mesh_path}: names {plain}, which is not there; colors=False reads the shape alone"
        )
