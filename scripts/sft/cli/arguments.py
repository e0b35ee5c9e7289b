"""All that can be typed after `sft`: the verbs, their options, and the help that describes them.

Imports nothing but the standard library, so that help is there at once. What a verb does is in the file of its name.
"""

import argparse
from pathlib import Path

from sft.cli import TREE

SUFFIXES = (".yaml", ".yml")

ABOUT = """\
Supervised fine-tuning experiments that can be traced, re-run and believed.

Most verbs take configuration files: several are read as one, and without any config/config.yaml is read.
"""

EXAMPLES = """\
examples:
  sft check mine.yaml              a second: what is wrong, or what would run and why
  sft run mine.yaml                train, convert, score, draw
  sft run mine.yaml -n             ... or only list the jobs; Snakemake's options are passed on
  sft status --watch 10            how far every run is, from another terminal
  sft show mine.yaml               the tables of results
  sft explain mine/lora/0 mine/full/0 mine.yaml
  eval "$(sft completion bash)"    Tab completes verbs, options and files

exit codes: 0 done; 1 not, and the reason was printed; 2 the command line is wrong. `sft verify` has 3 besides, and
`sft run`, `figures`, `report` and `archive` end as Snakemake does.

`sft VERB --help` says more of each. Manual: config/README.md and docs/ of the repository.
"""

CHECK = """\
Read, check and resolve configuration files; print the planned runs, the jobs that would run, and why.

Takes about a second. Imports neither torch nor Snakemake and executes nothing that a file contains, so it is the safe
first look at a file from elsewhere. The exit code is 0 where the files are good and 1 where they are not.
"""

CHECK_EXAMPLES = """\
examples:
  sft check                                  config/config.yaml
  sft check mine.yaml other.yaml             two files, read as one
  sft check mine.yaml --jobs                 every job by itself
  sft check mine.yaml --json                 {ok, problems} or {ok, runs, jobs, new_code, ...}
  sft check mine.yaml --write                also write each node's config.json, to run a script by hand
"""

RUN = """\
Run everything that the configuration files ask for and that is not there yet. This is Snakemake, with what a person
wants: all cores, several files, a line a result. The line that is run is printed first.

A word that ends in .yaml or .yml is a configuration file. All other words go to Snakemake as they are: its options,
rules (figures, audits, runs, downloads) and result files. The files are checked before Snakemake starts.
"""

RUN_EXAMPLES = """\
examples:
  sft run                                    config/config.yaml
  sft run mine.yaml other.yaml --cores 4     two files, read as one
  sft run mine.yaml -n                       list the jobs, run none
  sft run mine.yaml --config threads=2       another value of a key of execution:
  sft run mine.yaml --profile workflow/profiles/slurm
  sft run mine.yaml --sdm conda

The exit code is Snakemake's; `snakemake --help` lists its options.
"""

STATUS = """\
Show how far every run is: its state, step, loss, speed and time left, and of failed ones the log's last lines.

Reads results/runs and asks squeue where there is one; works while Snakemake runs, after it has ended, and without
SLURM. With configuration files: their runs alone, also those that nobody has started.
"""

STATUS_EXAMPLES = """\
examples:
  sft status
  sft status mine.yaml --watch 10            again every 10 seconds, until Ctrl-C
  sft status --json                          a list of {run, state, detail, step, total, loss, ...}
"""

SHOW = """\
Show the results of experiments in the terminal: their tables, and where the figures are.

Of all experiments that have results here, of those of configuration files, or of named directories.
"""

SHOW_EXAMPLES = """\
examples:
  sft show
  sft show mine.yaml
  sft show results/experiments/digits_shift
  sft show --json                            a list of {experiment, title, rows, notes, cost, figures}
"""

EXPLAIN = """\
Print the settings in which two results differ, and nothing that they share.

Each of the two is a directory that holds a config.json, the id of a planned or finished run, or a cell and its seed
(experiment/cell/seed; experiment/seed where there is one cell), as the configuration files have them now. Fields of
what a result is made from are dotted by the input's name: model.run.seed is the seed of the run that gave the model.
The exit code is 0 where the two were compared (also where they are equal) and 1 where one is nothing that is known.
"""

EXPLAIN_EXAMPLES = """\
examples:
  sft explain digits_shift/full/0 digits_shift/lora/0
  sft explain mine/lora/0 mine/lora/1 mine.yaml
  sft explain results/runs/A ../elsewhere/results/runs/A
  sft explain A B --json                     {first, second, equal, differences, made_differently}
"""

FIGURES = """\
Draw the figures and tables of the experiments that are finished, from their ledgers. Trains nothing and scores nothing:
experiments whose runs are not there are named and left out. Other words go to Snakemake, as with `sft run`.
"""

FIGURES_EXAMPLES = """\
examples:
  sft figures
  sft figures mine.yaml
  sft figures mine.yaml -n                   list the jobs, draw nothing
"""

REPORT = """\
Write results/report.html from the results that are there: figures and tables with captions, and how each was made.
Other words go to Snakemake, as with `sft run`.
"""

REPORT_EXAMPLES = """\
examples:
  sft report mine.yaml
  sft report mine.yaml --report results/mine.zip     where there are too many figures for one page
"""

ARCHIVE = """\
Pack results/archive/archive.tar.gz: what a paper can cite, and what draws all its figures again without a model or a
GPU. Makes figures and tables that are missing, and no more: where runs are not finished it says so and packs nothing.
Other words go to Snakemake, as with `sft run`.
"""

ARCHIVE_EXAMPLES = """\
examples:
  sft archive mine.yaml
"""

CONVERT = """\
Turn trained weights of any known kind, from anybody, into a complete Hugging Face model, and show that it is one.

Reads a sharded checkpoint (torch DCP: of this workflow, accelerate's FSDP, RLinf), a whole state dict
(full_weights.pt, with the prefixes of DDP, FSDP, activation checkpointing, torch.compile and PEFT), a DeepSpeed ZeRO
checkpoint, a PEFT adapter, or Hugging Face weights. Needs the base model that was trained: its names, shapes,
configuration and tokenizer are what the result has. No code of a checkpoint is run.

Writes MODEL/ with safetensors (in shards above --shard-gib, with index), config.json that says the type, generation
settings, tokenizer or processor with its chat template, README.md, and conversion.json with what was measured. One
fault, and nothing is left. Exit code: 0 converted, 1 not. At most two shards and a few tensors are in memory. (A run of
this workflow is converted by its own rule, convert_checkpoint.)
"""

CONVERT_EXAMPLES = """\
examples:
  sft convert CHECKPOINT --base BASE --output MODEL
  sft convert adapter/ --base BASE --output MODEL --dtype bfloat16 --logits recorded.safetensors
"""

VERIFY = """\
Draw every figure and table again in a temporary directory and compare with what was made or published.

Compares with the digests in the manifests under results/experiments, or, where an archive is unpacked, with those in
results/archive.json. Nothing under results/ is changed. Exit code 0: all bytes are equal. 3: all numbers are equal
(CSV files and tables), but the drawing differs, which other versions of the drawing packages explain. 1: numbers
differ, a file is missing, or something could not be drawn.
"""

VERIFY_EXAMPLES = """\
examples:
  sft verify
  sft verify mine.yaml
  sft verify results/experiments/digits_shift
  sft verify --json                          a list of {directory, result, files, why}
"""

COMPLETION = """\
Print a script that completes verbs, options and files in a shell. The script is static: a Tab starts no Python.
"""

COMPLETION_EXAMPLES = """\
examples:
  eval "$(sft completion bash)"                                   in ~/.bashrc
  sft completion zsh > ~/.zfunc/_sft                              where ~/.zfunc is in $fpath
  sft completion tcsh > ~/.sft.tcsh; source ~/.sft.tcsh
"""

# Verbs whose unknown words are Snakemake's.
PASSING = ("run", "figures", "report", "archive")


def parsed(words: list[str]) -> argparse.Namespace:
    """What `words` ask for: `verb`, its options, and for the verbs that start Snakemake `passed`, the words for it.

    Ends the program where they ask for help (0) or are wrong (2).
    """
    parser = command_line()
    if not words:
        parser.print_help()
        parser.exit(2)
    if words[0] not in PASSING:
        return parser.parse_args(words)
    files, passed = divided(words[1:])
    if {"-h", "--help"} & set(passed):
        files, passed = ["--help"], []
    options = parser.parse_args([words[0], *files])
    options.passed = passed
    return options


def divided(words: list[str]) -> tuple[list[str], list[str]]:
    """(configuration files, all other words) in their order; what follows `--` is left as it is.

    `--configfile` of those who are used to it is left out: its files are found by their endings.
    """
    files: list[str] = []
    passed: list[str] = []
    for index, word in enumerate(words):
        if word == "--":
            return files, passed + words[index:]
        if word.endswith(SUFFIXES) and not word.startswith("-"):
            files.append(word)
        elif word not in ("--configfile", "--configfiles"):
            passed.append(word)
    return files, passed


def command_line() -> argparse.ArgumentParser:
    """The whole command line, as it is parsed, printed as help and completed in shells."""
    parser = argparse.ArgumentParser(
        prog="sft",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")

    check = _verb(verbs, "check", "check configuration files and list what would run", CHECK, CHECK_EXAMPLES)
    _add_files(check)
    check.add_argument("--write", action="store_true", help="write config.json of every node that is to be made")
    check.add_argument("--jobs", action="store_true", help="list every job, not only their numbers")
    _add_json(check)

    passing = "[FILE ...] [SNAKEMAKE'S OPTIONS]"
    run = _verb(verbs, "run", "run what configuration files ask for", RUN, RUN_EXAMPLES, passing)
    _add_files(run)

    status = _verb(verbs, "status", "how far every run is", STATUS, STATUS_EXAMPLES)
    _add_files(status, "configuration files whose runs are shown (default: all runs that are here)")
    status.add_argument("--watch", type=_seconds, metavar="S", help="show it again every S seconds")
    _add_json(status)

    show = _verb(verbs, "show", "the results, as tables in the terminal", SHOW, SHOW_EXAMPLES)
    _add_places(show)
    _add_json(show)

    explain = _verb(verbs, "explain", "in which settings two results differ", EXPLAIN, EXPLAIN_EXAMPLES)
    explain.add_argument("first", metavar="A", help="a result directory, a run id, or experiment/cell/seed")
    explain.add_argument("second", metavar="B", help="the same, to compare it with")
    _add_files(explain, "configuration files that cells are looked up in (default: config/config.yaml)")
    _add_json(explain)

    figures = _verb(verbs, "figures", "draw figures and tables again", FIGURES, FIGURES_EXAMPLES, passing)
    _add_files(figures)
    report = _verb(verbs, "report", "write results/report.html", REPORT, REPORT_EXAMPLES, passing)
    _add_files(report)
    archive = _verb(verbs, "archive", "pack what a paper can cite", ARCHIVE, ARCHIVE_EXAMPLES, passing)
    _add_files(archive)

    _add_convert(_verb(verbs, "convert", "trained weights into a complete model", CONVERT, CONVERT_EXAMPLES))

    verify = _verb(verbs, "verify", "draw figures again and compare", VERIFY, VERIFY_EXAMPLES)
    _add_places(verify)
    _add_json(verify)

    about = "print a script that completes sft in a shell"
    completion = _verb(verbs, "completion", about, COMPLETION, COMPLETION_EXAMPLES)
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell that it is for")
    return parser


def _verb(verbs, name: str, about: str, text: str, examples: str, usage: str = "") -> argparse.ArgumentParser:
    return verbs.add_parser(
        name,
        help=about,
        description=text,
        epilog=examples,
        usage=f"sft {name} {usage}" if usage else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_files(
    parser: argparse.ArgumentParser, about: str = "configuration files (default: config/config.yaml)"
) -> None:
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help=about)


def _add_places(parser: argparse.ArgumentParser) -> None:
    about = "configuration files, or directories below results/experiments (default: all that is there)"
    parser.add_argument("places", nargs="*", type=Path, metavar="FILE", help=about)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="directory or file with the trained weights")
    parser.add_argument("--base", type=Path, required=True, help="model directory (safetensors) that was trained")
    parser.add_argument("--output", type=Path, required=True, help="directory to make; must not exist")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the base's")
    parser.add_argument("--processor", type=Path, help="tokenizer or processor to ship (default: the base's)")
    parser.add_argument("--lora-alpha", type=float, help="scale of PEFT factors, where no adapter_config.json tells it")
    parser.add_argument(
        "--base-quantised",
        choices=("nf4", "nf4-single", "int8"),
        help="how bitsandbytes held the base while the adapter was trained; nf4-single: without double quantisation. "
        "The adapter is merged into the values that it was trained on",
    )
    parser.add_argument("--shard-gib", type=float, default=4.0, help="largest file of weights (default: 4)")
    parser.add_argument(
        "--logits",
        type=Path,
        help="safetensors with input_ids and logits of the trained model, products made in float32 (or a run's "
        "probe.safetensors): the result has to give the same",
    )
    parser.add_argument("--step", type=int, help="the step whose logits a probe.safetensors is read for")
    parser.add_argument("--may-equal-base", action="store_true", help="weights that did not change are no fault")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return seconds


class _Version(argparse.Action):
    """Reads the version when it is asked for: from pyproject.toml, the one place that has it."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None):
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import tomllib

        project = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        print(f"{project['name']} {project['version']}")
        parser.exit()
