"""Folded code makes way for what it shows: cells that only prepare are one fold, and a result stands above its code."""

from __future__ import annotations

from collections.abc import Iterator

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.transforms.post_transforms import SphinxPostTransform

FOLDED = ("input", "input+output", "all")


def folded_cells(document: nodes.document) -> Iterator[nodes.container]:
    """The code cells whose code is folded."""
    for node in document.findall(nodes.container):
        if node.get("nb_element") == "cell_code" and node.get("hide_mode") in FOLDED:
            yield node


def prepares(node: nodes.Node) -> bool:
    """Whether a node is a folded cell without an output, outside solutions and checks of claims."""
    is_cell = isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"
    if not is_cell or node.get("hide_mode") not in FOLDED or len(node.children) > 1:
        return False
    return not any(name.startswith(("tag_solution", "tag_claim")) for name in node["classes"])


class OneFold(SphinxPostTransform):
    """Put folded cells that stand in a row and print nothing into one fold."""

    default_priority = 198  # the folds are made at 199
    formats = ("html",)

    def run(self, **kwargs) -> None:
        """Rewrite the document in place."""
        for first in list(folded_cells(self.document)):
            if first.parent is None or not prepares(first):
                continue
            row = first.parent.children[first.parent.index(first) + 1 :]
            more = row[: next((at for at, node in enumerate(row) if not prepares(node)), len(row))]
            for cell in more:
                first.parent.remove(cell)
                first += cell.children
                cell.parent = None
            if more:
                first["hide_mode"] = "all"
                for prompt in ("prompt_show", "prompt_hide"):
                    first[prompt] = first[prompt].replace("{type}", f"set-up, {len(more) + 1} cells")


class ResultFirst(SphinxPostTransform):
    """Move folded code below the output of its cell."""

    default_priority = 200
    formats = ("html",)

    def run(self, **kwargs) -> None:
        """Rewrite the document in place."""
        for cell in folded_cells(self.document):
            fold = cell.children[0]
            if cell["hide_mode"] == "input" and len(cell.children) > 1 and isinstance(fold, HideCodeCellNode):
                fold["classes"] = ["below-input"]
                cell.remove(fold)
                cell += fold


def setup(app):
    """Connect to Sphinx."""
    app.add_post_transform(OneFold)
    app.add_post_transform(ResultFirst)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
