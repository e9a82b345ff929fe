"""Downloads a data set and prepares it as array_record files with TFDS."""

from importlib.util import find_spec
from pathlib import Path

from jaxtickets.data.errors import DataError, reason
from jaxtickets.data.folder import HOW_ELSE, HOW_TO_INSTALL
from jaxtickets.data.sources import Source


def prepare(source: Source, base: Path) -> None:
    """Prepares `base/name/version` with TFDS, which needs TensorFlow for writing.

    Raises:
      DataError: TensorFlow is not installed, or the download or the preparation failed. TFDS
        retries an unreachable download for some minutes before it fails.
    """
    # TFDS imports importlib_resources while preparing, but doesn't declare it.
    if any(find_spec(module) is None for module in ("tensorflow", "importlib_resources")):
        raise DataError(
            f"preparing {source.name} needs TensorFlow: {HOW_TO_INSTALL}, or {HOW_ELSE}"
        )
    import tensorflow_datasets

    try:
        tensorflow_datasets.builder(
            source.name, data_dir=str(base), file_format="array_record"
        ).download_and_prepare()
    except Exception as error:  # TFDS, TensorFlow and the network each have errors of their own
        raise DataError(
            f"{source.name} could not be prepared in {base} ({reason(error)}): check the network"
            f" and the disk, or {HOW_ELSE}"
        ) from error
