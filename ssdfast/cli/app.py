"""The command line: which command runs, and how it ends.

Exit codes: 0 done, 1 a failure, 2 the caller's mistake. A command's options are imported when it runs, so that the list
of commands prints at once; torch when a stage runs.
"""

from __future__ import annotations

import sys

HELP = """\
usage: ssdfast COMMAND [OPTIONS]

Was it self-distillation, or just training?

  sample     sample a model's answers to problems, as traces of token ids
  eval       score checkpoints or existing completions, and test which accuracy differences are significant
  train      fine-tune a model on traces, with a report on every step of whether it learns
  plan       print the memory that training takes, for any model and length, without weights and without a GPU
  probe      measure the shift of a trained model from its baseline at every position of given traces
  study      run all of these for several arms and decide: self-distillation, or just training?
  clean      list, or remove, the stages of a study that its settings no longer need
  attribute  say what shifted each arm beyond a control, from probes that exist already
  view       look at any of these directories in a browser: traces, positions, grades

`ssdfast study demo --out runs/demo` is a small study of a 135M model: a few minutes on a laptop, no downloads.
`ssdfast COMMAND --help` lists the options, `ssdfast --version` prints the version.
A run that was stopped continues where it was when the same command is started again.
"""
COMMANDS = ("sample", "eval", "train", "plan", "probe", "study", "clean", "attribute", "view")


def main() -> None:
    from .mistakes import quiet_unicode

    quiet_unicode(sys.stdout, sys.stderr)
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line; returns the exit code."""
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if args else 2
    if args[0] == "--version":
        from importlib.metadata import version

        print(f"ssdfast {version('ssdfast')}")
        return 0
    if args[0] not in COMMANDS:
        print(f"ssdfast: unknown command {args[0]!r}: the commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return _run(args[0], args[1:])


def _run(command: str, args: list[str]) -> int:
    from ..config.base import describe
    from ..progress import log_to_terminal
    from ..run_dir import RunError
    from . import stages

    try:
        with log_to_terminal():
            return stages.RUN[command](args)
    except ValueError as error:
        print(f"ssdfast: {' '.join(describe(error).split())}", file=sys.stderr)
        return 2
    except (RunError, OSError) as error:
        print(f"ssdfast: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ssdfast: stopped; the same command continues from here", file=sys.stderr)
        return 130
