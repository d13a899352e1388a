"""Run several commands one after the other in the processes that torchrun has started: importing torch takes longest.

torchrun --nproc_per_node=N several_commands.py COMMANDS.json

COMMANDS.json lists [name, script, processes, arguments]. Every command runs in a fork of each of the first `processes`
processes; each fork's output and exit code go to <name>.<rank>.out and <name>.<rank>.code beside the file.
"""

import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from utils import run


def main() -> None:
    commands_file = Path(sys.argv[1])
    rank = int(os.environ["RANK"])
    scripts = {name: importlib.import_module(name) for name in ("train", "test")}
    for number, (name, script, processes, arguments) in enumerate(json.loads(commands_file.read_text())):
        if rank >= processes:
            continue
        child = os.fork()
        if child == 0:
            os.environ["WORLD_SIZE"] = str(processes)
            # A store of its own, which rank 0 holds, as torchrun --standalone does it.
            os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
            os.environ["MASTER_PORT"] = str((int(os.environ["MASTER_PORT"]) + number) % 60_000 + 1024)
            output = os.open(commands_file.with_name(f"{name}.{rank}.out"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.argv = [script, *arguments]
            code = run(scripts[script].main)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        commands_file.with_name(f"{name}.{rank}.code").write_text(str(code))


if __name__ == "__main__":
    main()
