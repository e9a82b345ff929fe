"""Trainings on photographs from disk: the numbers of arrays, where they continue, bad input."""

import dataclasses
import json
import re
from functools import partial

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photographs import folder_of, photograph

from experiments.harness import chunked_run, provenance, reading, rows, streamed_runs, training_runs
from experiments.harness.flags import RunSettings
from experiments.harness.problem import build, on_device
from experiments.harness.seeds import seed, training_key
from experiments.harness.session import finish_run, refuse_photographs, session_in
from experiments.harness.streamed_runs import Leg
from experiments.harness.training_runs import Start, accuracies, train_all
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import masks, runs
from jaxtickets.data import batches as data_batches
from jaxtickets.data import stream
from jaxtickets.data.errors import DataError
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream as key_of
from jaxtickets.optimizers import Hyper
from jaxtickets.training import Moves
from jaxtickets.types import Split

NET = NetSettings(model="lenet300_100", widths="5,4", dataset="folder", image_size=8, seeds=1)
TRAIN = TrainSettings(batch_size=6, iterations=32, look_every=8, test_every=16, learning_rate=0.01)
ONE = runs.axis("map", 1)
PIECE = 3 * 8 * 8 * 6 * 3
"""The bytes of three batches."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """31 photographs to train on, of which 2 are held out, in batches of 6; and 9 test images."""
    path = folder_of(tmp_path_factory.mktemp("photos"), train=16, test=5)
    for name in ("train/bee/15.jpg", "val/ape/04.jpg"):
        (path / name).unlink()
    return path


def opened(folder, photos, axis=ONE, net=NET, train=TRAIN, size=PIECE, problem=None):
    """A session that reads pieces of at most `size` bytes."""
    place = RunSettings(data_dir=str(photos), threads=2, checkpoint_seconds=0)
    problem = problem or build(net, train, str(photos), False)
    folder.mkdir(parents=True, exist_ok=True)
    made = session_in(folder, place, axis, problem, net)
    small = made.reader._replace(bytes=size)
    return made._replace(reader=small)


def in_memory(session):
    """The same session with all pixels in memory, in the order of the runs' own key."""
    streams = session.problem.photographs

    def decoded(one):
        count = one.examples.total
        whole = stream.batch_at(stream.evaluation(one.examples, count, one.transform), 0)
        return Split(whole.images, whole.labels)

    train, validation, test = map(decoded, streams)
    dataset = session.problem.dataset._replace(train=train, validation=validation, test=test)
    problem = session.problem._replace(dataset=dataset, photographs=None)
    return session._replace(problem=problem, data=on_device(dataset), reader=None)


def in_order_of(session, key):
    """The session with its photographs in the order that `train_chunk` takes for a run's key."""
    streams = session.problem.photographs
    same = stream.training(
        streams.training.examples,
        jax.random.split(key, 3)[0],
        jax.random.key(5),
        TRAIN.batch_size,
        streams.training.transform,
    )
    problem = session.problem._replace(photographs=streams._replace(training=same))
    return session._replace(problem=problem)


def starts_of(session):
    """Two runs of a seed: a dense one from step 0, a sparse one from step 16 at another rate."""
    one = seed(session.problem, 0)
    key, hyper = training_key(one), session.problem.hyper
    sparse = masks.random(jax.random.key(3), one.params, session.problem.prunable, 300)
    dense = Start(key, hyper, one.params, one.stats, masks.ones(one.params), 0)
    other = Start(key, Hyper(hyper.rate * 2, hyper.warmup), one.params, one.stats, sparse, 16)
    return runs.stack([dense, other])


NAMES = [{"method": "dense"}, {"method": "sparse"}]


def trained(session, **more):
    return train_all(session, "train", starts_of(session), NAMES, **more)


def assert_close(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def metrics(folder):
    """Rows without their times and chunks."""
    found = rows.read_metrics(folder)
    return [{k: v for k, v in r.items() if k not in ("seconds", "chunk")} for r in found]


# --- numbers -------------------------------------------------------------------------------------


def test_streamed_runs_have_the_numbers_of_the_same_pixels_in_memory(photos, tmp_path):
    session = opened(tmp_path / "streamed", photos)
    session = in_order_of(session, training_key(session.seeds[0]))
    streamed = trained(session, keep_at=(8,))
    arrays = in_memory(session)._replace(folder=tmp_path / "arrays")
    arrays.folder.mkdir()
    expected = trained(arrays, keep_at=(8,))
    assert_close(streamed, expected)
    assert streamed.state.step.tolist() == [32, 32]
    seen, wanted = ([r for r in metrics(s.folder) if "method" in r] for s in (session, arrays))
    assert len(seen) == 6  # four evaluations of the dense run, two of the sparse one
    for row in wanted:
        (mine,) = [r for r in seen if (r["method"], r["step"]) == (row["method"], row["step"])]
        assert set(mine) == set(row) and ("test_accuracy" in mine) == (row["step"] % 16 == 0)
        for name in {*row} - {"phase", "method"}:
            assert mine[name] == pytest.approx(row[name], rel=2e-5)
    for part in ("validation", "test"):
        found = accuracies(session, streamed.params, streamed.stats, part)
        np.testing.assert_allclose(
            found, accuracies(arrays, streamed.params, streamed.stats, part), rtol=1e-6
        )


def test_a_run_that_is_killed_in_an_epoch_continues_to_the_same_bits(photos, tmp_path, monkeypatch):
    # an epoch has 4 steps, an evaluation comes after 8, a leg has 2
    problem = opened(tmp_path / "whole", photos).problem
    part = partial(opened, photos=photos, problem=problem, size=PIECE - 1)
    whole, killed = part(tmp_path / "whole"), part(tmp_path / "killed")
    ends = trained(whole)
    fine, calls = training_runs.check_finite, []

    def check(*given):
        calls.append(given[2])
        if len(calls) in (4, 7):
            raise InterruptedError
        fine(*given)

    monkeypatch.setattr(training_runs, "check_finite", check)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            trained(part(tmp_path / "killed"))
    again = killed._replace(reader=killed.reader._replace(threads=3))
    resumed = trained(again)
    # the legs at steps 6 and 10 were done twice
    assert calls == [0, 2, 4, 6, 6, 8, 10, 10, 12, *range(14, 32, 2)]
    for a, b in zip(jax.tree.leaves(ends), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert metrics(killed.folder) == metrics(whole.folder)
    spent = {row["chunk"]: row["seconds"] for row in rows.read_metrics(killed.folder)}
    assert len(spent) == 16
    assert chunked_run.seconds(killed.folder, "train") == pytest.approx(sum(spent.values()))


def test_what_is_in_memory_is_a_sample_of_the_training_images(photos):
    problem = build(NET, TRAIN, str(photos), False)
    streams, held = problem.photographs, problem.dataset
    whole = stream.evaluation(streams.training.examples, 29, streams.training.transform)
    expected = stream.batch_at(whole, 0)
    assert (problem.train_size, problem.epoch_steps, problem.image_shape) == (29, 4, (8, 8, 3))
    found, wanted = (
        sorted((image.tobytes(), int(label)) for image, label in zip(*split, strict=True))
        for split in (held.train, (expected.images, expected.labels))
    )
    assert found == wanted and len(held.validation.labels) == len(held.test.labels) == 0
    # no key of a run decides the order
    np.testing.assert_array_equal(
        streams.training.order(1),
        data_batches.epoch(jax.random.fold_in(key_of(0, "photographs", "order"), 1), 29, 6),
    )


def test_a_run_does_not_continue_with_other_photographs(photos, tmp_path):
    session = opened(tmp_path / "run", photos)
    changed = dataclasses.replace(NET, train_images=24)
    with pytest.raises(DataError, match="the examples changed since the checkpoint"):
        opened(session.folder, photos, net=changed)
    assert set(json.loads((session.folder / reading.STREAM).read_text())) == {*reading.PARTS}


def test_all_lanes_and_modes_see_the_same_batches(photos, tmp_path, cpus):
    problem = opened(tmp_path / "one", photos).problem
    results = []
    for mode, axis in {
        "map": runs.axis("map", 1, cpus[:1]),
        "lanes": runs.axis("map", 1, cpus[:2]),
        "data": runs.axis("data", 1, cpus[:2]),
    }.items():
        session = opened(tmp_path / mode, photos, axis=axis, problem=problem)
        starts = starts_of(session)._replace(step=np.zeros(2, int))
        results.append(train_all(session, "train", starts, NAMES, end=16))
    one, lanes, data = results
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(lanes), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_close(one, data)


# --- pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "size", "moves", "pieces"),
    [
        (8, 3, None, [2, 2, 2, 2]),  # 2 divides 8 and is more than half of 3
        (8, 8, None, [8]),
        (7, 3, None, [3, 3, 1]),  # only 1 divides 7
        (8, 0, None, [1] * 8),  # a batch that is too large alone
        (8, 5, 4, [4, 4]),  # moves of the mask come between two pieces, or in one
        (8, 1, 4, [4, 4]),
    ],
)
def test_pieces_are_of_one_size_if_possible_and_end_at_evaluations(
    photos, tmp_path, every, size, moves, pieces
):
    session = opened(tmp_path / "run", photos, size=max(1, size * PIECE // 3))
    changes = {"every": every, "moves": Moves(moves, 6) if moves else None}
    session = session._replace(problem=session.problem.with_recipe(**changes))
    found = streamed_runs.legs(session, every, 3 * every)
    assert [b - a for leg in found for a, b in leg.pieces] == pieces * 2
    assert found[0].start == every and found[-1].stop == 3 * every
    assert [leg.stop for leg in found if leg.evaluated] == [2 * every, 3 * every]
    assert [leg.stop for leg in found if leg.tested] == [3 * every]


def test_there_are_few_legs_however_many_pieces(photos, tmp_path):
    session = opened(tmp_path / "run", photos, size=1)
    session = session._replace(problem=session.problem.with_recipe(every=100))
    found = streamed_runs.legs(session, 0, 100)
    assert len(found) == 25 and found[0] == Leg(((0, 1), (1, 2), (2, 3), (3, 4)), False, False)


# --- corrupt photographs, and other bad input ----------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    """A folder with a corrupt file among its 22 training images and one among its 6 test images."""
    path = folder_of(tmp_path / "damaged", train=12, test=3)
    for name in ("train/ape/03.jpg", "val/bee/01.jpg"):
        (path / name).write_bytes(photograph(0)[:300])
    return path


def test_corrupt_photographs_are_refused_before_work_or_counted(damaged, tmp_path, capsys):
    with pytest.raises(DataError, match=r"train: ape/03\.jpg can't be decoded"):
        build(NET, TRAIN, str(damaged), False)
    skip = dataclasses.replace(NET, corrupt="skip")
    session = opened(tmp_path / "run", damaged, net=skip)
    one = session.seeds[0]
    found = accuracies(session, *runs.stack([(one.params, one.stats)]), "test")
    assert found[0] * 5 == pytest.approx(round(float(found[0]) * 5))  # of five images
    trained(session)
    assert reading.all_skipped(tmp_path) == {"train": 1, "test": 1}
    provenance.start(session.folder)
    finish_run(session.folder)
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"run: {session.folder}"
    assert "1 corrupt photographs of train were skipped, see skipped.json" in said


STEPS = ("--iterations=24", "--look_every=6", "--test_every=12")
SMALL = ("--dataset=imagenette_sample", "--image_size=32", "--batch_size=50", "--epochs=6")
COMMANDS = {
    "imp_rewind": ("--model=resnet18", *STEPS, "--rewind_step=12"),
    "ticket_grid": ("--model=vgg16", "--dataset=folder"),
    "prune_retrain": ("--model=alexnet", "--image_size=64"),
    "structured_pruning": ("--model=resnet34",),
    "slimming": ("--model=vgg11",),
    "early_bird": ("--model=mobilenet_v2",),
    "sparse_training": ("--model=vgg16", "--methods=rigl", "--move_every=7"),
}


def test_seven_experiments_take_photographs(cache):
    asked = [[name, *SMALL, *more] for name, more in COMMANDS.items()]
    found = commands.answers(asked, cache, commands.ACCEPT_ALONE)
    for words, (status, said) in zip(asked, found, strict=True):
        assert status == commands.ACCEPTED, (words, said)


@pytest.mark.parametrize(
    ("changes", "folder", "said"),
    [
        ({}, "/nowhere", "/nowhere/train can't be read"),
        ({}, "", "name the folder of train and val by --data_dir=FOLDER"),
        ({"model": "alexnet", "widths": ""}, None, "alexnet needs images of at least"),
        ({"batch_size": 500}, None, "batch_size=500: must be from 1 to the 29 examples"),
        ({"accumulate": 4}, "/nowhere", "--accumulate=4: must divide --batch_size=6"),
        ({"ghost_batches": 4}, "/nowhere", "--ghost_batches=4: must divide the 6 examples"),
        ({"train_images": 30}, None, "--train_images=30: photos"),
        ({"train_images": 19}, None, "19 training images: 20 or more are needed"),
        ({"dataset": "digits"}, None, "--image_size=8: digits has images of its own size"),
        ({"dataset": "digits", "image_size": 0, "corrupt": "skip"}, None, "has no files of images"),
        ({"dataset": "imagenet2012"}, None, "imagenet2012 is not prepared in"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_before_work(photos, changes, folder, said):
    fields = {field.name for field in dataclasses.fields(NetSettings)}
    net = dataclasses.replace(NET, **{k: v for k, v in changes.items() if k in fields})
    train = dataclasses.replace(TRAIN, **{k: v for k, v in changes.items() if k not in fields})
    with pytest.raises((UserError, DataError), match=re.escape(said)) as caught:
        build(net, train, str(photos) if folder is None else folder, False)
    assert "\n" not in str(caught.value)


def test_an_experiment_that_needs_arrays_refuses_photographs():
    with pytest.raises(UserError, match="--dataset=folder: this experiment takes data sets that"):
        refuse_photographs(NET)
    refuse_photographs(NetSettings())


@pytest.mark.parametrize(
    ("experiment", "more"),
    {
        "imp_rewind": (*STEPS, "--levels=1", "--rewind_step=12", "--reinits=0", "--seeds=1"),
        "early_bird": ("--epochs=5", "--seeds=1"),
    }.items(),
)
def test_an_experiment_runs_on_photographs(experiment, more, photos, cache, tmp_path):
    words = commands.command(
        experiment,
        "--smoke",
        "--model=lenet300_100",
        "--widths=8,6",
        "--dataset=folder",
        f"--data_dir={photos}",
        "--image_size=8",
        "--batch_size=6",
        "--train_images=24",
        *more,
        f"--out={tmp_path / 'run'}",
    )
    done = commands.run(words, cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"run: {tmp_path / 'run'}"
    assert commands.summary(tmp_path / "run")
