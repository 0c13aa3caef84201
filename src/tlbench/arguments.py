"""The words after a verb that is not Hydra's: argparse, its errors one line like any other."""

import argparse
from typing import NoReturn

from tlbench.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """An argument parser of one verb: `Parser("report", "what it does", example="tlbench report")`.

    The example ends --help, as it is typed. Words that cannot be parsed raise ConfigError.
    """

    def __init__(self, verb: str, description: str, *, example: str) -> None:
        super().__init__(
            prog=f"tlbench {verb}",
            description=description,
            epilog="example" + ("s" if "\n" in example else "") + ":\n" + _indented(example),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].upper()}{message[1:]}. See: {self.prog} --help")


def _indented(lines: str) -> str:
    return "\n".join(f"  {line.strip()}" for line in lines.strip().splitlines())
