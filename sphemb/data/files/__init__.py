# ruff: noqa: F401 (the imports are what is public)
"""Files: images, masks, annotations and archives, read and written.

An unusable file raises `FileError`, one line that names it.
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
from sphemb.data.files._image_files import (
    Box,
    ImageValues,
    ImageWindows,
    Tile,
    each_once,
    find_images,
    image_files,
    images_in,
    is_image,
    read_header,
    read_image,
    read_size,
    tile_image,
    with_measured_range,
    write_image,
    write_labels,
    write_tiff,
)
from sphemb.data.files._images import (
    AS_SHOWN,
    FileError,
    Finding,
    Header,
    PathLike,
    Reading,
    Resolution,
    error_finding,
)
from sphemb.data.files._mask_files import (
    PaletteColors,
    check_encoded,
    check_label_size,
    check_palettes,
    decode_colors,
    decode_image,
    decode_indices,
    decode_labels,
    encode_labels,
    to_png,
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
from sphemb.data.files._published import (
    Files,
    FolderFiles,
    Publication,
    find_unpacked,
    open_publication,
)
