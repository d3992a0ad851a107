"""Pictures: RGB arrays of label maps and embeddings, and Matplotlib figures.

Arrays in [0, 1]:

* :func:`embedding_rgb`: an embedding map as colors.
* :func:`label_rgb`, :func:`overlay`: instances in distinct colors, alone or painted
  over the image with their outlines.
* :func:`overlay_boundaries`: boundaries over a paled image.

* :func:`match_labels`: instances found, named after the true ones that they overlap.
* :func:`onto_sphere`: points of any dimension on the sphere that can be seen.

A page that holds all it shows:

* :func:`html_page`, :class:`Example`, :class:`Scene`: numbers, pictures, and spheres
  that can be turned, as HTML.

Figures, made without pyplot and its global state; Matplotlib is loaded on the first
call:

* :func:`draw_grouping`: image, truth, instances found and embedding, a row per image.
* :func:`draw_clusters`: image, clusters and true classes, a row per image.
* :func:`draw_sphere`: the points on the sphere at every step of mean shift.
* :func:`draw_shifted_images`: images, and their pixels before and after mean shift.
* :func:`draw_gradients`: where gradients are large, without and with mean shift.
* :func:`draw_similarity_histograms`: similarities within and between instances.
* :func:`draw_pair_loss`, :class:`PairLoss`: a loss against the similarity of a pair.
* :func:`draw_instance_sizes`: instances of an image, their sizes, what vanishes.
* :func:`draw_boundaries`: image, annotators, boundaries found and every branch.
* :func:`draw_orientations`: an embedding against a boundary's direction and distance.
* :func:`draw_detections`: instances with class and score over their image.
* :func:`draw_classes`: classes, instances with names, projections of the embedding.
* :func:`draw_trimap_curves`: mean IoU against the distance from true boundaries.
* :func:`draw_region_levels`: AP^r against the overlap that it asks for.
* :func:`draw_curves`: losses, learning rate and scores over the steps of training.
* :func:`draw_precision_curve`: precision over recall, with lines of equal F.
* :func:`draw_recall_curves`: recall against the number of proposals, several methods.
* :func:`save_figure`: writes a PNG of bounded size.
"""

from sphemb.viz._boundaries import (
    draw_boundaries,
    draw_orientations,
    overlay_boundaries,
)
from sphemb.viz._classes import draw_classes, draw_detections, draw_trimap_curves
from sphemb.viz._clusters import draw_clusters
from sphemb.viz._colors import label_rgb, match_labels
from sphemb.viz._curves import draw_curves
from sphemb.viz._embedding import embedding_rgb
from sphemb.viz._figures import save_figure
from sphemb.viz._gradients import draw_gradients
from sphemb.viz._groupings import draw_grouping
from sphemb.viz._histograms import draw_similarity_histograms
from sphemb.viz._instance_sizes import draw_instance_sizes
from sphemb.viz._outlines import overlay
from sphemb.viz._page import Example, Scene, html_page
from sphemb.viz._pair_loss import PairLoss, draw_pair_loss
from sphemb.viz._precision_curve import draw_precision_curve
from sphemb.viz._recall_curves import draw_recall_curves
from sphemb.viz._region_levels import draw_region_levels
from sphemb.viz._shifted_images import draw_shifted_images
from sphemb.viz._spheres import draw_sphere, onto_sphere

__all__ = [
    "Example",
    "PairLoss",
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
    "draw_pair_loss",
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
