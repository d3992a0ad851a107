"""Pictures: ``*_rgb`` and ``overlay*`` make RGB arrays, ``draw_*`` Matplotlib figures.

Matplotlib is imported by the first figure, pyplot never.
"""

from sphemb.viz._arrays import (
    embedding_rgb,
    label_rgb,
    match_labels,
    overlay,
    overlay_boundaries,
)
from sphemb.viz._curves import (
    draw_curves,
    draw_instance_sizes,
    draw_precision_curve,
    draw_recall_curves,
    draw_region_levels,
    draw_trimap_curves,
)
from sphemb.viz._figures import save_figure
from sphemb.viz._maps import (
    draw_boundaries,
    draw_classes,
    draw_clusters,
    draw_detections,
    draw_grouping,
    draw_orientations,
)
from sphemb.viz._spheres import (
    draw_gradients,
    draw_shifted_images,
    draw_similarity_histograms,
    draw_sphere,
    onto_sphere,
)
from sphemb.viz.report import Example, Scene, html_page

__all__ = [
    "Example",
    "Scene",
    "draw_boundaries",
    "draw_classes",
    "draw_clusters",
    "draw_curves",
    "draw_detections",
    "draw_gradients",
    "draw_grouping",
    "draw_instance_sizes",
    "draw_orientations",
    "draw_precision_curve",
    "draw_recall_curves",
    "draw_region_levels",
    "draw_shifted_images",
    "draw_similarity_histograms",
    "draw_sphere",
    "draw_trimap_curves",
    "embedding_rgb",
    "html_page",
    "label_rgb",
    "match_labels",
    "onto_sphere",
    "overlay",
    "overlay_boundaries",
    "save_figure",
]
