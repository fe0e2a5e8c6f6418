"""The ground floor: pure, batched functions on plain tensors; no files, no networks, no other room.

Metres, radians, pixels; OpenCV's camera; the centre of the top-left pixel is (0, 0); transforms are named
``b_from_a``. Leading axes are batches, gradients are finite, and what cannot be computed is NaN with
``valid = False``. Import the file: ``from sightline.geometry import boxes``.

* Boxes: ``boxes`` (forms, overlaps), ``nms``.
* Rotations and motions: ``rotations``, ``quaternions``, ``poses``, ``symmetry`` (with ``symmetric_mean`` and
  ``rotation_groups``), ``viewpoints`` (directions around an object).
* Cameras: ``cameras`` (``Camera``, project, unproject), ``intrinsics`` (K), ``distortion`` with its inverse,
  ``pixel_affine`` (crop, resize, turn, warp), ``focal`` (from millimetres and EXIF), ``translation`` (from an
  object's centre and depth).
* Depth and flow: ``depth`` (maps with missing pixels), ``flow`` (in patch units).
* Estimation: ``pnp`` (pose from 2-D to 3-D matches), ``triangulation`` (points from several views, by the
  algebra of ``ray_quadrics``), ``registration`` (Kabsch, ICP), ``triangles`` (points on surfaces).
"""
