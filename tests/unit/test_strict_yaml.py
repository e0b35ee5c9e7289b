"""The reader of configuration files: what it takes, and the one line it says about everything else.

Tests: sft.config.text_file, sft.config.yaml_scalars, sft.config.yaml_syntax
"""

import random
import time

import pytest
import yaml

from sft.config import strict_yaml
from sft.config.errors import ConfigError
from sft.config.strict_yaml import read_yaml

SIBLINGS = "a second `: ` on one line, or a key indented deeper than its siblings. Quote text that contains `: `, "
SIBLINGS += "and align keys that belong together"


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "c.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_yaml(path)

    return read


@pytest.fixture
def complaints(read, tmp_path):
    """The printed problems of a bad file, its directory left out."""

    def complaints(content):
        with pytest.raises(ConfigError) as caught:
            read(content)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return complaints


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1e4", 1e4),
        ("1E-4", 1e-4),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.e3", 1000.0),
        ("+3", 3),
        ("0", 0),
        ("-0", 0),
        ("0x1F", 31),
        ("9007199254740992", 2**53),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2026-01-31", "2026-01-31"),
        ("1.2.3", "1.2.3"),
        ("1-2", "1-2"),
        ("_1", "_1"),
        ("1e1_0", "1e1_0"),
        ("nobody", "nobody"),
        ("'NO'", "NO"),
        ('"010"', "010"),
        ("'1e-4'", "1e-4"),
        ("train-*", "train-*"),
        ("|-\n  NO\n  1", "NO\n1"),
        ("=", "="),
    ],
)
def test_scalar(read, text, value):
    got = read(f"a: {text}\n").data["a"]
    assert got == value
    assert type(got) is type(value)


# What is written as the value of `a:`, and what is said about it.
BAD_SCALARS = {
    "NO": 'NO is false to YAML 1.1 and text to YAML 1.2. Write false, or "NO" for text',
    "no": 'no is false to YAML 1.1 and text to YAML 1.2. Write false, or "no" for text',
    "on": 'on is true to YAML 1.1 and text to YAML 1.2. Write true, or "on" for text',
    "Off": 'Off is false to YAML 1.1 and text to YAML 1.2. Write false, or "Off" for text',
    "yes": 'yes is true to YAML 1.1 and text to YAML 1.2. Write true, or "yes" for text',
    "y": 'y is true to YAML 1.1 and text to YAML 1.2. Write true, or "y" for text',
    "N": 'N is false to YAML 1.1 and text to YAML 1.2. Write false, or "N" for text',
    "TRUE": 'TRUE is a spelling of true that not every reader takes. Write true, or "TRUE" for text',
    "Null": 'Null is a spelling of null that not every reader takes. Write null, or "Null" for text',
    "010": '010 is the number 8 to YAML 1.1 and the number 10 to YAML 1.2. Write 10 for the number, or "010" for text',
    "-08": '-08 is text to YAML 1.1 and the number -8 to YAML 1.2. Write -8 for the number, or "-08" for text',
    "1_000": "1_000 is the number 1000 to YAML 1.1 and text to YAML 1.2. "
    'Write 1000 for the number, or "1_000" for text',
    "1_0.5": "1_0.5 is the number 10.5 to YAML 1.1 and text to YAML 1.2. "
    'Write 10.5 for the number, or "1_0.5" for text',
    "12:30:45": "12:30:45 is the number 45045 to YAML 1.1 and text to YAML 1.2. "
    'Write 45045 for the number, or "12:30:45" for text',
    "1:30": '1:30 is the number 90 to YAML 1.1 and text to YAML 1.2. Write 90 for the number, or "1:30" for text',
    "0b11": '0b11 is the number 3 to YAML 1.1 and text to YAML 1.2. Write 3 for the number, or "0b11" for text',
    "0o17": '0o17 is text to YAML 1.1 and the number 15 to YAML 1.2. Write 15 for the number, or "0o17" for text',
    "1e999": "1e999 is too large for a number. Write a number below 1e308",
    ".inf": ".inf is not a finite number. Write a finite number, or null for none",
    "-.INF": "-.INF is not a finite number. Write a finite number, or null for none",
    ".NaN": ".NaN is not a finite number. Write a finite number, or null for none",
    "9007199254740993": "9007199254740993 is too large for an exact whole number (at most 2**53). "
    "Write a smaller number, or quote it if it is text",
    "1" * 5000: "1111111111111111111111111111111111111... is too large for an exact whole number (at most 2**53). "
    "Write a smaller number, or quote it if it is text",
    "!!python/object/apply:os.system ['id']": "the tag !!python/object/apply:os.system is not allowed. "
    "Remove it; quote text",
    "!!str 1": "the tag !!str is not allowed. Remove it; quote text",
    "!local 1": "the tag !local is not allowed. Remove it; quote text",
    "*missing": "*missing refers to nothing: no &missing before it. "
    "Write &missing where the value first stands, or quote it",
    "&x [*x]": None,
    '"\\x1b[31m"': "the text holds the control character U+001B. Remove its escape",
}


@pytest.mark.parametrize("text", BAD_SCALARS)
def test_bad_scalar_is_one_line_with_place_and_fix(complaints, text):
    expected = BAD_SCALARS[text] or "*x stands inside what it refers to. Write the value out"
    key = "t.a[0]" if text == "&x [*x]" else "t.a"
    assert complaints(f"t:\n  b: 1\n  a: {text}\n") == [f"c.yaml:3: {key}: {expected}"]


# name: (content of the file, what is said)
BAD_FILES = {
    "duplicate key": (
        "a: 1\nb: 2\na: 3\n",
        "3: a: given twice (also line 1). Keep one: YAML would take the last, silently",
    ),
    "duplicate inside": (
        "a:\n  b: {c: 1}\n  b: 2\n",
        "3: a.b: given twice (also line 2). Keep one: YAML would take the last, silently",
    ),
    "duplicate, quoted": (
        "a: 1\n'a': 2\n",
        "2: a: given twice (also line 1). Keep one: YAML would take the last, silently",
    ),
    "number as key": ("t:\n  1: x\n", '2: t: the key 1 is the number 1, not text. Quote it: "1"'),
    "true as key": ("t:\n  true: x\n", '2: t: the key true is true, not text. Quote it: "true"'),
    "null as key": ("t:\n  ~: x\n", '2: t: the key ~ is null, not text. Quote it: "~"'),
    "on as key": ("on: x\n", '1: the key on is true to YAML 1.1 and text to YAML 1.2. Quote it: "on"'),
    "list as key": (
        "? [a]\n: 1\n",
        "1: a key is not a single word. Keys are text; lists, mappings and aliases cannot be",
    ),
    "alias as key": (
        "a: &x b\n*x : 1\n",
        "2: a key is not a single word. Keys are text; lists, mappings and aliases cannot be",
    ),
    "tag on key": ("!!str a: 1\n", "1: the key a has a tag or an anchor. Put anchors on values; tags are not allowed"),
    "control character in key": ('"a\\0": 1\n', "1: the text holds the control character U+0000. Remove its escape"),
    "yte": (
        "__use_yte__: true\na: ?print(1)\n",
        "1: __use_yte__ would make Snakemake execute code of this file. Remove it: write the values out",
    ),
    "yte, hidden": (
        'a: {"__definitions__": [import os]}\n',
        "1: a: __definitions__ would make Snakemake execute code of this file. Remove it: write the values out",
    ),
    "merge of a number": ("a:\n  <<: 1\n", "2: a.<<: `<<` takes a mapping or a list of mappings. Write `<<: *name`"),
    "two merges": (
        "<<: {a: 1}\n<<: {b: 1}\n",
        "2: <<: a second `<<` in one mapping. Write one, with a list: `<<: [*a, *b]`",
    ),
    "anchor twice": ("a: &x 1\nb: &x 2\n", "2: b: &x is given twice (also line 1). Rename one"),
    "misspelt alias": (
        "a: &base 1\nb: *bsae\n",
        "2: b: *bsae refers to nothing: no &bsae before it. Did you mean *base?",
    ),
    "tab": ("a:\n\tb: 1\n", "2: a tab is used for indentation. Use spaces"),
    "tab after spaces": ("a:\n  \tb: 1\n  c: d: 3\n", "2: a tab is used for indentation. Use spaces"),
    "unclosed brace": (
        "b: 1\na: {b: 1\n",
        "2: `{` that opens here is not closed by `}`. Close it, and check the commas",
    ),
    "unclosed bracket": (
        "a: [1, 2\nb: 1\n",
        "1: `[` that opens here is not closed by `]`. Close it, and check the commas",
    ),
    "unclosed quote": ("b: 1\na: 'x\nc: 1\n", "2: a quoted text that begins here is not closed. Close the quote"),
    "unclosed double quote": ('a: "x\nc: 1\n', "1: a quoted text that begins here is not closed. Close the quote"),
    "two colons": ("a: b: c\n", f"1: {SIBLINGS}"),
    "deeper sibling": ("a: 1\n b: 2\n", f"2: {SIBLINGS}"),
    "shallower sibling": (
        "a:\n   b: 1\n  c: 2\n",
        "3: the indentation fits no block that is open here. Align keys that belong together",
    ),
    "no colon": (
        "a: 1\nb\n",
        "2: this line is neither `key: value` nor part of a list. Write a colon and a space after the key",
    ),
    "bad first character": ("a: 1\nb: @x\n", "2: a value cannot begin with @. Quote the text"),
    "bad escape": (
        'a: "\\q"\n',
        "1: unknown escape in a quoted text. Use single quotes, or double the backslash",
    ),
    "empty file": ("", "1: the file is empty. Write at least `experiments:`"),
    "only comments": ("# nothing\n\n", "1: the file is empty. Write at least `experiments:`"),
    "empty document": ("---\n", "1: the file is empty. Write at least `experiments:`"),
    "top-level list": ("- a\n- b\n", "1: the top level is a list of 2. Write `key: value` lines, not anything else"),
    "top-level text": ("a:1\n", '1: the top level is the text "a:1". Write `key: value` lines, not anything else'),
    "two documents": ("a: 1\n---\nb: 2\n", "2: a second document (`---`) begins. Keep one document in a file"),
    "bad UTF-8": (b"a: 1\nb: \xff\n", "2: not UTF-8 text (byte 0xff). Save the file as UTF-8"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "1: not UTF-8 text (byte 0xff). Save the file as UTF-8"),
    "control character": (b"a: 1\nb: \x07\n", "2: a control character (U+0007). Remove it"),
    "NUL": (b"a: 1\n\0", "2: a control character (U+0000). Remove it"),
    "deep nesting": (
        "a: " + "[" * 200_000,
        "1: a[0][0][0][0][0][0][0][0][0][0][0]...: nested more than 50 levels deep. Write it flatter",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_one_line_with_place_and_fix(complaints, name):
    content, expected = BAD_FILES[name]
    assert complaints(content) == [f"c.yaml:{expected}"]


def test_all_problems_of_a_file_are_reported_at_once(complaints):
    lines = complaints("a: NO\nb: 010\nc: {d: 1, d: 2}\n")
    assert [line.split(": ")[:2] for line in lines] == [["c.yaml:1", "a"], ["c.yaml:2", "b"], ["c.yaml:3", "c.d"]]


def test_a_flood_of_problems_is_counted_not_printed(complaints):
    lines = complaints("".join(f"k{i}: NO\n" for i in range(500)))
    assert len(lines) == 21
    assert lines[-1] == "... and 480 more"


def test_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "digits.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match=r"digit\.yaml: no such file\. Did you mean .*digits\.yaml\?"):
        read_yaml(tmp_path / "digit.yaml")


def test_directory_and_large_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        read_yaml(tmp_path)
    (tmp_path / "large.yaml").write_text("a: 1\n" + "# padding\n" * 1_100_000)
    with pytest.raises(ConfigError, match="larger than 10 MiB"):
        read_yaml(tmp_path / "large.yaml")


def test_merge_keys_and_anchors(read):
    document = read(
        "base: &base {r: 8, alpha: 16}\n"
        "other: &other\n  r: 1\n  dropout: 0.1\n"
        "cell:\n  <<: [*base, *other]\n  alpha: 32\n"
        "copy: *base\n"
    )
    assert document.data["cell"] == {"r": 8, "dropout": 0.1, "alpha": 32}
    assert document.data["copy"] == document.data["base"]
    assert document.data["copy"] is not document.data["base"]
    assert [document.line(("cell", key)) for key in ("alpha", "r", "dropout")] == [7, 1, 4]
    assert document.line(("copy",)) == 8


def test_billion_laughs_stops_early(complaints):
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n"
    for i in range(8):
        bomb += f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n"
    started = time.monotonic()
    (line,) = complaints(bomb)
    assert line == "c.yaml:6: f[0]: aliases repeat more than 100,000 values. Write a grid instead"
    assert time.monotonic() - started < 5


def test_lines_and_texts(read):
    document = read("# comment\na:\n  b:\n    - x\n    - {c: 1.10}\n  training.rate: 2e-5\n")
    assert document.line(("a", "b", 1, "c")) == 5
    assert document.line(("a", "b", 1, "missing")) == 5
    assert document.line(("a", "b", 7)) == 3
    assert document.line(("a", "training", "rate")) == 6
    assert document.line(("nowhere",)) == 2  # the first line of content
    assert document.text(("a", "b", 1, "c")) == "1.10"
    assert document.text(("a", "training", "rate")) == "2e-5"
    assert document.text(("a", "b")) is None


def test_byte_order_mark_and_windows_line_ends(read):
    document = read("\ufeffa: 1\r\nb:\r\n  c: 2\r\n".encode())
    assert document.data == {"a": 1, "b": {"c": 2}}
    assert document.line(("b", "c")) == 3


def test_speed_of_a_large_file(read):
    text = "experiments:\n" + "".join(
        f" e{i}:\n" + "".join(f"  key{j}: {j}e-5\n" for j in range(30)) for i in range(1000)
    )
    started = time.process_time()
    document = read(text)
    assert time.process_time() - started < 3  # 0.65 s where measured; the margin is for busy machines
    assert document.line(("experiments", "e999", "key0")) == 2 + 999 * 31 + 1


SAMPLE = """\
# an experiment
defaults: &lora {r: 16, alpha: 32}
datasets:
  digits:
    source: {package: scikit-learn, name: digits}
    image_keys: [image, "other"]
experiments:
  digits:
    dataset: digits
    seeds: [0, 1, 2]
    training:
      learning_rate: 2e-3
      extra: {adam: 'x: y'}
    lora: {<<: *lora, r: 8}
    description: |
      Two lines
      of text.
"""
PIECES = [
    "\t",
    "\0",
    "&a ",
    "*a",
    "*lora",
    "<<: *lora\n",
    "!!python/name:os.system ",
    "{",
    "}",
    "[",
    "]",
    "'",
    '"',
    ": ",
    "- ",
]
PIECES += [
    "\n",
    "? ",
    "| ",
    "> ",
    "%YAML 9.9\n",
    "---\n",
    "...\n",
    "\ufeff",
    "\u2028",
    "é",
    "NO",
    "010",
    "1:30",
    "\\",
    "#",
    "@",
]
PIECES += [
    '"\\uD800"',
    '"\\UFFFFFFFF"',
    "%YAML 1." + "9" * 30 + "\n",
    "9" * 30,
    "__use_yte__: true\n",
    "&",
    "!",
    "`",
    "0x",
    ".",
]


def mutated(seed: int) -> bytes:
    """SAMPLE after a few random insertions, deletions, repetitions and broken bytes."""
    rng = random.Random(seed)
    text = SAMPLE
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(text) + 1)
        length = rng.randint(1, 12)
        text = rng.choice(
            [
                text[:at] + rng.choice(PIECES) + text[at:],
                text[:at] + text[at + length :],
                text[:at] + text[at : at + length] + text[at:],
                text[:at] + chr(rng.randrange(0x3000)) + text[at:],
            ]
        )
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if rng.random() < 0.1 and data:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
def test_mutated_files_give_a_value_or_a_problem_and_nothing_else(read, monkeypatch, loader):
    if not hasattr(yaml, loader):
        pytest.skip("this PyYAML was built without libyaml")
    monkeypatch.setattr(strict_yaml, "Loader", getattr(yaml, loader))
    refused = 0
    for seed in range(300):
        try:
            assert isinstance(read(mutated(seed)).data, dict)
        except ConfigError as error:
            refused += 1
            for problem in error.problems:
                assert len(str(problem).splitlines()) == 1
                assert len(str(problem)) < 500
                assert problem.fix
                assert problem.line is None or problem.line >= 1
    assert 150 < refused < 300  # the mutations do reach both outcomes
