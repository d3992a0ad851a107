"""The batch ahead, the step in flight, and how long data was waited for."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

from sphemb import InputError
from sphemb.data import make_loader
from sphemb.training._flight import BatchesAhead, Flight, Stalls


class Numbers:
    """Ten examples, of which the sixth is damaged."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 5:
            raise InputError("5.png is damaged")
        maps = {"instances": np.full((2, 2), index), "name": str(index)}
        return {"image": np.zeros((2, 2, 3), np.uint8), **maps}


@pytest.mark.parametrize("num_threads", [0, 2])
class TestBatchesAhead:
    def loader(self, num_threads):
        return iter(make_loader(Numbers(), batch_size=1, num_threads=num_threads))

    def test_the_state_is_that_of_the_batch_taken_last(self, num_threads):
        ahead = BatchesAhead(self.loader(num_threads), lambda batch: batch["index"][0])
        places = [ahead.get_state()]
        for k in range(4):
            batch, sent = ahead.take()
            ahead.send()
            assert sent == batch["index"][0] == k
            places.append(ahead.get_state())
        for k, place in enumerate(places):
            resumed = self.loader(num_threads)
            resumed.set_state(json.loads(place))
            assert next(resumed)["index"][0] == k

    def test_an_error_is_raised_where_its_batch_is_taken(self, num_threads):
        ahead = BatchesAhead(self.loader(num_threads), lambda batch: batch)
        for _ in range(5):
            assert not ahead.failed
            ahead.take()
            ahead.send()
        assert ahead.failed
        with pytest.raises(InputError, match=r"5\.png is damaged"):
            ahead.take()


def test_a_flight_ends_when_its_scalars_arrive():
    begun = time.monotonic()
    flight = Flight(1, {}, {"loss": np.float32(2.0)}, begun=begun)
    assert flight.scalars() == {"loss": 2.0}
    assert begun <= flight.ended <= time.monotonic()


def test_a_stall_is_the_wait_for_data_after_a_step_has_ended():
    # The first waits from 1 to 4 for the data of the second, but ends at 3 only; the
    # data of the third are there at 7, before the second ends; those of the fourth are
    # waited for from 12 on, when the third has ended.
    times = [(0, 3, (1, 4)), (5, 9, (6, 7)), (8, 11, (12, 14)), (14, 18, (0, 0))]
    stalls = Stalls()
    for begun, ended, waiting in times:
        stalls.add(SimpleNamespace(begun=begun, ended=ended, waiting=waiting))
    assert stalls.seconds == [1 + 4, 2, 2 + 4]
    assert stalls.shares == pytest.approx([1 / 5, 0, 2 / 6])
    assert stalls.share() == pytest.approx(3 / 13)
    assert stalls.share(1) == pytest.approx(2 / 8)
    assert stalls.share(3) == 0
