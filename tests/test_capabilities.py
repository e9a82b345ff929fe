"""The page of capabilities: every entry of the code's tables is on it, with a line and a link."""

import re

import pytest

from experiments.harness import capabilities
from jaxtickets import data, gates, nets, penalties
from jaxtickets.compress.surgeon import SURGEONS
from jaxtickets.criteria import CRITERIA
from jaxtickets.criteria.units import UNIT_CRITERIA
from jaxtickets.dynamic.methods import INNERS, METHODS
from jaxtickets.recipes.search_energies import ENERGIES
from jaxtickets.recipes.search_proposals import PROPOSALS
from jaxtickets.search.acceptance import ACCEPTANCES
from jaxtickets.search.interacting_chains import INTERACTIONS

TABLES = {
    "Nets": nets.names(),
    "Data sets in memory": data.NAMES,
    "Criteria of weights": CRITERIA,
    "Criteria of units": UNIT_CRITERIA,
    "Masks that move in training": METHODS,
    "Inner optimisers that sparsify": INNERS,
    "Gates over fixed weights": gates.GATES,
    "Gates that train with their weights": gates.JOINT_GATES,
    "Penalties": penalties.PENALTIES,
    "Surgeons": SURGEONS,
    "Energies of a search": ENERGIES,
    "Proposals of a search": PROPOSALS,
    "Acceptance rules": ACCEPTANCES,
    "Interactions of chains": INTERACTIONS,
    "Experiments": [
        path.parent.name for path in capabilities.ROOT.glob("experiments/*/__main__.py")
    ],
}


@pytest.fixture(scope="module")
def sections():
    """Title -> the lines of its section of the page."""
    parts = capabilities.page().split("\n## ")[1:]
    return {part.partition("\n")[0]: part.splitlines() for part in parts}


@pytest.mark.parametrize("title", TABLES)
def test_every_entry_of_a_table_has_its_line(title, sections):
    rows = {
        match[1]: match[2]
        for line in sections[title]
        if (match := re.fullmatch(r"\| \[?`(\w+)`(?:\]\(.*?\))? \| (.+) \|", line))
    }
    assert set(TABLES[title]) <= set(rows)
    assert all(len(text) > 5 for text in rows.values())


def test_every_link_leads_to_a_file_and_every_member_exists():
    for family in capabilities.families():
        assert family.entries
        for entry in family.entries:
            link = capabilities.to_source(entry)
            place = re.fullmatch(r"\[`.*`\]\((.*)\)", link)
            assert place is None or (capabilities.ROOT / place[1]).is_file(), link


def test_an_entrys_line_is_its_modules_or_its_functions_or_an_equation():
    by_name = {
        (family.title, entry.name): entry
        for family in capabilities.families()
        for entry in family.entries
    }
    snip = by_name["Criteria of weights", "snip"]
    assert snip.summary.startswith("SNIP: keeps") and snip.member == "score"
    assert by_name["Criteria of weights", "magnitude"].summary.startswith("`|w_f|`")
    assert by_name["Penalties", "scales"].summary == penalties.scales.__doc__.splitlines()[0]
    assert by_name["Acceptance rules", "greedy"].summary.startswith("Accept if")
    assert by_name["Surgeons", "layer_obs"].summary.endswith("(again=`False`)")


def test_a_bar_in_a_line_does_not_end_its_cell():
    row = next(line for line in capabilities.page().splitlines() if "[`scales`]" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_all_public_modules_are_found():
    found = list(capabilities.modules())
    files = (capabilities.ROOT / "jaxtickets").rglob("*.py")
    assert len(found) == len(set(found)) == len(list(files))
