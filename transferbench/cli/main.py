"""The console script: lazy sub-commands, and the one place that turns errors into messages and exit statuses."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

import click

from transferbench import __version__
from transferbench.base.errors import InputError
from transferbench.cli import output
from transferbench.cli.failures import failure, one_line

COMMANDS = (
    "run",
    "eval",
    "selftest",
    "train",
    "runs",
    "verify",
    "leaderboard",
    "compare",
    "plan-n",
    "publish",
    "submit",
    "card",
    "list",
    "doctor",
    "inspect",
    "import-tf1",
)
DEBUG = "--debug"


class LazyCommands(click.Group):
    """Each command is `command` of the module of its name, imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """`leaderboard import` is a command of its own; a folder of the name is `./import`."""
        if args[:2] == ["leaderboard", "import"]:
            module = importlib.import_module("transferbench.cli.leaderboard_import")
            return "leaderboard import", module.command, args[2:]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"transferbench.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command


@click.command(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="transferbench", message="%(prog)s %(version)s")
@click.option(DEBUG, is_flag=True, help="Show the traceback of an error as well (anywhere in the line).",
              expose_value=False)  # fmt: skip
def cli() -> None:
    """Is a network that was fine-tuned from a public one robust, and against whom?"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0, or 2 for bad input, 1 for a fault, 130 for Ctrl-C; an error is one line, never a traceback."""
    # timm's import makes it with torch from 2.14 on; nobody here can do anything about it.
    warnings.filterwarnings("ignore", message="`torch.jit.interface` is deprecated", category=FutureWarning)
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG in arguments or os.environ.get("TRANSFERBENCH_DEBUG", "") not in ("", "0")
    arguments = [word for word in arguments if word != DEBUG]
    output.prepare()
    try:
        _check_text(arguments)
        status = _invoke(arguments)
        output.flush()
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): not an error of ours.
        output.discard(sys.stdout)
        return 0
    except KeyboardInterrupt:
        return _say("transferbench: stopped; finished jobs are kept, the same command goes on from there", 130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        kind, message, status = failure(error)
        status = _say(f"transferbench: {kind}: {one_line(message)}", status)
        _flush_or_discard()
    return status


def _invoke(arguments: Sequence[str]) -> int:
    """The exit status of the command. InputError for options that click does not take."""
    try:
        # Without arguments the help is what was asked for.
        with cli.make_context("transferbench", list(arguments) or ["--help"]) as context:
            cli.invoke(context)
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        context_of = getattr(error, "ctx", None)
        named = f" {arguments[0]}" if arguments and arguments[0] in COMMANDS else ""
        command = context_of.command_path if context_of is not None else f"transferbench{named}"
        raise InputError(f"{' '.join(error.format_message().split())} (see {command} --help)") from None
    return 0


def _check_text(arguments: Sequence[str]) -> None:
    """InputError for bytes that are no text in the terminal's encoding: no file could be written about them."""
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{os.fsencode(word)!r} is not text in this terminal's encoding ({sys.getfilesystemencoding()}): "
                "rename it, or set a UTF-8 locale"
            ) from None


def _say(line: str, status: int) -> int:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        output.discard(sys.stderr)
    return status


def _flush_or_discard() -> None:
    try:
        output.flush()
    except OSError:
        output.discard(sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
