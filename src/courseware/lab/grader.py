"""Check one exercise of a submitted notebook in this process, which does nothing else.

``python -m courseware.lab.grader EXERCISE`` reads a secret, a line's end and the notebook from its
standard input, and writes ``{"passed", "message", "secret"}`` to its standard output, where nothing
else is written. ``lab grade`` starts it in a sandbox and ends it when its time is up.
"""

import json
import os
import sys
from types import SimpleNamespace

MESSAGE = 500  # characters


def main(exercise: str) -> None:
    """Check ``exercise`` of the notebook on the standard input."""
    secret, _, notebook = sys.stdin.buffer.read().partition(b"\n")
    with os.fdopen(os.dup(1), "w") as verdict, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        message = _problem(exercise, notebook)
        body = {"passed": not message, "message": message[:MESSAGE], "secret": secret.decode()}
        json.dump(body, verdict)
        verdict.flush()
        os._exit(0)  # whatever the answer has left running


def _problem(exercise: str, notebook: bytes) -> str:
    """Return what is wrong with an answer; "" if it passes."""
    from courseware.errors import LabError
    from courseware.exercises import Wrong
    from courseware.exercises.engine import probe
    from courseware.exercises.exercise import find_exercise
    from courseware.exercises.guard import unpatched
    from courseware.exercises.source import answer_in

    task = find_exercise(exercise)
    try:
        cells = _cells(notebook)
    except Exception as error:
        return f"The notebook cannot be read ({type(error).__name__})."
    try:
        with unpatched() as replaced:
            answer = answer_in(cells, exercise)
        if replaced:
            return f"It replaced {', '.join(replaced)}. Do not change the libraries."
        probe(task, answer)
    except NotImplementedError:
        return "Not filled in."
    except (Wrong, LabError) as error:
        return str(error) or "The check refused it."
    except MemoryError:
        return "It needs too much memory."
    except BaseException as error:
        return f"It raised {type(error).__name__}: {error}"
    return ""


def _cells(notebook: bytes) -> list[SimpleNamespace]:
    """The cells of a notebook. (Importing nbformat takes seconds.)"""
    return [
        SimpleNamespace(
            cell_type=cell["cell_type"],
            source="".join(cell["source"]),
            metadata=dict(cell["metadata"]),
        )
        for cell in json.loads(notebook)["cells"]
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
