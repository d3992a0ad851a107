"""The unit sphere: vectors, similarities, concentrations, and feasible margins.

All functions raise `InputError` for an argument of a wrong shape, dtype or range.
"""

from sphemb.sphere._affinity import (
    OracleSpectrum,
    affinity_error,
    oracle_affinity,
    oracle_laplacian,
    oracle_spectrum,
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
    fejes_toth_margin,
    margin_for,
    min_dimension,
    necessary_margin,
    total_similarity,
    total_similarity_bound,
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
