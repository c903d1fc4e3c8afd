"""The command line's grammar: groups, commands and flags with Azure's names."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from inferay.cli.output import FORMATS
from inferay.errors import InvalidInput, nearest

#: Carries out a command: takes its options, returns what is shown (None: nothing).
Command = Callable[[argparse.Namespace], Any]

class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and name the nearest valid word."""

    def error(self, message: str) -> NoReturn:
        """Raise InvalidInput; the caller prints it and exits with 2."""
        raise InvalidInput(f"{self.prog}: {message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            word = "command" if isinstance(action, argparse._SubParsersAction) else "value"
            hint = nearest(str(value), names) or f"; expected one of {', '.join(names)}"
            raise InvalidInput(f"{self.prog}: unknown {word} '{value}'{hint}")

    def parse_strict(self, arguments: list[str]) -> argparse.Namespace:
        """Return the options.

        Raises:
            InvalidInput: Something is unknown, missing or wrong.
        """
        options, rest = self.parse_known_args(arguments)
        if rest:
            parser: Parser = getattr(options, "parser", self)
            known = list(parser._option_string_actions)
            hint = nearest(rest[0].split("=")[0], known) if rest[0].startswith("-") else ""
            raise InvalidInput(f"{parser.prog}: unknown argument '{rest[0]}'{hint}")
        return options


_GLOBAL = Parser(add_help=False)
_GLOBAL.add_argument("-o", "--output", choices=FORMATS, help="output format (json)")
_GLOBAL.add_argument("--query", help="JMESPath query over the result")
_GLOBAL.add_argument("--only-show-errors", action="store_true", help="no warnings")
_GLOBAL.add_argument("--debug", action="store_true", help="show inferay's own traceback")
# Azure's scripts name a workspace and a subscription; there is one workspace here.
for _flags in (("-g", "--resource-group"), ("-w", "--workspace-name"), ("--subscription",)):
    _GLOBAL.add_argument(*_flags, help=argparse.SUPPRESS)


class Groups:
    """The tree of commands while it is being built."""

    def __init__(self, root: Parser) -> None:
        self._root = root.add_subparsers(dest="group", metavar="COMMAND", required=True)
        self._root._parser_class = Parser

    def group(self, name: str, help_text: str) -> Group:
        """Add a group of commands, such as `job`."""
        return Group(self._root.add_parser(name, help=help_text))

    def command(self, name: str, run: Command, help_text: str) -> Parser:
        """Add a command that stands alone, such as `up`."""
        return _finish(self._root.add_parser(name, help=help_text, parents=[_GLOBAL]), run)


class Group:
    """A group of commands."""

    def __init__(self, parser: Any) -> None:
        self._commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
        self._commands._parser_class = Parser

    def command(self, name: str, run: Command, help_text: str) -> Parser:
        """Add a command to the group."""
        parser = self._commands.add_parser(name, help=help_text, parents=[_GLOBAL])
        return _finish(parser, run)


def _finish(parser: Any, run: Command) -> Parser:
    parser.set_defaults(run=run, parser=parser)
    found: Parser = parser
    return found


def add_file(parser: Parser, *, is_required: bool = False) -> None:
    """Add `-f --file` and `--set`."""
    parser.add_argument("-f", "--file", required=is_required, help="YAML file")
    add_set(parser)


def add_set(parser: Parser) -> None:
    """Add `--set`."""
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE",
        help="set a field, such as settings.mini_batch_size=5",
    )


def add_no_wait(parser: Parser) -> None:
    """Add `--no-wait`."""
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the end")


def add_yes(parser: Parser) -> None:
    """Add `-y --yes`."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def confirm(options: argparse.Namespace, what: str) -> None:
    """Ask before something is deleted.

    Raises:
        InvalidInput: The answer is no, or nobody can be asked.
    """
    if options.yes:
        return
    if not sys.stdin.isatty():
        prog = options.parser.prog
        raise InvalidInput(f"{prog}: give --yes to delete {what} without being asked")
    sys.stderr.write(f"Delete {what}? (y/N) ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InvalidInput(f"{what} was not deleted")


def warn(options: argparse.Namespace, lines: Any) -> None:
    """Print warnings to stderr."""
    if not options.only_show_errors:
        for line in lines:
            print(f"warning: {line}", file=sys.stderr)
