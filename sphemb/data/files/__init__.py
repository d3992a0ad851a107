"""Files: images, masks, annotations and archives, read and written.

A file that cannot be used raises `FileError`, one line that names it.
"""

from sphemb.data.files._annotations import (
    Annotations,
    Classes,
    by_image,
    category_names,
    find_annotation_file,
    find_annotations,
    load_annotations,
    read_annotations,
    read_panoptic,
)
from sphemb.data.files._encoded import (
    check_encoded,
    check_label_size,
    decode_colors,
    decode_image,
    decode_indices,
    decode_labels,
    encode_labels,
    to_png,
)
from sphemb.data.files._findings import FileError, Finding, PathLike, error_finding
from sphemb.data.files._image_files import (
    each_once,
    find_images,
    images_in,
    is_image,
    pad_to_multiple,
    read_image,
    write_image,
    write_labels,
)
from sphemb.data.files._image_values import (
    ImageValues,
    image_files,
    with_measured_range,
)
from sphemb.data.files._masks import (
    Mask,
    check_edges,
    check_mask_settings,
    inspect_mask,
    number_in_order,
    read_mask,
)
from sphemb.data.files._matlab import load_variable, reading_matlab
from sphemb.data.files._palettes import PaletteColors, check_palettes
from sphemb.data.files._published import (
    Files,
    FolderFiles,
    Publication,
    open_publication,
)
from sphemb.data.files._stored_images import (
    AS_SHOWN,
    Header,
    Reading,
    read_header,
    read_size,
)
from sphemb.data.files._tiff_files import write_tiff
from sphemb.data.files._tiling import Box, Tile, tile_image
from sphemb.data.files._windows import ImageWindows

__all__ = [
    "AS_SHOWN",
    "Annotations",
    "Box",
    "Classes",
    "FileError",
    "Files",
    "Finding",
    "FolderFiles",
    "Header",
    "ImageValues",
    "ImageWindows",
    "Mask",
    "PaletteColors",
    "PathLike",
    "Publication",
    "Reading",
    "Tile",
    "by_image",
    "category_names",
    "check_edges",
    "check_encoded",
    "check_label_size",
    "check_mask_settings",
    "check_palettes",
    "decode_colors",
    "decode_image",
    "decode_indices",
    "decode_labels",
    "each_once",
    "encode_labels",
    "error_finding",
    "find_annotation_file",
    "find_annotations",
    "find_images",
    "image_files",
    "images_in",
    "inspect_mask",
    "is_image",
    "load_annotations",
    "load_variable",
    "number_in_order",
    "open_publication",
    "pad_to_multiple",
    "read_annotations",
    "read_header",
    "read_image",
    "read_mask",
    "read_panoptic",
    "read_size",
    "reading_matlab",
    "tile_image",
    "to_png",
    "with_measured_range",
    "write_image",
    "write_labels",
    "write_tiff",
]
