"""The photographs of a problem: streams of batches, and the sample of them that is in memory."""

from typing import NamedTuple

from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets.data import photographs, stream
from jaxtickets.data.examples import StreamedDataset, digest
from jaxtickets.data.stream import Stream
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream as key_of
from jaxtickets.types import Dataset, Split

SAMPLE = 1000
"""How many training images are kept in memory, for what needs arrays: criteria look at no more."""
SEED = 0
"""The seed of order and crops, whatever the seeds of the runs, which all see the same batches."""
SKIP = "skip"


class Photographs(NamedTuple):
    """The batches of a problem whose photographs are read from disk.

    Attributes:
      training: the batches of all trainings.
      validation, test: the batches of evaluations.
    """

    training: Stream
    validation: Stream
    test: Stream

    @property
    def digest(self) -> str:
        """What decides the pixels, the labels and their order."""
        return digest([sorted(one.identity.items()) for one in self])

    @property
    def skips(self) -> bool:
        """Whether corrupt photographs are skipped."""
        return self.training.skip_corrupt


def image_size(net: NetSettings) -> int:
    """The pixels of a side of the images.

    Raises:
      UserError: the data set isn't photographs and has images of its own size.
    """
    if net.dataset in photographs.NAMES:
        return net.image_size or photographs.usual_size(net.dataset)
    if net.image_size:
        raise UserError(f"--image_size={net.image_size}: {net.dataset} has images of its own size")
    if net.corrupt == SKIP:
        raise UserError(f"--corrupt=skip: {net.dataset} has no files of images that can be corrupt")
    return 0


def streams(found: StreamedDataset, net: NetSettings, train: TrainSettings) -> Photographs:
    """The batches of training and evaluation.

    Raises:
      UserError: there are fewer training images than were asked for.
      DataError: there are fewer training images than a batch has.
    """
    total, size, skip = found.train.total, image_size(net), net.corrupt == SKIP
    if net.train_images > total:
        raise UserError(f"--train_images={net.train_images}: {found.name} has {total}")
    kept = photographs.some(found.train, net.train_images)
    crop = photographs.random(size) if train.augmented else photographs.centre(size)
    validation, test = (
        stream.evaluation(part, min(train.batch_size, part.total), photographs.centre(size), skip)
        for part in (found.validation, found.test)
    )
    return Photographs(
        training=stream.training(
            examples=kept,
            order_key=key_of(SEED, "photographs", "order"),
            crop_key=key_of(SEED, "photographs", "crops"),
            batch_size=train.batch_size,
            transform=crop,
            skip_corrupt=skip,
        ),
        validation=validation,
        test=test,
    )


def in_memory(found: StreamedDataset, streams: Photographs, threads: int) -> Dataset:
    """The data set with a sample of its training images, without validation and test images.

    Raises:
      DataError: an image of the sample is corrupt, and corrupt ones are not to be skipped; or a
        label is no class.
    """
    one = streams.training
    sample = photographs.decoded(one.examples, one.size, SAMPLE, threads, one.skip_corrupt)
    none = Split(sample.images[:0], sample.labels[:0])
    return Dataset(found.name, sample, none, none, found.mean, found.std, found.classes)
