"""Networks: an image comes in, named maps go out.

* `DenseEmbedding`: an embedding on a grid, from a backbone with pretrained weights.
* `FCN8`: scores at strides 8, 16 and 32 of a backbone, added up; classes or an
  embedding.
* `FeaturePyramid`: an embedding that sums the backbone's maps, for PiCIE.
* `SideBranches`: embeddings at several depths, and a map fused from them, for
  boundaries.
* `Hourglass`: a small residual network with full-resolution output.
* `ResNet`, `EfficientNetLite0`: backbones, by name in `BACKBONES`; `Backbone`, their
  base; `OnBackbone`, the base of networks on top of one; `FeatureMap`, `last_map_at`:
  what they return, and how to pick from it.
* `import_weights`, `load_weights`, `list_weights`, `weights_dir`: pretrained weights by
  name; `read_state_dict`, `convert_state_dict`: the steps of the import.
* `apply_masked`: a network on images that are padded, so that no padding matters;
  `takes`: whether a network's call has an argument;
  `apply_with_moments`, `MomentSums`: group normalisation of a tile by the moments of
  the image that it is of.
* `BatchNorm`, `ResidualBlock`, `AtrousPyramid`, `TopDown`, `space_to_depth`,
  `depth_to_space`, `pixel_coordinates`, `chromaticity`: what networks are made of.

A model is a Flax module whose ``__call__(image, *, train=False, mask=None)`` returns a
dict of named maps; the entry ``"embedding"`` is what the grouping tasks read. It may do
without ``mask`` if nothing in it but layers depends on where an image ends. Its
property ``stride`` is what height and width must be divisible by, and ``shiftable``
whether it says the same of a place wherever in an image that is.
"""

from sphemb.models._atrous import AtrousPyramid
from sphemb.models._backbone import Backbone, FeatureMap, last_map_at
from sphemb.models._backbones import BACKBONES, OnBackbone
from sphemb.models._branches import SideBranches
from sphemb.models._conversion import convert_state_dict
from sphemb.models._decoder import TopDown
from sphemb.models._dense import DenseEmbedding
from sphemb.models._efficientnet import EfficientNetLite0
from sphemb.models._fcn import FCN8
from sphemb.models._hourglass import Hourglass
from sphemb.models._layers import (
    ResidualBlock,
    chromaticity,
    depth_to_space,
    pixel_coordinates,
    space_to_depth,
)
from sphemb.models._masked import apply_masked, takes
from sphemb.models._moments import MomentSums, apply_with_moments
from sphemb.models._norm import BatchNorm
from sphemb.models._pyramid import FeaturePyramid
from sphemb.models._resnet import ResNet
from sphemb.models._state_dicts import read_state_dict
from sphemb.models._weights import (
    import_weights,
    list_weights,
    load_weights,
    weights_dir,
)

__all__ = [
    "BACKBONES",
    "FCN8",
    "AtrousPyramid",
    "Backbone",
    "BatchNorm",
    "DenseEmbedding",
    "EfficientNetLite0",
    "FeatureMap",
    "FeaturePyramid",
    "Hourglass",
    "MomentSums",
    "OnBackbone",
    "ResNet",
    "ResidualBlock",
    "SideBranches",
    "TopDown",
    "apply_masked",
    "apply_with_moments",
    "chromaticity",
    "convert_state_dict",
    "depth_to_space",
    "import_weights",
    "last_map_at",
    "list_weights",
    "load_weights",
    "pixel_coordinates",
    "read_state_dict",
    "space_to_depth",
    "takes",
    "weights_dir",
]
