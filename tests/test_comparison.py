"""Tables and figures of methods side by side: what is a method, and what a check of it."""

import ast
from pathlib import Path

import jaxtickets
from jaxtickets.drivers import comparison
from jaxtickets.figures import methods

ROOT = Path(jaxtickets.__file__).parent


def row(method, density, trained, kept, **more):
    layers = {f"kept/{layer}/kernel": n for layer, n in zip(("fc1", "out"), kept, strict=True)}
    accuracies = {"untrained_accuracy": 0.1, "trained_accuracy": trained}
    return {"method": method, **more, "density": density, **accuracies, **layers}


PLAIN = [row("dense", 1.0, 0.9, (10, 4)), row("snip", 0.5, 0.8, (5, 2))]
CHECKED = [
    *PLAIN,
    row("snip", 0.5, 0.6, (7, 0), check="inverted"),
    row("snip", 0.5, 0.7, (6, 1), check="inverted"),
    row("inverted_grasp", 0.5, 0.5, (5, 2)),
]


def test_a_table_has_a_column_of_checks_where_there_are_any():
    plain, checked = (comparison.table(rows).splitlines() for rows in (PLAIN, CHECKED))
    assert " ".join(plain[0].split()) == "method density n untrained % trained % fc1 out"
    assert plain[2].split() == ["snip", "0.5", "1", "10.00", "80.00", "5", "2"]
    assert checked[0].split()[:4] == ["method", "check", "density", "n"]
    assert checked[2].split()[:3] == ["snip", "0.5", "1"]
    # mean and deviation of 60 and 70: 5 * sqrt(2) = 7.07; of 0 and 1 kept: 0.5, which rounds to 0
    inverted = ["snip", "inverted", "0.5", "2", "10.00", "±", "0.00", "65.00", "±", "7.07"]
    assert checked[3].split() == [*inverted, "6", "0"]
    assert checked[4].split()[:2] == ["inverted_grasp", "0.5"]


def test_a_layer_lost_in_any_seed_is_named_with_its_check():
    assert comparison.lost(PLAIN) == []
    line = "a layer is lost: snip (inverted) at 0.5 keeps nothing in out/kernel"
    assert comparison.lost(CHECKED) == [line]
    assert comparison.table(CHECKED).splitlines()[-1] == line


def test_a_spread_is_in_per_cent_unless_asked_otherwise():
    assert comparison.spread([0.6, 0.7]) == "65.00 ± 7.07"
    assert comparison.spread([0.6]) == "60.00"
    assert comparison.spread([10, 14], 1, 0) == "12 ± 3"


def test_figures_order_methods_with_their_checks_and_take_no_name_apart():
    rows = [row("obd", 0.5, 0.5, (5, 2), check="reinit"), *reversed(CHECKED)]
    found = [("snip", "inverted"), ("snip", ""), ("dense", ""), ("obd", "reinit")]
    assert methods.kinds(rows) == [*found, ("inverted_grasp", "")]
    assert methods.label("snip") == "SNIP" and methods.label("snip", "reinit") == "SNIP, reinit"
    assert methods.label("inverted_grasp") == "inverted GraSP"
    assert methods.label("magnitude_same_sign", "shuffled") == "magnitude same sign, shuffled"


def test_rooms_of_the_host_import_downwards():
    below = {"io": ("drivers", "figures"), "figures": ("drivers",), "drivers": ("figures",)}
    for room, others in below.items():
        files = list((ROOT / room).glob("*.py"))
        assert len(files) > 3
        for file in files:
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                names = [alias.name for alias in getattr(node, "names", ())]
                module = getattr(node, "module", None) or ""
                imported = [module, *names, *(f"{module}.{name}" for name in names)]
                for other in others:
                    assert not any(name.startswith(f"jaxtickets.{other}") for name in imported), (
                        file
                    )


def test_a_paired_difference_has_students_interval():
    """By hand: differences 1, 2, 3; mean 2, deviation 1, and t(0.975, 2) = 4.3027."""
    ours, theirs = {0: 1.5, 1: 4.0, 2: 3.0, 9: 8.0}, {0: 0.5, 1: 2.0, 2: 0.0, 7: 1.0}
    mean, half = comparison.paired(ours, theirs)
    assert abs(mean - 2) < 1e-12
    assert abs(half - 4.302653 / 3**0.5) < 1e-5
    assert comparison.paired({3: 1.0}, {3: 0.0}) == (1.0, float("inf"))
