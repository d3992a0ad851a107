"""The folder of drawn cells is one that training takes, with cells that touch."""

import numpy as np

from examples.draw_cells import main
from sphemb.data import check_data, measure_instances, open_folder


def test_the_folder_has_many_cells_that_touch_and_no_error(tmp_path):
    main(tmp_path / "DIR", tmp_path / "IMAGES", number=4, more=1)
    assert not check_data(tmp_path / "DIR").errors
    sizes = measure_instances(open_folder(tmp_path / "DIR").source("train"))
    assert min(sizes.counts) > 127
    assert np.mean(sizes.touching) > 0.2
    assert 14 < sizes.diameter < 18  # as the network `nuclei` has learned
    assert [path.name for path in (tmp_path / "IMAGES").iterdir()] == ["0.png"]
