"""Photographs from disk: their pixels, crops and order; where a run continues; damaged input."""

import hashlib
import io
import json
from functools import partial

import jax
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from photographs import photograph
from PIL import Image

from jaxtickets.data import batches as data_batches
from jaxtickets.data import (
    crops,
    examples,
    jpegs,
    photo_folder,
    photo_records,
    sources,
    stream,
)
from jaxtickets.data.errors import DataError, ImageError

SIZE = 12
CROP = partial(crops.random_crop, size=SIZE)
CENTRE = partial(crops.centre_crop, size=SIZE, shorter=16)
BILINEAR = Image.Resampling.BILINEAR


def error_of(call) -> str:
    """The message of the DataError that `call` raises, which is one line."""
    with pytest.raises(DataError) as caught:
        call()
    assert str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    """Two classes of 7 and 6 photographs of several sizes, one of them grey, one in inks."""
    for number in range(13):
        path = tmp_path / "photos" / ("ape" if number < 7 else "bee") / f"{number:02}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = {3: "L", 8: "CMYK"}.get(number, "RGB")
        path.write_bytes(photograph(number, (40 + number, 30), mode))
    (tmp_path / "photos" / "ape" / "notes.txt").write_text("no photograph")
    return tmp_path / "photos"


def training(found, batch_size=4, transform=CROP, **settings):
    return stream.training(
        found, jax.random.key(1), jax.random.key(2), batch_size, transform, **settings
    )


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        for left, right in zip(a, b, strict=True):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


# --- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_photograph_has_the_pixels_that_pillow_decodes(mode):
    encoded = photograph(0, mode=mode)
    found = np.asarray(jpegs.rgb(jpegs.header(encoded))[0])
    np.testing.assert_array_equal(found, Image.open(io.BytesIO(encoded)).convert("RGB"))
    assert found.shape == (30, 40, 3)


def test_grey_has_three_equal_channels_and_no_ink_is_white():
    grey = np.asarray(jpegs.rgb(jpegs.header(photograph(0, mode="L")))[0])
    assert np.all(grey == grey[..., :1]) and grey.std() > 10
    paper = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(paper, "JPEG")
    assert np.all(np.asarray(jpegs.rgb(jpegs.header(paper.getvalue()))[0]) == 255)


def test_a_png_file_that_is_called_jpeg_is_read():
    encoded = photograph(0, form="PNG")
    assert jpegs.rgb(jpegs.header(encoded))[0].size == (40, 30)


@pytest.mark.parametrize(
    "encoded",
    [b"", b"no photograph", photograph(0)[:300], photograph(0, form="PNG")[:300]],
    ids=["empty", "text", "half a JPEG", "half a PNG"],
)
def test_a_damaged_file_is_an_image_error(encoded):
    with pytest.raises(ImageError):
        jpegs.rgb(jpegs.header(encoded))


def test_sixteen_bits_a_channel_are_refused_by_name():
    encoded = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(encoded, "PNG")
    with pytest.raises(ImageError, match="I;16"):
        jpegs.header(encoded.getvalue())


# --- crops ---------------------------------------------------------------------------------------


def draws(*attempts, place=(0.5, 0.5), flip=0.9):
    """The attempts, of which the last one is repeated, the place and the flip."""
    pairs = [*attempts, *[attempts[-1]] * (crops.ATTEMPTS - len(attempts))]
    return np.array([*np.ravel(pairs), *place, flip])


@pytest.mark.parametrize(
    ("size", "uniforms", "area", "ratio", "box"),
    [
        # 0.32 of 5,000 pixels at ratio 1 (the middle of the logarithms): 40 x 40; there are 61
        # places from left to right and 11 from top to bottom
        ((100, 50), draws((0.32, 0.5)), (0, 1), (1 / 4, 4), (30, 5, 70, 45)),
        # all 5,000 pixels at ratio 1 are 71 x 71, which is too high: the second attempt is taken
        ((100, 50), draws((1, 0.5), (0.32, 0.5)), (0, 1), (1 / 4, 4), (30, 5, 70, 45)),
        # ratio 4: 0.32 of 5,000 is 80 x 20, last places: 100 - 80 and 50 - 20
        (
            (100, 50),
            draws((0.32, 1), place=(0.999, 0.999)),
            (0, 1),
            (1 / 4, 4),
            (20, 30, 100, 50),
        ),
        # nothing fits: the whole height of 10, and 10 * 4 / 3 in the middle of the width
        ((100, 10), draws((0.5, 0.5)), (1, 1), (3 / 4, 4 / 3), (43, 0, 56, 10)),
        # and 10 / (3 / 4) in the middle of the height
        ((10, 100), draws((0.5, 0.5)), (1, 1), (3 / 4, 4 / 3), (0, 43, 10, 56)),
    ],
    ids=["fits", "second attempt", "last place", "too wide", "too high"],
)
def test_a_random_part_is_the_one_worked_by_hand(size, uniforms, area, ratio, box):
    assert crops.random_box(*size, uniforms, area, ratio) == box


def test_random_parts_lie_inside_and_have_their_areas_and_ratios():
    uniforms = np.random.default_rng(0).random((2000, crops.DRAWS))
    boxes = np.array([crops.random_box(500, 375, row) for row in uniforms])
    left, top, right, bottom = boxes.T
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= 500 and bottom.max() <= 375
    share, ratio = (right - left) * (bottom - top) / (500 * 375), (right - left) / (bottom - top)
    assert share.min() > 0.079 and 0.9 < share.max() <= 1
    assert 0.74 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.35
    # A share s up to 9/16 always fits; a greater one if the ratio is s / 0.75 or more, which has
    # the probability ln(1 / s) / (2 ln(4/3)), because 500 / 375 is the greatest ratio. So the mean
    # is (0.1550 + 0.1388) / (0.4825 + 0.1979) = 0.432, with a standard deviation of 0.005 here.
    assert abs(share.mean() - 0.432) < 0.02


@pytest.mark.parametrize("flip", [0.4, 0.6])
def test_a_random_crop_has_pillows_pixels(flip):
    encoded, uniforms = photograph(1, (60, 50)), draws((0.4, 0.3), flip=flip)
    box = crops.random_box(60, 50, uniforms)
    expected = Image.open(io.BytesIO(encoded)).resize((SIZE, SIZE), BILINEAR, box=box)
    expected = np.asarray(expected)[:, ::-1] if flip < 0.5 else np.asarray(expected)
    np.testing.assert_array_equal(crops.random_crop(encoded, uniforms, SIZE), expected)


@pytest.mark.parametrize("size", [(61, 40), (40, 61), (16, 16)])
def test_the_centre_has_pillows_pixels(size):
    encoded = photograph(2, size)
    target = {61: 24, 40: 16, 16: 16}  # 61 * 16 / 40 = 24.4
    resized = Image.open(io.BytesIO(encoded)).resize([target[side] for side in size], BILINEAR)
    left, top = ((target[side] - SIZE) // 2 for side in size)
    expected = np.asarray(resized)[top : top + SIZE, left : left + SIZE]
    np.testing.assert_array_equal(crops.centre_crop(encoded, draws((0, 0)), SIZE, 16), expected)


@pytest.mark.parametrize(
    "crop", [CENTRE, partial(crops.random_crop, size=SIZE, area=(0.8, 1.0))], ids=["centre", "any"]
)
def test_a_draft_is_close_to_the_full_resolution_and_is_what_was_asked_for(crop, monkeypatch):
    encoded, uniforms = photograph(3, (203, 155)), draws((0.1, 0.5))
    decoded = []
    rgb = jpegs.rgb
    monkeypatch.setattr(jpegs, "rgb", lambda *args: decoded.append(rgb(*args)) or decoded[-1])
    full, draft = crop(encoded, uniforms), crop(encoded, uniforms, draft=True)
    assert [image.size for image, _ in decoded] == [(203, 155), (26, 20)]
    assert full.shape == draft.shape == (SIZE, SIZE, 3)
    assert np.abs(full.astype(int) - draft).mean() < 4 < full.std() / 9


# --- the random numbers and the order ------------------------------------------------------------


def test_the_random_numbers_are_a_function_of_words_epoch_and_example():
    found = {
        (word, epoch, index): stream.uniforms((7, word), epoch, index)
        for word in range(2)
        for epoch in range(3)
        for index in range(50)
    }
    every = np.concatenate(list(found.values()))
    assert len(set(every.tolist())) == every.size == 300 * crops.DRAWS
    assert every.min() >= 0 and every.max() < 1 and abs(every.mean() - 0.5) < 0.02
    np.testing.assert_array_equal(stream.uniforms((7, 1), 2, 49), found[1, 2, 49])
    # published numbers hang on it
    assert hashlib.sha256(every.tobytes()).hexdigest()[:16] == "2e41458b3cd0d6c4"


def test_a_training_reads_in_the_order_of_data_in_memory(folder):
    found = training(photo_folder.open_folder(folder))
    rows = data_batches.stream(jax.random.key(1), 0, 7, 13, 4)
    np.testing.assert_array_equal([stream.batch_at(found, t).indices for t in range(7)], rows)


def test_each_crop_belongs_to_its_example_and_differs_from_epoch_to_epoch(folder):
    found = photo_folder.open_folder(folder)
    one, other = training(found), training(found, batch_size=6)
    seen = {}
    for made in (one, other):
        for step in range(made.steps_per_epoch):
            batch = stream.batch_at(made, step)
            for image, label, index in zip(batch.images, batch.labels, batch.indices, strict=True):
                assert label == found.read(int(index)).label == int(index >= 7)
                np.testing.assert_array_equal(seen.setdefault(int(index), image), image)
    again = stream.batch_at(one, one.steps_per_epoch)
    assert not any(
        np.array_equal(image, seen.get(int(index)))
        for image, index in zip(again.images, again.indices, strict=True)
    )


@pytest.mark.parametrize("total", [12, 13])
def test_two_processes_see_each_example_at_most_once_an_epoch_and_all_if_batches_are_full(
    folder, total
):
    found = examples.subset(photo_folder.open_folder(folder), np.arange(13)[::-1][:total])
    whole = training(found)
    parts = [training(found, process=k, processes=2) for k in range(2)]
    for epoch in range(2):
        steps = range(epoch * 3, epoch * 3 + 3)
        shares = [[stream.batch_at(part, step) for step in steps] for part in parts]
        seen = [int(index) for share in shares for batch in share for index in batch.indices]
        assert len(seen) == len(set(seen)) == 12 and set(seen) <= set(range(total))
        joined = [
            [np.concatenate(pair) for pair in zip(left, right, strict=True)]
            for left, right in zip(*shares, strict=True)
        ]
        assert_same(joined, [stream.batch_at(whole, step) for step in steps])


def test_batches_do_not_depend_on_the_threads(folder):
    found = training(photo_folder.open_folder(folder))
    expected = [stream.batch_at(found, step) for step in range(5)]
    for threads, ahead in ((0, 0), (1, 1), (3, 4)):
        assert_same(stream.batches(found, 0, 5, threads=threads, ahead=ahead), expected)


def test_batches_do_not_depend_on_the_processes_that_decode(folder):
    found = training(photo_folder.open_folder(folder))
    expected = [stream.batch_at(found, step) for step in range(2, 7)]
    assert_same(stream.batches(found, 2, 7, threads=1, workers=2), expected)


def test_a_run_that_was_killed_in_an_epoch_continues_with_the_same_examples(folder):
    found = photo_folder.open_folder(folder)
    whole = list(stream.batches(training(found), 0, 8))
    killed, kept = stream.batches(training(found), 0, 8), []
    for step in range(4):  # the second batch of the second epoch
        kept.append(next(killed))
        saved = json.dumps(stream.state(training(found), step + 1))
    killed.close()
    rest = training(found)
    start = stream.resumed(rest, json.loads(saved))
    assert start == 4 and not list(stream.batches(rest, 8, 8))
    assert_same([*kept, *stream.batches(rest, start, 8)], whole)


def test_chunks_are_batches_stacked_for_a_scan_with_none_lost(folder):
    found = training(photo_folder.open_folder(folder))
    stacked = list(stream.chunks(stream.batches(found, 0, 5), 2))
    assert [len(chunk.labels) for chunk in stacked] == [2, 2, 1]
    assert stacked[0].images.shape == (2, 4, SIZE, SIZE, 3)
    joined = stream.Batch(*map(np.concatenate, zip(*stacked, strict=True)))
    assert_same(zip(*joined, strict=True), [stream.batch_at(found, step) for step in range(5)])


def test_an_evaluation_sees_every_example_once_and_weighs_no_padding(folder):
    found = photo_folder.open_folder(folder)
    for processes in (1, 2):
        parts = [
            stream.evaluation(found, 8, CENTRE, process=k, processes=processes)
            for k in range(processes)
        ]
        read = [stream.batch_at(part, step) for part in parts for step in range(2)]
        assert {batch.images.shape[0] for batch in read} == {8 // processes}
        counted = [i for batch in read for i in batch.indices[batch.valid].tolist()]
        assert sorted(counted) == list(range(13))
        assert sum(map(stream.corrupt, read)) == 0


# --- damaged and impossible input ----------------------------------------------------------------


def test_a_corrupt_image_is_refused_or_left_out_and_counted(folder):
    (folder / "ape" / "02.JPEG").write_bytes(photograph(2)[:300])
    found = photo_folder.open_folder(folder)
    message = error_of(lambda: [stream.batch_at(training(found), step) for step in range(3)])
    assert "ape/02.JPEG can't be decoded" in message and str(folder) in message
    read = list(stream.batches(training(found, batch_size=13, skip_corrupt=True), 0, 2))
    for batch in read:
        assert stream.corrupt(batch) == 1 and batch.valid.sum() == 12
        (place,) = np.flatnonzero(batch.indices == 2)
        assert not batch.valid[place]
        # in its place is the next row, or the first one
        np.testing.assert_array_equal(batch.images[place], batch.images[(place + 1) % 13])
        assert batch.labels[place] == batch.labels[(place + 1) % 13]
    # all others are what they are without the damage
    evaluated = stream.batch_at(stream.evaluation(found, 13, CENTRE, skip_corrupt=True), 0)
    (folder / "ape" / "02.JPEG").write_bytes(photograph(2, (42, 30)))
    whole = photo_folder.open_folder(folder)
    expected = stream.batch_at(stream.evaluation(whole, 13, CENTRE), 0)
    np.testing.assert_array_equal(
        evaluated.images[evaluated.valid], np.delete(expected.images, 2, 0)
    )


def test_an_error_in_a_thread_arrives_in_its_turn_as_one_line(folder):
    (folder / "ape" / "02.JPEG").unlink()
    found = photo_folder.open_folder(folder)
    (folder / "ape" / "03.JPEG").unlink()  # after the folder was opened
    whole = training(found, batch_size=12)
    assert "03.JPEG" in error_of(lambda: list(stream.batches(whole, 0, 2)))


def test_a_batch_without_a_readable_image_is_refused(folder):
    for path in folder.rglob("*.JPEG"):
        path.write_bytes(b"")
    found = training(photo_folder.open_folder(folder), skip_corrupt=True)
    assert "no image of step 0" in error_of(lambda: stream.batch_at(found, 0))


def test_impossible_streams_are_refused(folder):
    found = photo_folder.open_folder(folder)
    assert "13 examples" in error_of(lambda: training(found, batch_size=14))
    assert "13 examples" in error_of(lambda: training(found, batch_size=0))
    assert "2 processes" in error_of(lambda: training(found, batch_size=5, processes=2))
    assert "process=2" in error_of(lambda: training(found, process=2, processes=2))
    assert "batch_size=0" in error_of(lambda: stream.evaluation(found, 0, CENTRE))
    assert "13 examples" in error_of(lambda: examples.subset(found, np.array([13])))


def test_a_folder_without_photographs_is_refused(folder, tmp_path):
    (folder / "cat").mkdir()
    assert str(folder / "cat") in error_of(lambda: photo_folder.open_folder(folder))
    assert "no folder" in error_of(lambda: photo_folder.open_folder(folder / "cat"))
    assert "can't be read" in error_of(lambda: photo_folder.open_folder(tmp_path / "nowhere"))


def test_training_and_test_folders_share_their_classes_and_some_examples_are_held_out(tmp_path):
    for part, number in (("train", 5), ("val", 2)):
        for name in ("ape", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(number):
                (tmp_path / part / name / f"{k}.jpg").write_bytes(photograph(k))
    found = photo_folder.load(tmp_path, validation=3)
    assert [part.total for part in found[1:4]] == [7, 3, 4] and found.classes == 2
    assert len({part.fingerprint for part in found[1:4]}) == 3
    assert "can't be held out" in error_of(lambda: photo_folder.load(tmp_path, validation=10))
    (tmp_path / "val" / "bee").rename(tmp_path / "val" / "cat")
    assert "class bee" in error_of(lambda: photo_folder.load(tmp_path, validation=3))


def test_processes_with_other_files_are_named(folder):
    mine = photo_folder.open_folder(folder)
    (folder / "bee" / "09.JPEG").unlink()
    theirs = photo_folder.open_folder(folder)
    examples.check_same("photos", [mine.fingerprint] * 3)
    message = error_of(
        lambda: examples.check_same(
            "photos", [mine.fingerprint, theirs.fingerprint, mine.fingerprint]
        )
    )
    assert "process 1 has other examples" in message


def test_a_stream_does_not_continue_another_one(folder):
    found = photo_folder.open_folder(folder)
    saved = stream.state(training(found), 3)
    assert stream.resumed(training(found, processes=2), saved) == 3
    (folder / "bee" / "09.JPEG").unlink()
    for changed, what in (
        (training(photo_folder.open_folder(folder)), "the examples"),
        (training(found, batch_size=6), "the batch size"),
        (training(found, transform=CENTRE), "the transform"),
        (
            stream.training(found, jax.random.key(3), jax.random.key(2), 4, CROP),
            "the keys",
        ),
    ):
        assert f"{what} changed" in error_of(lambda c=changed: stream.resumed(c, saved))
    for broken in ({}, None, {"step": "x", "identity": {}}):
        assert "no state" in error_of(lambda b=broken: stream.resumed(training(found), b))


# --- TFDS's records ------------------------------------------------------------------------------

PHOTOS = sources.STREAMED["imagenet_sample"]._replace(train=10, validation=2, test=5, classes=3)


@pytest.fixture
def records(tmp_path):
    """A data_dir with 12 training records in two files, and 5 of the validation set."""
    import tensorflow_datasets as tfds

    version = tmp_path / "tfds" / PHOTOS.name / "1.0.0"
    version.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=4),
        }
    )
    features.save_config(str(version))
    numbers = iter(range(100))
    for name in (
        "train-{}-00000-of-00002",
        "train-{}-00001-of-00002",
        "validation-{}-00000-of-00001",
    ):
        split, _, shard = name.partition("-{}-")
        path = version / f"{PHOTOS.name}-{split}.array_record-{shard}"
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for number in [next(numbers) for _ in range(5 if split == "validation" else 6)]:
            example = {"image": photograph(number), "label": number % 3}
            writer.write(features.serialize_example(example))
        writer.close()
    split = {"filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}", "numBytes": "1"}
    info = {
        "fileFormat": "array_record",
        "moduleName": "photos",
        "name": PHOTOS.name,
        "splits": [
            {**split, "name": "train", "shardLengths": ["6", "6"]},
            {**split, "name": "validation", "shardLengths": ["5"]},
        ],
        "version": "1.0.0",
    }
    (version / "dataset_info.json").write_text(json.dumps(info))
    return version


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(sources.STREAMED, PHOTOS.name, PHOTOS)


def test_records_are_read_by_number_with_their_labels_and_some_are_held_out(records, small):
    found = photo_records.load(PHOTOS.name, records.parent.parent)
    assert [part.total for part in found[1:4]] == [10, 2, 5]
    read = [found.train.read(k) for k in range(10)] + [found.validation.read(k) for k in range(2)]
    assert sorted(read) == sorted((photograph(number), number % 3, "") for number in range(12))
    assert found.test.read(4) == (photograph(16), 16 % 3, "")
    batch = next(stream.batches(training(found.train), 0, 1))
    for image, index in zip(batch.images, batch.indices, strict=True):
        number = training(found.train)
        draw = stream.uniforms(number.crop_words, 0, int(index))
        np.testing.assert_array_equal(image, CROP(found.train.read(int(index)).image, draw))


def test_a_missing_or_damaged_file_of_records_is_one_line(records, small):
    load = partial(photo_records.load, PHOTOS.name, records.parent.parent)
    path = records / f"{PHOTOS.name}-train.array_record-00001-of-00002"
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[whole.index(b"JFIF") + 400] ^= 1
    path.write_bytes(changed)
    found = load()
    made = training(found.train, batch_size=10, skip_corrupt=True)
    assert "restore its files" in error_of(lambda: stream.batch_at(made, 0))
    path.write_bytes(whole[:-1000])
    assert "damaged" in error_of(load)
    path.write_bytes(
        (records / f"{PHOTOS.name}-validation.array_record-00000-of-00001").read_bytes()
    )
    assert "holds 5 records, not 6" in error_of(load)
    path.unlink()
    assert f"{path} is missing" in error_of(load)


def test_a_label_that_is_no_class_is_refused(records, small, monkeypatch):
    monkeypatch.setitem(sources.STREAMED, PHOTOS.name, PHOTOS._replace(classes=2))
    found = photo_records.load(PHOTOS.name, records.parent.parent)
    made = training(found.train, batch_size=10, skip_corrupt=True)
    assert "has the label 2, which is not from 0 to 1" in error_of(lambda: stream.batch_at(made, 0))


def test_unknown_photographs_are_refused_and_the_known_ones_listed():
    message = error_of(lambda: photo_records.load("imagenet"))
    assert all(name in message for name in sources.STREAMED)
