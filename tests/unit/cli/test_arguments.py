"""What can be typed after `sft`, what help says, how wrong words end, and how quickly it starts.

Tests: sft.cli.__main__, sft.cli.plans
"""

import resource
import subprocess
import sys
import tomllib

import pytest

from sft.cli import arguments
from sft_command import ROOT, command, sft

VERBS = {
    "check", "run", "status", "show", "explain", "figures", "report", "archive", "convert", "verify", "completion"
}  # fmt: skip
NOT_VERBS = {"__init__", "__main__", "arguments", "plans", "finished", "progress"}


def test_every_verb_has_a_file_and_every_file_is_known() -> None:
    files = {path.stem for path in (ROOT / "scripts/sft/cli").glob("*.py")}
    assert files == VERBS | NOT_VERBS


def test_help_lists_the_verbs_with_examples_and_exit_codes() -> None:
    shown = sft("--help")
    assert shown.returncode == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    listed = {line[0] for line in lines if line}
    assert listed >= VERBS
    assert "exit codes: 0 done; 1 not, and the reason was printed; 2 the command line is wrong." in shown.stdout


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_of_a_verb_shows_how_it_is_used(verb: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        arguments.parsed([verb, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: sft {verb} ")
    assert "\nexamples:\n  " in shown
    assert any(f"sft {verb}" in line for line in shown.partition("\nexamples:\n")[2].splitlines())
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage: sft"),
        (["chekc"], "invalid choice: 'chekc'"),
        (["check", "--bogus"], "unrecognized arguments: --bogus"),
        (["check", "--js"], "unrecognized arguments: --js"),
        (["explain", "A"], "the following arguments are required: B"),
        (["status", "--watch", "0"], "0 is no number of seconds above 0"),
        (["completion", "fish"], "invalid choice: 'fish'"),
    ],
)
def test_wrong_words_end_with_2(words: list[str], said: str) -> None:
    done = sft(*words)
    assert done.returncode == 2
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "files", "passed"),
    [
        ("", "", ""),
        ("a.yaml b.yml", "a.yaml b.yml", ""),
        ("a.yaml -n --cores 4", "a.yaml", "-n --cores 4"),
        ("-n a.yaml", "a.yaml", "-n"),
        ("--cores 4 a.yaml figures", "a.yaml", "--cores 4 figures"),
        ("--configfile a.yaml b.yaml -n", "a.yaml b.yaml", "-n"),
        ("a.yaml --config threads=2 -- x.yaml", "a.yaml", "--config threads=2 -- x.yaml"),
        ("--wms-monitor=x.yaml a.yaml", "a.yaml", "--wms-monitor=x.yaml"),
    ],
)
def test_files_are_told_from_words_for_snakemake(words: str, files: str, passed: str) -> None:
    assert arguments.divided(words.split()) == (files.split(), passed.split())


def test_passing_verbs_keep_unknown_words_and_others_refuse_them() -> None:
    for verb in arguments.PASSING:
        options = arguments.parsed([verb, "mine.yaml", "--jobs", "4", "--rerun-incomplete"])
        assert list(map(str, options.files)) == ["mine.yaml"]
        assert options.passed == ["--jobs", "4", "--rerun-incomplete"]


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sft("--version").stdout == f"snakemake-sft {project['version']}\n"
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text()


def test_it_can_be_started_as_a_module() -> None:
    words = [sys.executable, "-m", "sft.cli", "--version"]
    done = subprocess.run(words, cwd=ROOT / "scripts", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, sft("--version").stdout)


def test_help_takes_less_than_a_fifth_of_a_cpu_second(unmeasured) -> None:
    """Of four starts the quickest: CPU seconds, which a busy machine makes few of."""
    spent = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command(), "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.2, spent


def test_help_imports_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from sft.cli.__main__ import main\n"
        "try: main(['check', '--help'])\n"
        "except SystemExit: pass\n"
        "others = {name.partition('.')[0] for name in sys.modules}\n"
        "ours = {name for name in sys.modules if name.startswith('sft')}\n"
        "print(*sorted(ours), file=sys.stderr)\n"
        "loaded = {'pydantic', 'yaml', 'rich', 'snakemake', 'shtab'} & others\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["sft", "sft.cli", "sft.cli.__main__", "sft.cli.arguments"]
