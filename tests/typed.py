"""A command typed into this process: what it prints, and how it ends."""

import dataclasses
import json

from ml_core.cli import main


@dataclasses.dataclass
class Done:
    """What a command left: exit code and everything it printed."""

    code: int
    out: str

    @property
    def json(self):
        return json.loads(self.out.splitlines()[-1])


def typed(capfd, *arguments):
    """Run `ml-core` with `arguments`, as if typed; return what it left."""
    capfd.readouterr()
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code or 0
    printed = capfd.readouterr()
    return Done(code, printed.err + printed.out)
