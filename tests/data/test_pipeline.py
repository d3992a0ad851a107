"""Examples become batches: shuffled, sharded, padded, skipped where unusable."""

from __future__ import annotations

import itertools

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sphemb import VOID
from sphemb._checks import InputError, InputTypeError
from sphemb.data import (
    DigitsAugmentation,
    PadExample,
    SkippingSource,
    make_loader,
    padded_size,
    size_buckets,
)


@pytest.fixture(scope="module")
def source():
    """Ten examples, the i-th of brightness 10 i."""
    return [
        {
            "image": np.full((8, 8, 3), 10 * i, np.uint8),
            "instances": np.full((8, 8), i, np.int32),
            "name": f"example-{i}",
        }
        for i in range(10)
    ]


def indices(batches):
    return [batch["index"].tolist() for batch in batches]


def take(loader, number):
    return list(itertools.islice(iter(loader), number))


class TestOnePass:
    def test_batches_have_the_shapes_types_and_range_of_the_contract(self, source):
        (batch,) = make_loader(source, batch_size=10)
        assert {key: (value.dtype, value.shape) for key, value in batch.items()} == {
            "image": (np.float32, (10, 8, 8, 3)),
            "instances": (np.int32, (10, 8, 8)),
            "valid": (np.bool_, (10,)),
            "index": (np.int64, (10,)),
        }
        np.testing.assert_allclose(batch["image"][:, 0, 0, 0] * 255, np.arange(10) * 10)

    def test_fills_the_last_batch_with_zeros_that_are_not_valid(self, source):
        batches = list(make_loader(source, batch_size=4))
        assert indices(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]]
        assert batches[2]["valid"].tolist() == [True, True, False, False]
        assert not batches[2]["image"][2:].any()
        assert not batches[2]["instances"][2:].any()
        assert all(batch["valid"].all() for batch in batches[:2])

    def test_a_map_of_classes_comes_along(self, source):
        classes = [{**e, "semantic": e["instances"].astype(np.uint8)} for e in source]
        *_, batch = make_loader(classes, batch_size=4)
        assert batch["semantic"].dtype == np.int32
        assert batch["semantic"][:, 0, 0].tolist() == [8, 9, 0, 0]

    def test_shuffled_it_sees_every_example_once(self, source):
        batches = indices(make_loader(source, batch_size=4, shuffle=True, seed=1))
        flat = [i for batch in batches for i in batch if i >= 0]
        assert sorted(flat) == list(range(10))
        assert flat != sorted(flat)

    def test_shards_share_nothing_and_have_equally_many_batches(self, source):
        shards = [
            indices(make_loader(source, batch_size=2, shard_index=shard, shard_count=3))
            for shard in range(3)
        ]
        assert {len(shard) for shard in shards} == {2}
        flat = [i for shard in shards for batch in shard for i in batch if i >= 0]
        assert sorted(flat) == list(range(10))


TRAINING = {"batch_size": 4, "shuffle": True, "repeat": True, "seed": 3}


class TestTraining:
    def test_never_ends_and_mixes_every_epoch_anew(self, source):
        flat = np.ravel(indices(take(make_loader(source, **TRAINING), 10)))
        epochs = flat.reshape(4, 10)
        for epoch in epochs:
            assert sorted(epoch) == list(range(10))
        assert len({tuple(epoch) for epoch in epochs}) == 4

    def test_seed_decides_the_order_and_threads_do_not(self, source):
        runs = [
            indices(take(make_loader(source, **{**TRAINING, **change}), 5))
            for change in ({}, {"num_threads": 0}, {"seed": 4})
        ]
        assert runs[0] == runs[1] != runs[2]

    def test_shards_together_are_one_stream_cut_in_turns(self, source):
        whole = indices(take(make_loader(source, **{**TRAINING, "batch_size": 6}), 5))
        parts = [
            indices(
                take(
                    make_loader(
                        source,
                        **{**TRAINING, "batch_size": 2},
                        shard_index=shard,
                        shard_count=3,
                    ),
                    5,
                )
            )
            for shard in range(3)
        ]
        for step in range(5):
            together = np.array([part[step] for part in parts]).T.ravel()
            assert together.tolist() == whole[step]

    @pytest.mark.parametrize("num_threads", [0, 2])
    def test_a_restored_iterator_goes_on_as_the_unbroken_one(
        self, source, tmp_path, num_threads
    ):
        loader = make_loader(
            source,
            **TRAINING,
            transforms=[DigitsAugmentation()],
            num_threads=num_threads,
        )
        unbroken = take(loader, 12)
        iterator = iter(loader)
        for _ in range(5):
            next(iterator)
        with ocp.CheckpointManager(tmp_path) as manager:
            saved = grain.checkpoint.CheckpointSave(iterator)
            manager.save(5, args=ocp.args.Composite(data=saved))
        for _ in range(2):  # what is read after saving must not matter
            next(iterator)

        fresh = iter(loader)
        next(fresh)
        with ocp.CheckpointManager(tmp_path) as manager:
            restore = grain.checkpoint.CheckpointRestore(fresh)
            manager.restore(5, args=ocp.args.Composite(data=restore))
        for expected in unbroken[5:]:
            batch = next(fresh)
            for key in expected:
                np.testing.assert_array_equal(batch[key], expected[key])


class TestTransforms:
    def test_chance_follows_the_place_in_the_stream_and_not_the_shard(self):
        def draw(example, rng):
            return {**example, "image": np.full((8, 8, 3), rng.uniform())}

        class Draw(grain.transforms.RandomMap):
            def random_map(self, element, rng):
                return draw(element, rng)

        still = {
            "image": np.zeros((8, 8, 3), np.uint8),
            "instances": np.zeros((8, 8), np.int32),
            "name": "still",
        }

        def values(**settings):
            loader = make_loader(
                [still] * 4, repeat=True, transforms=[Draw()], **settings
            )
            return [batch["image"][:, 0, 0, 0].tolist() for batch in take(loader, 6)]

        whole = np.ravel(values(batch_size=2))
        assert len(set(whole)) == 12  # another draw for every example and epoch
        shards = [
            values(batch_size=1, shard_index=shard, shard_count=2) for shard in range(2)
        ]
        np.testing.assert_array_equal(
            whole, np.stack([np.ravel(s) for s in shards]).T.ravel()
        )
        assert values(batch_size=2, seed=1) != values(batch_size=2)

    def test_functions_and_maps_are_applied_in_order(self, source):
        class Crop(grain.transforms.Map):
            def map(self, element):
                return {
                    **element,
                    "image": element["image"][:4],
                    "instances": element["instances"][:4],
                }

        def brighten(example):
            assert example["image"].shape == (4, 8, 3)
            return {**example, "image": example["image"] + np.uint8(5)}

        (batch,) = make_loader(source, batch_size=12, transforms=[Crop(), brighten])
        assert batch["image"].shape == (12, 4, 8, 3)
        assert np.rint(batch["image"][0, 0, 0, 0] * 255) == 5
        assert not batch["image"][10:].any()  # padding stays empty


def with_change(source, **change):
    return [source[0], {**source[1], **change}]


class TestBadExamples:
    @pytest.mark.parametrize(
        ("change", "kind", "message"),
        [
            (
                {"image": np.full((8, 8, 3), np.nan)},
                InputError,
                "image of example 'example-1' must be finite, got NaN or infinity",
            ),
            (
                {"image": np.full((8, 8, 3), np.inf, np.float32)},
                InputError,
                "'example-1' must be finite",
            ),
            (
                {"image": np.full((8, 8, 3), 200.0)},
                InputError,
                r"'example-1' must lie in \[0, 1\] .*from 200 to 200",
            ),
            (
                {"image": np.zeros((8, 8, 3), np.int16)},
                InputTypeError,
                "'example-1' must be uint8 or floating point, got int16",
            ),
            (
                {"image": np.zeros((8, 8), np.uint8)},
                InputError,
                r"image of example 'example-1' must have shape \[H, W, 3\]",
            ),
            (
                {"instances": np.zeros((4, 8), np.int32)},
                InputError,
                r"instances of example 'example-1' .*\(8, 8\).*got \(4, 8\)",
            ),
            (
                {"instances": np.zeros((8, 8), np.float32)},
                InputTypeError,
                "instances of example 'example-1' must be integers, got float32",
            ),
            (
                {"instances": np.full((8, 8), -2)},
                InputError,
                r"instances of example 'example-1' must be -1 \(void\).*from -2 to -2",
            ),
            (
                {"instances": np.full((8, 8), 2**32 - 1, np.uint32)},
                InputError,
                "from 4294967295 to 4294967295",
            ),
            (
                {"semantic": np.zeros((4, 8), np.int32)},
                InputError,
                r"semantic of example 'example-1' .*\(8, 8\).*got \(4, 8\)",
            ),
        ],
    )
    @pytest.mark.parametrize("num_threads", [0, 2])
    def test_the_example_is_named(self, source, change, kind, message, num_threads):
        bad = with_change(source, **change)
        loader = make_loader(bad, batch_size=2, num_threads=num_threads)
        with pytest.raises(kind, match=message):
            list(loader)

    def test_void_and_float_images_pass(self, source):
        good = with_change(
            source,
            image=np.full((8, 8, 3), 0.25),
            instances=np.full((8, 8), -1, np.int8),
        )
        (batch,) = make_loader(good, batch_size=2)
        assert batch["image"].dtype == np.float32
        assert (batch["image"][1] == 0.25).all()
        assert (batch["instances"][1] == -1).all()

    def test_unequal_sizes_in_a_batch_are_named_and_alone_they_pass(self, source):
        small = with_change(
            source,
            image=np.zeros((8, 4, 3), np.uint8),
            instances=np.zeros((8, 4), np.int32),
        )
        with pytest.raises(InputError, match=r"\(8, 8\) at index 0 and \(8, 4\) at in"):
            list(make_loader(small, batch_size=2))
        assert len(list(make_loader(small, batch_size=1))) == 2


class TestBadSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
            ({"batch_size": 2.0}, r"batch_size must be a Python int .*2\.0"),
            ({"batch_size": 1, "seed": 2**32}, r"seed must be below 2\*\*32"),
            (
                {"batch_size": 1, "shard_index": 2, "shard_count": 2},
                "shard_index must be below shard_count = 2, got 2",
            ),
        ],
    )
    def test_are_named(self, source, settings, message):
        with pytest.raises(InputError, match=message):
            make_loader(source, **settings)

    def test_an_empty_source_is_refused(self):
        with pytest.raises(InputError, match="source must hold at least one example"):
            make_loader([], batch_size=1)


class Sized:
    """Empty examples of given sizes."""

    def __init__(self, *sizes):
        self._sizes = sizes

    def __len__(self):
        return len(self._sizes)

    def size(self, index):
        return self._sizes[index]

    def __getitem__(self, index):
        size = self._sizes[index]
        image = np.full((*size, 3), 10 * index, np.uint8)
        return {
            "image": image,
            "instances": np.ones(size, np.int32),
            "name": str(index),
        }


class TestBuckets:
    def test_every_example_fits_its_bucket_and_the_fullest_comes_first(self):
        source = Sized((60, 90), (33, 64), (64, 96), (10, 10))
        found = size_buckets(source, [0, 1, 2, 3], multiple=32)
        assert found == {(64, 96): [0, 2], (32, 32): [3], (64, 64): [1]}
        assert next(iter(found)) == (64, 96)

    def test_the_size_depends_on_the_example_alone(self):
        source = Sized((60, 90), (60, 90), (61, 130))
        for some in ([0], [0, 1], [0, 2]):
            found = size_buckets(source, some, multiple=64)
            assert padded_size((60, 90), 64) == (64, 128)
            assert 0 in found[64, 128]

    def test_only_the_wanted_examples_are_looked_at(self):
        assert size_buckets(Sized((8, 8), (9, 9)), [1], multiple=4) == {(12, 12): [1]}


class TestPadding:
    def test_a_batch_of_padded_examples_says_where_the_padding_is(self):
        source = Sized((3, 5), (4, 6))
        loader = make_loader(
            source, batch_size=2, transforms=(PadExample((4, 8)),), num_threads=0
        )
        batch = next(iter(loader))
        assert batch["image"].shape == (2, 4, 8, 3)
        assert batch["mask"].dtype == bool
        assert batch["mask"].sum(axis=(1, 2)).tolist() == [15, 24]
        np.testing.assert_array_equal(batch["instances"] == VOID, ~batch["mask"])
        np.testing.assert_array_equal(batch["image"][1], np.float32(10 / 255))

    def test_a_map_of_classes_is_void_in_the_padding(self):
        example = Sized((3, 5))[0]
        classes = np.full((3, 5), 7)
        padded = PadExample((4, 8)).map({**example, "semantic": classes})["semantic"]
        np.testing.assert_array_equal(padded[:3, :5], classes)
        assert (padded[3:] == VOID).all()
        assert (padded[:, 5:] == VOID).all()

    def test_a_larger_example_is_named(self):
        with pytest.raises(InputError, match=r"'0' must be at most 2 x 8, got 3 x 5"):
            PadExample((2, 8)).map(Sized((3, 5))[0])


class Faulty:
    """Six examples, some of which are unreadable or impossible."""

    def __init__(self, *bad):
        self._bad = bad

    def __len__(self):
        return 6

    def size(self, index):
        return (8, 8 + index)

    def __getitem__(self, index):
        if index in self._bad:
            raise InputError(f"image {index}.png cannot be read:\n truncated")
        instances = np.full((8, 8), -7 if index == 5 else 1, np.int32)
        image = np.zeros((8, 8, 3), np.uint8)
        return {"image": image, "instances": instances, "name": f"{index}.png"}


class TestSkipping:
    def test_the_next_usable_example_stands_in_and_each_fault_is_printed_once(
        self, capsys
    ):
        source = SkippingSource(Faulty(1, 2))
        names = [source[i]["name"] for i in range(6)] + [source[1]["name"]]
        stand_ins = ["0.png", "3.png", "3.png", "3.png", "4.png", "0.png", "3.png"]
        assert names == stand_ins
        printed = capsys.readouterr().err.splitlines()
        assert printed[:2] == [
            "skipped: image 1.png cannot be read: truncated",
            "skipped: image 2.png cannot be read: truncated",
        ]
        assert "'5.png' must be -1 (void), 0 (background) or 1, 2" in printed[2]
        assert len(printed) == 3
        assert sorted(source.skipped) == [1, 2, 5]

    def test_the_size_is_that_of_what_stands_in(self):
        assert SkippingSource(Faulty(1, 2)).size(1) == (8, 11)

    def test_those_that_can_be_used_are_known(self):
        source = SkippingSource(Faulty(0, 3))
        assert source.usable(2) == [1, 2]
        assert source.usable(9) == [1, 2, 4]
        with pytest.raises(InputError, match="none of the 6 examples can be used"):
            SkippingSource(Faulty(0, 1, 2, 3, 4)).usable(1)

    def test_where_nothing_can_be_used_it_ends(self):
        with pytest.raises(InputError, match="none of the 6 examples can be used"):
            SkippingSource(Faulty(0, 1, 2, 3, 4))[0]

    def test_a_loader_goes_on_with_it_and_without_it_names_the_file(self):
        settings = {"batch_size": 2, "num_threads": 2}
        batches = list(make_loader(SkippingSource(Faulty(1)), **settings))
        assert [b["index"].tolist() for b in batches] == [[0, 1], [2, 3], [4, 5]]
        with pytest.raises(InputError, match=r"image 1\.png cannot be read"):
            list(make_loader(Faulty(1), **settings))
