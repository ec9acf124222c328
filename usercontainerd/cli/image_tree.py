"""``usercontainer image tree``."""

from __future__ import annotations

from usercontainerd.base.errors import printable
from usercontainerd.base.sizes import format_size
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.images.tree import LayerNode

SHORT_ID = 12
TREE = Verb(
    "image tree",
    "IMAGE",
    "Show the layers of an image, and which images share them",
    (Option("--whatrequires", "show what is built upon the image instead"),),
    fewest=1,
    most=1,
)


def run_tree(call: Call) -> int:
    """Draw the tree."""
    from usercontainerd.engine.images.tree import build_tree

    record, nodes = build_tree(call.context(), call.words[0], dependents=call.options.flag("whatrequires"))
    names = " ".join(name.name for name in record.names)
    write_output(
        f"Image ID: {record.short_id}\n"
        f"Tags:     [{printable(names)}]\n"
        f"Size:     {format_size(record.size, digits=4, gap='')}\n" + render_tree(nodes)
    )
    return 0


def render_tree(nodes: Sequence[LayerNode]) -> str:
    """The layers as lines. Pure."""
    if not nodes:
        return "No Image Layers\n"
    lines = ["Image Layers"]
    # With an explicit stack: images may have more layers than Python recurses.
    stack = [(node, "", number == 0) for number, node in enumerate(reversed(nodes))]
    while stack:
        node, indent, is_last = stack.pop()
        tops = f" Top Layer of: [{printable(' '.join(node.top_of))}]" if node.top_of else ""
        size = format_size(node.size, digits=4, gap="")
        lines.append(
            f"{indent}{'└── ' if is_last else '├── '}ID: {node.diff_id.hex[:SHORT_ID]} Size: {size}{tops}"
        )
        below = f"{indent}{'    ' if is_last else '│   '}"
        stack += [(each, below, number == 0) for number, each in enumerate(reversed(node.above))]
    return "\n".join(lines) + "\n"


VERBS = {"image tree": (TREE, run_tree)}
