"""Pictures for people: records and arrays drawn over photographs, laid side by side, plotted and explained.

Pictures are uint8 RGB arrays ``(h, w, 3)``, in and out. A ``draw_...`` function returns a new picture and
leaves its argument alone; inside the room a ``paint_...`` function works on a canvas in place. Nothing here
renders, reads or writes a file: masks, depth and colour of a rendered object come in as arrays, and the
report is returned as text. OpenCV and matplotlib are imported when something is drawn.

===================  =========================================================================================
file                 idea
===================  =========================================================================================
``canvas``           what a picture is, how it is checked, how thick lines and how tall letters are on it
``palette``          the one palette, fit for any colour vision, by name, by index, by object or by value
``strokes``          anti-aliased lines with a halo, dots, tints, contours, to a sixteenth of a pixel
``labels``           text that is readable, inside the picture and beside other text
``view_lines``       lines in space through the lens: cut at the view's edges, never mirrored from behind
``wireframes``       axes and boxes of a pose
``overlays``         contour, rendering, quadrilateral and detections over a photograph
``pose_overlays``    the standard picture of poses, with those that were not found and why
``matches``          template beside picture, matched points joined and coloured by their residual
``depth_pictures``   depth and differences of depth in colours
``contact_sheet``    many pictures in one, with captions
``reference_strip``  what was looked for, beside the picture
``plots``            precision and recall, reliability, errors, sizes, timeline of a track
``words``            a pose in plain words, in millimetres and degrees
``tables``           one set of cells as plain text, Markdown, HTML or for a rich terminal
``report``           one HTML file that explains each pose (``report_style`` is its look)
===================  =========================================================================================
"""

from sightline.vis.contact_sheet import draw_contact_sheet
from sightline.vis.depth_pictures import draw_depth, draw_depth_difference
from sightline.vis.matches import draw_matches, explain_matches, most_used_template
from sightline.vis.overlays import (
    draw_contour,
    draw_detections,
    draw_mesh,
    draw_notes,
    draw_quadrilateral,
)
from sightline.vis.palette import PALETTE, object_colors, palette_color
from sightline.vis.plots import (
    plot_coverage,
    plot_errors,
    plot_precision_recall,
    plot_reliability,
    plot_sizes,
    plot_timeline,
)
from sightline.vis.pose_overlays import draw_pose, draw_poses
from sightline.vis.reference_strip import draw_reference_strip
from sightline.vis.report import ReportItem, explain_pose, render_report
from sightline.vis.tables import PoseRow, Table, pose_table, timing_table
from sightline.vis.wireframes import draw_axes, draw_box_3d
from sightline.vis.words import describe_pose, label_pose

__all__ = [
    "PALETTE",
    "PoseRow",
    "ReportItem",
    "Table",
    "describe_pose",
    "draw_axes",
    "draw_box_3d",
    "draw_contact_sheet",
    "draw_contour",
    "draw_depth",
    "draw_depth_difference",
    "draw_detections",
    "draw_matches",
    "draw_mesh",
    "draw_notes",
    "draw_pose",
    "draw_poses",
    "draw_quadrilateral",
    "draw_reference_strip",
    "explain_matches",
    "explain_pose",
    "label_pose",
    "most_used_template",
    "object_colors",
    "palette_color",
    "plot_coverage",
    "plot_errors",
    "plot_precision_recall",
    "plot_reliability",
    "plot_sizes",
    "plot_timeline",
    "pose_table",
    "render_report",
    "timing_table",
]
