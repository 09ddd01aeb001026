"""The command line: one command per public function, no logic of its own.

```
commands.py    the commands, their arguments and options
options.py     options that several commands share; the ordered list of --freeze and --train
terminal.py    where output goes: tables or JSON on stdout, logs and progress on stderr
tables.py      the reports of the public functions as tables
exits.py       exceptions to exit codes and messages
```
"""

from graphfreeze.cli.exits import main, run

__all__ = ["main", "run"]
