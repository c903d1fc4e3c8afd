"""`inferay`: the command line. Only this module exits; everything below it raises."""

from __future__ import annotations

import os
import sys

import inferay
from inferay.cli.connection import disconnect
from inferay.cli.parser import Groups, Parser
from inferay.errors import EXIT_INTERRUPTED, InferayError, JobError, UserCodeError, exit_code

#: Characters of an error message; what it repeats may be as long as a file.
MESSAGE_CHARS_MAX = 2_000


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong input, and so on (`EXIT_CODES`)."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command; print its result; return the exit code."""
    options = None
    try:
        options = build().parse_strict(arguments)
        from inferay.cli.output import show

        show(options.run(options), options.output, options.query)
    except InferayError as error:
        if "--debug" in arguments:
            raise
        tell(error)
        return exit_code(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:   # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:   # a full disk, a folder that cannot be written
        if "--debug" in arguments:
            raise
        tell(InferayError(" ".join(str(error).split())))
        return exit_code(InferayError(""))
    finally:
        disconnect(options)
    return 0


def tell(error: InferayError) -> None:
    """Print an error: the user's own traceback first, then one line of ours."""
    if getattr(error, "was_shown", False):
        return
    if isinstance(error, (JobError, UserCodeError)) and error.details:
        print(error.details.rstrip(), file=sys.stderr)
    from inferay.engine.resources.wording import clipped

    print(f"error: {clipped(error.message, MESSAGE_CHARS_MAX)}", file=sys.stderr)


def build() -> Parser:
    """Return the whole grammar."""
    from inferay.cli import assets, endpoints, jobs, online, workspace

    about = "Inference endpoints on Ray, with Azure ML's words."
    parser = Parser(prog="inferay", description=about)
    parser.add_argument("--version", action="version", version=f"inferay {inferay.__version__}")
    groups = Groups(parser)
    for module in (workspace, online, endpoints, jobs, assets):
        module.add(groups)
    return parser


if __name__ == "__main__":
    main()
