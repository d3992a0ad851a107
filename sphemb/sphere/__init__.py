"""The unit sphere: vectors, similarities, the kernel's sharpness, and room for groups.

* vectors: :func:`l2_normalize`, :func:`pairwise_dot`, :func:`cosine_similarity`,
  :func:`calibrated_similarity` (Eq. 1)
* sharpness: :func:`concentration_from_bandwidth`, :func:`concentration_from_margin`,
  their inverses :func:`bandwidth_from_concentration` and
  :func:`margin_from_concentration`; :func:`margin_angle`, :func:`margin_from_angle`
* room: :func:`margin_for`, :func:`feasible_margin_table`, :func:`min_dimension`
* bounds: :func:`total_similarity` and :func:`total_similarity_bound` (Prop. 1),
  :func:`necessary_margin` (Prop. 2), :func:`fejes_toth_margin`
* affinity of a partition: :func:`oracle_affinity`, :func:`oracle_laplacian`,
  :func:`oracle_spectrum` with its :class:`OracleSpectrum` (Barnes & Dubrawski, Theorem
  2.1); :func:`affinity_error`, how far products of embeddings are from it
"""

from sphemb.sphere._affinity import (
    OracleSpectrum,
    affinity_error,
    oracle_affinity,
    oracle_laplacian,
    oracle_spectrum,
)
from sphemb.sphere._bounds import (
    fejes_toth_margin,
    necessary_margin,
    total_similarity,
    total_similarity_bound,
)
from sphemb.sphere._concentration import (
    bandwidth_from_concentration,
    concentration_from_bandwidth,
    concentration_from_margin,
    margin_angle,
    margin_from_angle,
    margin_from_concentration,
)
from sphemb.sphere._packing import (
    FeasibleMargin,
    MarginTable,
    feasible_margin_table,
    margin_for,
    min_dimension,
)
from sphemb.sphere._vectors import (
    calibrated_similarity,
    cosine_similarity,
    l2_normalize,
    pairwise_dot,
)

__all__ = [
    "FeasibleMargin",
    "MarginTable",
    "OracleSpectrum",
    "affinity_error",
    "bandwidth_from_concentration",
    "calibrated_similarity",
    "concentration_from_bandwidth",
    "concentration_from_margin",
    "cosine_similarity",
    "feasible_margin_table",
    "fejes_toth_margin",
    "l2_normalize",
    "margin_angle",
    "margin_for",
    "margin_from_angle",
    "margin_from_concentration",
    "min_dimension",
    "necessary_margin",
    "oracle_affinity",
    "oracle_laplacian",
    "oracle_spectrum",
    "pairwise_dot",
    "total_similarity",
    "total_similarity_bound",
]
