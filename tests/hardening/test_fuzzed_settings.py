"""Any params.yaml and any profile is loaded or refused in a short sentence, never with a traceback.

Examples are drawn from a fixed seed, so that every run tests the same ones.
"""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import ROOT

from pipeline.config import load_config
from pipeline.errors import UserError
from pipeline.tracking.store import configuration_key

PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
PROFILE = (ROOT / "profiles" / "mini.yaml").read_text(encoding="utf-8")
FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONGEST = 3000  # characters of a message: the longest list of names has some two thousand

NAMES = st.sampled_from(["mini", "mnist", "ties", "adamerging_layerwise", "contrast", "cifar"])
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, -(10**400)]),
    st.floats(allow_nan=True, allow_infinity=True),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(max_size=12),
    NAMES,
    st.dates(),
    st.binary(max_size=6),
)
KEYS = st.one_of(st.text(max_size=8), st.integers(), st.none(), st.booleans(), NAMES)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    (tmp_path / "profiles" / "mini.yaml").write_text(PROFILE, encoding="utf-8")
    return tmp_path


def loaded_or_refused(project: Path) -> bool:
    """Whether the settings are taken; anything but a short refusal or a whole result gets out."""
    try:
        configuration_key(load_config(project))
    except UserError as error:
        said = str(error)
        assert said and len(said) < LONGEST and "\n" not in said
        return False
    return True


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The paths of everything in a profile but the profile itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, part in inner:
        found.append((*path, key))
        if isinstance(part, dict | list):
            found += places(part, (*path, key))
    return found


WHOLE = yaml.safe_load(PROFILE)
PLACES = places(WHOLE)


@given(st.sampled_from(PLACES), VALUES, st.sampled_from(["set", "drop", "rename", "add"]))
@settings(FIXED, max_examples=150)
def test_a_profile_with_something_else_in_a_place(project, place, value, change):
    profile = copy.deepcopy(WHOLE)
    *parents, key = place
    section = profile
    for parent in parents:
        section = section[parent]
    if change == "set":
        section[key] = value
    elif change == "drop":
        del section[key]
    elif isinstance(section, list):
        section.append(value)
    elif change == "rename":
        name = value if isinstance(value, str | int | float | bool | None) else str(value)
        section[name] = section.pop(key)
    else:
        section["x"] = value
    text = yaml.safe_dump(profile, allow_unicode=True)
    (project / "profiles" / "mini.yaml").write_text(text, encoding="utf-8")
    loaded_or_refused(project)


# What YAML means something by, put anywhere.
MARKS = [
    *(b"[", b"]", b"{", b"}", b": ", b"- ", b"#", b"&a ", b"*a", b"<<: *a", b"<<: {x: 1}", b"? "),
    *(b"!!python/object:os.system ", b"!!binary ", b"!!set ", b"!!timestamp ", b"!!int ", b"|\n"),
    *(b">\n", b"---\n", b"...\n", b"%YAML 9.9\n", b"'", b'"', b'"\\ud800"', b"\t", b"\0", b"\xff"),
    *(b"\xef\xbb\xbf", b"\xfe\xff", b"2020-99-99", b"1:99:99", b"0x", b"1e999", b".inf", b".nan"),
    *(
        b"9" * 5000,
        b"0x" + b"f" * 5000,
        b"[" * 600,
        b"~",
        b"null",
        b"\xe2\x80\xa8",
        b"\xf0\x9f\x92",
    ),
]
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1), st.one_of(st.sampled_from(MARKS), st.binary(max_size=4)), st.booleans()
    ),
    min_size=1,
    max_size=4,
)


@given(st.sampled_from(["params.yaml", "profiles/mini.yaml"]), CHANGES)
@settings(FIXED, max_examples=100)
def test_settings_with_bytes_put_in_or_over_others(project, name, changes):
    # Nothing of a profile is behind its tasks, so that an example takes a hundredth of a second.
    texts = {"params.yaml": PARAMS, "profiles/mini.yaml": PROFILE}
    for other, text in texts.items():
        (project / other).write_text(text, encoding="utf-8")
    content = texts[name].encode()
    for share, mark, over in changes:
        at = int(share * len(content))
        content = content[:at] + mark + content[at + (len(mark) if over else 0) :]
    (project / name).write_bytes(content)
    loaded_or_refused(project)


BOMB = "".join(
    f"{name}: &{name} [{', '.join([f'*{inner}' if inner else 'x'] * 9)}]\n"
    for inner, name in zip(["", *"abcdef"], "abcdefg", strict=True)
)
PARAMETERS = {
    "not UTF-8": b"profile: mini\ndevice: \xff\n",
    "a day that there is not": b"profile: 2020-99-99\ndevice: cpu\n",
    "a number of 5000 digits": b"profile: " + b"9" * 5000 + b"\n",
    "brackets without an end": b"a: " + b"[" * 1000,
    "brackets in brackets": b"a: " + b"[" * 1000 + b"]" * 1000,
    "a name of 5000 letters": b"profile: " + b"a" * 5000 + b"\ndevice: cpu\n",
    "a name that is no text": b'profile: "\\ud800"\ndevice: cpu\n',
    "a name with a null": b'profile: "a\\0b"\ndevice: cpu\n',
    "aliases that unfold to gigabytes": f"{BOMB}profile: *g\ndevice: cpu\n".encode(),
    "an alias of itself": b"profile: &a [*a]\ndevice: cpu\n",
    "a merge of no section": b"<<: 3\nprofile: mini\ndevice: cpu\n",
    "keys that are no text": b"1: 2\n~: 3\nprofile: mini\ndevice: cpu\n",
    "two documents": b"profile: mini\n---\ndevice: cpu\n",
    "an object of Python": b"profile: !!python/object/apply:os.getpid []\n",
    "nothing": b"",
}


@pytest.mark.parametrize("content", PARAMETERS.values(), ids=PARAMETERS)
def test_parameters_that_are_refused(project, content):
    (project / "params.yaml").write_bytes(content)
    assert not loaded_or_refused(project)


@pytest.mark.parametrize(
    ("line", "number"),
    [("seeds: [0]", "seeds: [-0x{}]"), ("seeds: [0]", "seeds: [0x{}]"), ("lr:", "lr: 0x{} #")],
)
def test_numbers_of_thousands_of_digits_are_refused(project, line, number):
    text = PROFILE.replace(line, number.format("f" * 6000), 1)
    assert text != PROFILE
    (project / "profiles" / "mini.yaml").write_text(text, encoding="utf-8")
    assert not loaded_or_refused(project)


def test_a_folder_in_place_of_the_parameters(project):
    (project / "params.yaml").unlink()
    (project / "params.yaml").mkdir()
    assert not loaded_or_refused(project)


def test_the_shared_settings_of_these_tests_are_taken(project):
    assert loaded_or_refused(project)
