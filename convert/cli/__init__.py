"""The command line. Nothing else prints or exits: 0 good, 1 failed, 2 usage, 3 drift over a limit."""

from __future__ import annotations

import gc
import io
import sys
from typing import Annotated, NoReturn

import typer

from ... import __version__
from ...formats.errors import GptOssConvertError, UsageError
from . import conversions, inspection, preparation
from .output import print_json

# Rich's markup is off: brackets in our help are options and sizes, not styles.
app = typer.Typer(
    name="gptoss-convert",
    help="Convert gpt-oss weights between layouts, byte for byte, and prove every conversion.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gptoss-convert {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for _command in (
    inspection.inspect,
    conversions.to_gguf,
    conversions.to_mxfp4,
    conversions.to_bf16,
    conversions.to_mlx,
    conversions.to_metal,
    conversions.make_demo,
    inspection.validate,
    inspection.drift,
    preparation.prepare,
    inspection.doctor,
):
    app.command()(_command)


def main() -> NoReturn:
    """The console script: runs a command and turns our errors into one message and an exit code."""
    # A command is short and makes few cycles; looking for them costs a tenth of its start.
    gc.disable()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows an escape; that is no failure.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except GptOssConvertError as error:
        _fail(error)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        typer.echo(f"error: the output cannot be printed: {error.strerror or error}", err=True)
        sys.exit(1)
    sys.exit(0)


def _fail(error: GptOssConvertError) -> NoReturn:
    """One message on stderr; with --json the error as an object on stdout."""
    if "--json" in sys.argv:
        print_json({"error": error.fields()})
    else:
        typer.echo(f"error: {error}", err=True)
    sys.exit(2 if isinstance(error, UsageError) else 1)
