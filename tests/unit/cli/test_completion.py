"""Completion scripts: valid in their shell, and they complete verbs, options and files."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sft_command import sft


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    written = {}
    for shell in ("bash", "zsh", "tcsh"):
        done = sft("completion", shell)
        assert done.returncode == 0, done.stderr
        written[shell] = folder / f"sft.{shell}"
        written[shell].write_text(done.stdout)
    return written


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_the_script_is_valid(scripts: dict[str, Path], shell: str) -> None:
    text = scripts[shell].read_text()
    assert all(verb in text for verb in ("check", "explain", "archive", "completion"))
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here to read it")
    done = subprocess.run([shell, "-n", scripts[shell]], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def completed(script: Path, folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words` in `folder`."""
    program = (
        f'source {script}\nCOMP_WORDS=(sft "$@")\nCOMP_CWORD=$#\n'
        "function_name=$(complete -p sft | sed 's/.*-F \\([^ ]*\\) .*/\\1/')\n"
        '$function_name sft "${@: -1}" ""\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", program, "bash", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return sorted(done.stdout.split())


def test_bash_completes_verbs_options_and_files(scripts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    assert completed(scripts["bash"], tmp_path, "che") == ["check"]
    assert completed(scripts["bash"], tmp_path, "check", "--j") == ["--jobs", "--json"]
    assert completed(scripts["bash"], tmp_path, "run", "mi") == ["mine.yaml"]
    assert completed(scripts["bash"], tmp_path, "completion", "z") == ["zsh"]
