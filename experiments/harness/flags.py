"""Settings as absl flags, one flag for each field. An explicit flag overrides a preset.

Only `define` defines flags, and only an experiment's `__main__` calls it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from absl import flags

from experiments.harness.settings import (
    MOST_RUNS,
    Bounds,
    Idle,
    bounds_of,
    check,
    choose,
    idle_under,
    known_of,
    option,
)
from experiments.harness.training_recipes import RECIPES
from jaxtickets.io.errors import UserError
from jaxtickets.runs import MODES

T = TypeVar("T")

FINITE = Bounds()
PRECISIONS = {
    "float32": "float32",
    "highest": "float32",
    "tf32": "tensorfloat32",
    "bfloat16": "float32",
}
"""Value of the flag -> JAX's name for products of float32 numbers, which on GPUs and TPUs are less
precise by default. In bfloat16, the nets' own products and activations are bfloat16 numbers
instead, on all devices. The precision of weights, masks, sums and counts never changes."""


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Where and how a run is executed. These settings don't change its numbers."""

    out: str = option("", "folder of the run; empty: a new one under runs/")
    resume: bool = option(False, "continue the run in --out, or the newest run with the same spec")
    data_dir: str = option("", "folder of prepared TFDS data; empty: TFDS's default")
    prepare: bool = option(False, "prepare the data set first; needs TensorFlow")
    threads: int = option(0, "threads that decode photographs; 0: one per core", least=0, most=1024)
    data_workers: int = option(
        0, "processes that decode photographs, each with --threads; 0: this one", least=0, most=1024
    )
    input_megabytes: int = option(
        256, "photographs on a device at a time, in MB", least=1, most=10**6
    )
    devices: int = option(0, "number of virtual CPU devices; 0: one per core", least=0, most=1024)
    checkpoint_seconds: float = option(
        60.0, "seconds between two checkpoints", least=0, most=math.inf
    )
    tensorboard: bool = option(False, "also write metrics as TensorBoard's event files")
    distributed: bool = option(False, "share the work with other processes that JAX finds")
    coordinator: str = option("", "HOST:PORT of the first process, if JAX can't find it")
    num_processes: int = option(0, "number of processes, with --coordinator", least=0, most=10**6)
    process_id: int = option(
        -1, "number of this process, from 0, with --coordinator", least=-1, most=10**6
    )


@dataclasses.dataclass(frozen=True)
class StoreSettings:
    """Where dense nets are stored. It doesn't change any number."""

    dense_store: str = option("runs/dense", "folder of trained dense nets that runs share")


@dataclasses.dataclass(frozen=True)
class BatchSettings:
    """How runs are batched. It changes at least the last bits, so it is part of the spec."""

    mode: str = option("auto", "how runs are batched", ("auto", *MODES))
    width: int = option(
        0, "runs per block; 0: 32 if the mode runs a block at once, else 1", least=0, most=MOST_RUNS
    )
    precision: str = option(
        "float32",
        "precision: of matrix products on accelerators, or bfloat16 products and activations",
        tuple(PRECISIONS),
    )


def define(*settings: Any) -> None:
    """Defines a flag for each field of the settings. The field's value is the flag's default."""
    for group in settings:
        for field in dataclasses.fields(group):
            _define(field, getattr(group, field.name))


def read(kind: type[T], defaults: T, preset: Mapping[str, Any]) -> T:
    """The settings of a run: from explicit flags first, then the preset, then the defaults.

    Raises:
      UserError: a value is invalid.
    """
    assert dataclasses.is_dataclass(kind)
    values = {}
    for field in dataclasses.fields(kind):
        name = field.name
        base = preset.get(name, getattr(defaults, name))
        value: Any = base if left_out(name) else flags.FLAGS[name].value
        listed = isinstance(value, list | tuple)
        for word in (value if listed else [value]) if known_of(field) else ():
            choose(name, word, known_of(field))
        if listed:
            value = _listed(field, value, getattr(defaults, name))
        # a preset's 0 and a flag's 0.0 are one value, and one spec
        values[name] = float(value) if isinstance(getattr(defaults, name), float) else value
        if values[name] != values[name]:
            raise UserError(f"--{name}={value}: must be a number")
    made = kind(**values)
    try:
        check(made)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    return made


def read_all(groups: Sequence[Any], preset: Mapping[str, Any]) -> list[Any]:
    """The settings of several groups, in their order. The groups' values are the defaults.

    A recipe that `--recipe` names comes before the preset, one that the preset names after it.

    Raises:
      UserError: see `read`.
    """
    preset = _with_recipe(preset)
    return [read(type(group), group, preset) for group in groups]


def _with_recipe(preset: Mapping[str, Any]) -> Mapping[str, Any]:
    """The preset, and what the training recipe sets, if there is one."""
    given = "recipe" in flags.FLAGS and flags.FLAGS["recipe"].present
    name = flags.FLAGS["recipe"].value if given else preset.get("recipe", "")
    if not name:
        return preset
    recipe = RECIPES[choose("recipe", name, tuple(RECIPES))]
    return {**preset, **recipe} if given else {**recipe, **preset}


def left_out(name: str) -> bool:
    """Whether the command line has not the flag, so that a preset or the default gives its value.

    False where there is no such flag, and settings are made by code.
    """
    return name in flags.FLAGS and not flags.FLAGS[name].present


def preset_of(presets: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The values of the preset that --smoke or --preset names.

    Raises:
      UserError: there is no such preset.
    """
    name = "smoke" if flags.FLAGS.smoke else flags.FLAGS.preset
    return presets[choose("preset", name, tuple(presets))]


def with_preset(settings: T, preset: Mapping[str, Any]) -> T:
    """The settings with the preset's values, so that `define` shows these as defaults."""
    assert dataclasses.is_dataclass(settings)
    names = {field.name for field in dataclasses.fields(settings)} & set(preset)
    changed: T = dataclasses.replace(settings, **{name: preset[name] for name in names})  # type: ignore[type-var]
    return changed


def refuse_idle(idle: Idle, parts: Sequence[Any]) -> None:
    """Refuses an explicit flag that has no effect under the other settings.

    Args:
      idle: flag -> the choices under which it has no effect.
      parts: the settings that were read.

    Raises:
      UserError: the message names the flag and the settings that leave it without effect.
    """
    values = {name: value for part in parts for name, value in vars(part).items()}
    for name in idle:
        because = idle_under(idle, name, values) if flags.FLAGS[name].present else []
        if because:
            reasons = " and ".join(f"--{other}={_words(values[other])}" for other in because)
            raise UserError(f"--{name}: has no effect with {reasons}, leave it out")


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def numbers(name: str, words: Sequence[Any], bounds: Bounds = FINITE) -> tuple[float, ...]:
    """The numbers of a list flag.

    Args:
      name: the flag's name.
      words: its items, words or numbers.
      bounds: the bounds of each item.

    Raises:
      UserError: an item isn't a finite number or is out of bounds, or the list is empty.
    """
    text = ",".join(map(str, words))
    try:
        values = tuple(float(word) for word in words)
    except (ValueError, OverflowError) as error:
        raise UserError(f"--{name}={text}: must be numbers, comma-separated") from error
    if not all(map(math.isfinite, values)):
        raise UserError(f"--{name}={text}: must be finite numbers")
    if not values:
        raise UserError(f"--{name} is empty: give one or more numbers, comma-separated")
    for value in values:
        if fault := bounds.fault(value):
            raise UserError(f"--{name}={text}: {fault}")
    return values


def whole_numbers(name: str, words: Sequence[Any], bounds: Bounds = FINITE) -> tuple[int, ...]:
    """The whole numbers of a list flag, which may be empty.

    Raises:
      UserError: an item isn't a whole number or is out of bounds.
    """
    values = numbers(name, words, bounds) if words else ()
    if any(value != int(value) for value in values):
        raise UserError(f"--{name}={','.join(map(str, words))}: must be whole numbers")
    return tuple(int(value) for value in values)


def _listed(
    field: dataclasses.Field, value: Sequence[Any], default: Sequence[Any]
) -> tuple[Any, ...]:
    """A list flag's value. Numbers are parsed, so that the same list gives the same spec."""
    name, values = field.name, tuple(value)
    if not values and (field.metadata.get("empty") or not default):
        return values
    if bounds_of(field):
        values = numbers(name, values)
    if not values:
        raise UserError(f"--{name} is empty: give one or more, comma-separated")
    for item in () if field.metadata.get("repeats") else values:
        if values.count(item) > 1:
            raise UserError(f"--{name} has {item} twice")
    return values


def _define(field: dataclasses.Field, default: Any) -> None:
    text, known = field.metadata["text"], field.metadata["known"]
    if known:
        text = f"{text}: {', '.join(known)}"
    makers: dict[type, Any] = {
        bool: flags.DEFINE_boolean,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple: flags.DEFINE_list,
    }
    value = ",".join(str(item) for item in default) if isinstance(default, tuple) else default
    makers[type(default)](field.name, value, text)
