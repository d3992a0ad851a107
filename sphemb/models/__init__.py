"""Networks: an image comes in, named maps come out.

A network is a Flax linen module with

* ``__call__(image, *, train=False, mask=None)``, which maps an image [B, H, W, 3] in
  [0, 1] to a dict of maps [B, H / s, W / s, C]. The grouping tasks read the map
  ``"embedding"``. The entry ``"origins"``, an `Origins`, holds the origin of each map,
  by default 0: cell i has its center at pixel (i + 1/2) s - 1/2 + origin. ``mask`` is
  bool [B, H, W], False at padded pixels, see `apply_masked`; a network without this
  argument is called without it. A network with coordinates may also take ``middle``,
  [2] or [B, 2], row and column of their zero in pixels: for a tile, the image's middle.
* ``stride``: H and W must be divisible by it.
* ``shiftable``: whether the output at a pixel depends on its surroundings alone. If
  not, because of coordinates, a tile of a large image is treated as an image.

Batch normalization keeps its moments in ``batch_stats``. A network with a setting
``backbone`` and the variables of that backbone under the same name can start from
``config.train.weights``.
"""

from sphemb._grid import Origins
from sphemb.models._heads import (
    FCN8,
    DenseEmbedding,
    FeaturePyramid,
    OnBackbone,
    SideBranches,
)
from sphemb.models._layers import (
    AtrousPyramid,
    BatchNorm,
    ResidualBlock,
    TopDown,
    chromaticity,
    depth_to_space,
    pixel_coordinates,
    space_to_depth,
)
from sphemb.models._masked import MomentSums, apply_masked, apply_with_moments, takes
from sphemb.models._pretrained import (
    convert_state_dict,
    import_weights,
    list_weights,
    load_weights,
    weights_dir,
)
from sphemb.models._torch_files import read_state_dict
from sphemb.models._unet import UNet
from sphemb.models.backbones import BACKBONES

__all__ = [
    "BACKBONES",
    "FCN8",
    "AtrousPyramid",
    "BatchNorm",
    "DenseEmbedding",
    "FeaturePyramid",
    "MomentSums",
    "OnBackbone",
    "Origins",
    "ResidualBlock",
    "SideBranches",
    "TopDown",
    "UNet",
    "apply_masked",
    "apply_with_moments",
    "chromaticity",
    "convert_state_dict",
    "depth_to_space",
    "import_weights",
    "list_weights",
    "load_weights",
    "pixel_coordinates",
    "read_state_dict",
    "space_to_depth",
    "takes",
    "weights_dir",
]
