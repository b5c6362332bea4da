from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

from courseware.authoring.clean import clean

BOX, LAYOUT = "32f4bcb1f5394cbab37cbb3ed0367e1f", "899bfbabb7ca43299db2623c59a58fbb"
VIEW = "application/vnd.jupyter.widget-view+json"


def executed(*outputs, widgets=None):
    """A notebook of one cell, as a run leaves it."""
    notebook = new_notebook(cells=[new_code_cell("show()", outputs=list(outputs))])
    if widgets is not None:
        notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": widgets}
    return clean(nbformat.from_dict(notebook), Path("/course"))


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def test_text_that_came_in_pieces_is_one_output_and_keeps_its_place():
    picture = new_output("display_data", {"text/plain": "a picture"})
    outputs = [
        printed("one\n"),
        printed("two\n"),
        picture,
        printed("three\n"),
        printed("!", "stderr"),
    ]
    kept = executed(*outputs).cells[0].outputs
    assert [o.get("text", "picture") for o in kept] == ["one\ntwo\n", "picture", "three\n", "!"]


def test_widgets_still_refer_to_one_another_by_their_new_names():
    widgets = {
        "state": {
            BOX: {"model_name": "BoxModel", "state": {"layout": f"IPY_MODEL_{LAYOUT}"}},
            LAYOUT: {"model_name": "LayoutModel", "state": {"width": "20em"}},
        }
    }
    notebook = executed(new_output("display_data", {VIEW: {"model_id": BOX}}), widgets=widgets)
    models = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert not {BOX, LAYOUT} & set(models)
    box = models[notebook.cells[0].outputs[0].data[VIEW]["model_id"]]
    layout = models[box["state"]["layout"].removeprefix("IPY_MODEL_")]
    assert box["model_name"] == "BoxModel"
    assert layout["state"]["width"] == "20em"
