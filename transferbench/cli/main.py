"""The console script: lazy sub-commands, and the one place that turns errors into messages and exit statuses."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from transferbench import __version__
from transferbench.base.errors import FaultError, InputError

COMMANDS = ("run", "eval", "selftest", "train", "runs", "verify", "leaderboard", "publish", "card", "list")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class LazyCommands(click.Group):
    """Each command is `command` of the module of its name, imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"transferbench.cli.{cmd_name}")
        command: click.Command = module.command
        return command


@click.command(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="transferbench", message="%(prog)s %(version)s")
def cli() -> None:
    """Is a network that was fine-tuned from a public one robust, and against whom?"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0, or 2 for bad input, 1 for a fault, 130 for Ctrl-C; an error is one line, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with cli.make_context("transferbench", arguments or ["--help"]) as context:
            cli.invoke(context)
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except click.ClickException as error:
        context_of = getattr(error, "ctx", None)
        named = f" {arguments[0]}" if arguments and arguments[0] in COMMANDS else ""
        command = context_of.command_path if context_of is not None else f"transferbench{named}"
        message = " ".join(error.format_message().split())
        return _fail("error", f"{message} (see {command} --help)", 2)
    except InputError as error:
        return _fail("error", str(error), 2)
    except FaultError as error:
        return _fail("fault", str(error), 1)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        return _fail("fault", f"{error}: free disk space, the same command goes on from there", 1)
    except KeyboardInterrupt:
        print("transferbench: stopped; finished jobs are kept, the same command goes on from there", file=sys.stderr)
        return 130
    return 0


def _fail(kind: str, message: str, status: int) -> int:
    print(f"transferbench: {kind}: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
